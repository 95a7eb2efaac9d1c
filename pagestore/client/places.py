"""A client of PlaceService: what the proxy asks of the control plane."""

from __future__ import annotations

from collections.abc import Mapping
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

    async def role(
        self, target: str, user: str, *, patience: float | None = None
    ) -> pb.LookUpRoleResponse:
        """
        Args:
            patience: seconds for a control plane that is away, where they are not the client's.
        """
        request, method = pb.LookUpRoleRequest(target=target, user=user), self._stub.LookUpRole
        return await self._call(method, request, pb.LookUpRoleResponse, patience=patience)

    async def find(self, target: str, *, patience: float | None = None) -> pb.FoundPlace:
        """
        Args:
            patience: as of `role`.
        """
        request, method = pb.FindPlaceRequest(target=target), self._stub.FindPlace
        return await self._call(method, request, pb.FoundPlace, patience=patience)

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

    async def count(self, life: str, queries: Mapping[str, int]) -> None:
        request = pb.CountQueriesRequest(life=life, queries=queries)
        await self._call(self._stub.CountQueries, request, pb.CountQueriesResponse)

    async def awake(self) -> list[pb.AwakePlace]:
        request = pb.ListAwakePlacesRequest()
        method = self._stub.ListAwakePlaces
        return list((await self._call(method, request, pb.ListAwakePlacesResponse)).places)
