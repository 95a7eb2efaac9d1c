"""What databases have cost, over a client of the control plane."""

from __future__ import annotations

from pagestore.client.control import ControlClient
from pagestore.v1 import usage_pb2 as pb


class UsageClient:
    def __init__(self, control: ControlClient) -> None:
        self._control = control

    def usage(
        self, since: float, until: float | None = None, name: str = ""
    ) -> pb.GetUsageResponse:
        """Of the tenant's databases, or of one.

        Args:
            since, until: Unix seconds, of which whole hours count; until now where None.

        Raises:
            NotFound: DATABASE_NOT_FOUND. InvalidInput: INVALID_TIME.
        """
        request = pb.GetUsageRequest(
            tenant_id=self._control.tenant.raw,
            name=name,
            since_unix_micros=_micros(since),
            until_unix_micros=_micros(until),
        )
        return self._call("GetUsage", request)

    def usage_of_all(self, since: float, until: float | None = None) -> pb.GetUsageResponse:
        """Of all tenants', for the operator."""
        request = pb.GetUsageOfAllRequest(
            since_unix_micros=_micros(since), until_unix_micros=_micros(until)
        )
        return self._call("GetUsageOfAll", request)

    def _call(
        self, method: str, request: pb.GetUsageRequest | pb.GetUsageOfAllRequest
    ) -> pb.GetUsageResponse:
        return self._control.call(method, request, pb.GetUsageResponse, "UsageService")


def _micros(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * 1e6)
