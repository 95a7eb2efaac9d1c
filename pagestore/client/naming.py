"""Tells a part what databases are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pagestore.client.credentials import Credentials
from pagestore.client.retrying import RetryingClient
from pagestore.ids import TimelineId
from pagestore.v1 import names_pb2 as pb
from pagestore.v1 import names_pb2_grpc


class NameClient(RetryingClient):
    """Of any part. Use it from one event loop. Nobody waits for a part that is away."""

    answer_timeout = 5.0

    def __init__(self, address: str, *, credentials: Credentials | None = None) -> None:
        super().__init__(address, timeout=0.0, credentials=credentials)
        stubs: Any = names_pb2_grpc
        self._stub = stubs.NameServiceStub(self._channel)

    async def tell(self, names: Mapping[TimelineId, str]) -> int:
        """The number of the run that has heard it."""
        items = [pb.TimelineName(timeline_id=t.raw, name=name) for t, name in names.items()]
        request = pb.TellNamesRequest(names=items)
        return (await self._call(self._stub.TellNames, request, pb.TellNamesResponse)).run
