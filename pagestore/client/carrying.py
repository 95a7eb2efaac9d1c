"""A client of ProxyService for the control plane: what it tells of a move that is about to be."""

from __future__ import annotations

from typing import Any

from pagestore.client.retrying import RetryingClient
from pagestore.v1 import proxy_pb2 as pb
from pagestore.v1 import proxy_pb2_grpc


class CarryingClient(RetryingClient):
    """Calls the proxy's service at `address` ("host:port"). Use it from one event loop."""

    def __init__(self, address: str, *, timeout: float) -> None:
        super().__init__(address, timeout=timeout)
        stubs: Any = proxy_pb2_grpc
        self._stub = stubs.ProxyServiceStub(self._channel)

    async def carry_out(self, request: pb.CarryOutRequest, seconds: float) -> pb.CarryOutResponse:
        """
        Args:
            seconds: for the answer.
        """
        method = self._stub.CarryOut
        return await self._call(method, request, pb.CarryOutResponse, answer_timeout=seconds)
