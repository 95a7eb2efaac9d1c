"""A client of PlaceService: what the proxy asks of the control plane."""

from __future__ import annotations

from typing import Any

from pagestore.client.retrying import DEFAULT_TIMEOUT, RetryingClient
from pagestore.v1 import proxy_pb2 as pb
from pagestore.v1 import proxy_pb2_grpc

START_SECONDS = 150.0
"""A start waits for a turn, and may try other settings."""


class PlaceClient(RetryingClient):
    """Calls the control plane at `address` ("host:port"). Use it from one event loop."""

    def __init__(self, address: str, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        super().__init__(address, timeout=timeout)
        stubs: Any = proxy_pb2_grpc
        self._stub = stubs.PlaceServiceStub(self._channel)

    async def role(self, target: str, user: str) -> pb.LookUpRoleResponse:
        request = pb.LookUpRoleRequest(target=target, user=user)
        return await self._call(self._stub.LookUpRole, request, pb.LookUpRoleResponse)

    async def find(self, target: str) -> pb.FoundPlace:
        request = pb.FindPlaceRequest(target=target)
        return await self._call(self._stub.FindPlace, request, pb.FoundPlace)

    async def start(self, place: pb.Place) -> pb.PlaceAddress:
        request = pb.StartPlaceRequest(place=place)
        method = self._stub.StartPlace
        return await self._call(method, request, pb.PlaceAddress, answer_timeout=START_SECONDS)

    async def stop(self, place: pb.Place) -> str:
        """Why it was not stopped; empty when it was."""
        request = pb.StopPlaceRequest(place=place)
        method = self._stub.StopPlace
        answer = await self._call(
            method, request, pb.StopPlaceResponse, answer_timeout=START_SECONDS
        )
        return answer.hindrance

    async def awake(self) -> list[pb.AwakePlace]:
        request = pb.ListAwakePlacesRequest()
        method = self._stub.ListAwakePlaces
        return list((await self._call(method, request, pb.ListAwakePlacesResponse)).places)
