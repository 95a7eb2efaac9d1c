"""A client of ProxyService for programs and the command line: who is awake, and why.

It makes no stubs of all the service's methods: of a verb that asks one question they would be half
the price (docs/performance.md, `ls`).
"""

from __future__ import annotations

import grpc

from pagestore.client.channels import open_blocking_channel
from pagestore.client.closing import BlockingClosing
from pagestore.client.credentials import Credentials, default
from pagestore.client.errors import from_rpc_error
from pagestore.v1 import proxy_pb2 as pb


class ProxyClient(BlockingClosing):
    """
    Args:
        timeout: seconds for an answer.
    """

    def __init__(
        self, address: str, *, timeout: float, credentials: Credentials | None = None
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._channel = open_blocking_channel(address, credentials or default())

    def close(self) -> None:
        self._channel.close()

    def status(self) -> pb.ProxyStatus:
        ask = self._channel.unary_unary(
            "/pagestore.v1.ProxyService/GetProxyStatus",
            request_serializer=pb.GetProxyStatusRequest.SerializeToString,
            response_deserializer=pb.ProxyStatus.FromString,
        )
        try:
            answer = ask(pb.GetProxyStatusRequest(), timeout=self.timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        assert isinstance(answer, pb.ProxyStatus)
        return answer
