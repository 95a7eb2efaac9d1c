"""What databases have cost, for their owners and for the operator: UsageService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pagestore.control.state import ControlState, now_micros
from pagestore.control.usage import HOUR, Usage, Used
from pagestore.errors import InvalidInput, NotFound
from pagestore.ids import TenantId
from pagestore.v1 import usage_pb2 as pb


class UsageService:
    """The methods of UsageService, for GrpcServer.add_service.

    Args:
        refresh: brings what runs up to date.
    """

    def __init__(
        self, state: ControlState, usage: Usage, refresh: Callable[[], Awaitable[None]]
    ) -> None:
        self._state, self._usage, self._refresh = state, usage, refresh

    async def get_usage(self, request: pb.GetUsageRequest, _: Any) -> pb.GetUsageResponse:
        tenant = TenantId(request.tenant_id)
        found = await self._between(request.since_unix_micros, request.until_unix_micros, tenant)
        answer = self._answer(found, request.since_unix_micros)
        if request.name:
            own = [item for item in answer.databases if item.name == request.name]
            if not own and self._state.view().database(tenant, request.name) is None:
                raise NotFound(
                    "DATABASE_NOT_FOUND",
                    f"There is no database {request.name[:80]!r}, and none of that name has cost "
                    "anything in that time.",
                    "`pagestore usage` lists those that have.",
                )
            del answer.databases[:]
            answer.databases.extend(own)
        return answer

    async def get_usage_of_all(
        self, request: pb.GetUsageOfAllRequest, _: Any
    ) -> pb.GetUsageResponse:
        found = await self._between(request.since_unix_micros, request.until_unix_micros, None)
        return self._answer(found, request.since_unix_micros)

    async def _between(self, since: int, until: int, tenant: TenantId | None) -> list[Used]:
        end = until or now_micros()
        if not 0 <= since <= end:
            raise InvalidInput("INVALID_TIME", "That time ends before it begins.")
        await self._refresh()
        return self._usage.between(since, end, tenant)

    def _answer(self, found: Iterable[Used], since: int) -> pb.GetUsageResponse:
        view = self._state.view()
        tenants = {item.tenant: item.name for item in view.tenants()}
        present = {(item.tenant, item.created_micros): item.name for item in view.databases()}
        answer = pb.GetUsageResponse(since_unix_micros=since // HOUR * HOUR)
        for item in found:
            name = present.get((item.whose.tenant, item.whose.created))
            answer.databases.add(
                tenant=tenants.get(item.whose.tenant, str(item.whose.tenant)),
                name=name or item.whose.name,
                removed=name is None,
                awake_micros=item.awake_micros,
                cpu_micros=item.cpu_micros,
                queries=item.queries,
                wakes=item.wakes,
            )
        return answer
