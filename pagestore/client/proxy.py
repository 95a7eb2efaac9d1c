"""Clients of ProxyService: who is awake and why, and what the control plane tells of a move."""

from __future__ import annotations

from typing import Any

import grpc

from pagestore.client.channels import open_blocking_channel
from pagestore.client.closing import BlockingClosing
from pagestore.client.credentials import Credentials, default
from pagestore.client.errors import from_rpc_error
from pagestore.client.retrying import RetryingClient
from pagestore.v1 import proxy_pb2 as pb
from pagestore.v1 import proxy_pb2_grpc


class AsyncProxyClient(RetryingClient):
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


class ProxyClient(BlockingClosing):
    """For programs and the command line.

    Args:
        timeout: seconds for an answer.
    """

    def __init__(
        self, address: str, *, timeout: float, credentials: Credentials | None = None
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._channel = open_blocking_channel(address, credentials or default())
        stubs: Any = proxy_pb2_grpc
        self._stub = stubs.ProxyServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def status(self) -> pb.ProxyStatus:
        try:
            answer = self._stub.GetProxyStatus(pb.GetProxyStatusRequest(), timeout=self.timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        assert isinstance(answer, pb.ProxyStatus)
        return answer
