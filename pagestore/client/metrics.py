"""What a part says of itself."""

from __future__ import annotations

from typing import Any

from pagestore.client.credentials import Credentials
from pagestore.client.retrying import RetryingClient
from pagestore.v1 import metrics_pb2 as pb
from pagestore.v1 import metrics_pb2_grpc

AWAY_SECONDS = 0.5


class MetricsClient(RetryingClient):
    """Of any part. Use it from one event loop."""

    answer_timeout = 5.0

    def __init__(
        self,
        address: str,
        *,
        timeout: float = AWAY_SECONDS,
        credentials: Credentials | None = None,
    ) -> None:
        super().__init__(address, timeout=timeout, credentials=credentials)
        stubs: Any = metrics_pb2_grpc
        self._stub = stubs.MetricsServiceStub(self._channel)

    async def text(self) -> bytes:
        """In the text format of Prometheus."""
        request = pb.GetMetricsRequest()
        return (await self._call(self._stub.GetMetrics, request, pb.MetricsText)).text
