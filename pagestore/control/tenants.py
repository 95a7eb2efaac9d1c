"""Tenants: who owns databases, and how much each may have.

A tenant is known by a name and an id of its own; requests carry the id, and one that no tenant has
is refused. There is always one, `default`, whose id is zeros: nobody has to say its name.

A quota bounds databases, awake computes, and bytes of the tenant's own at the page server. Over one
of them *its* next step is refused with the figures, and nobody else's: a new database over the
first and the third, the start of a compute over the second and the third. What runs goes on.
Bytes are asked for at most every BYTES_SECONDS, of tenants that have such a quota alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from pagestore.client.names import tenant_name
from pagestore.control.records import Quota, TenantRecord, TimelineState
from pagestore.control.state import Change, ControlState, now_micros
from pagestore.errors import AlreadyExists, FailedPrecondition, ResourceExhausted, Unavailable
from pagestore.ids import DEFAULT_TENANT, DEFAULT_TENANT_NAME, TenantId, TimelineId
from pagestore.v1 import page_pb2

BYTES_SECONDS = 5.0

MakeTemplate = Callable[[TenantId], Awaitable[object]]


class Sizes(Protocol):
    async def list_timelines(self, tenant: TenantId | None) -> list[page_pb2.TimelineInfo]: ...


class Unlisted(NamedTuple):
    """Bytes at the page server that are no database's own: of histories that databases were taken
    out of, which an undo leads to, and of what nobody names any more, which branches read."""

    left: int
    deleted: int


class Tenants:
    def __init__(self, state: ControlState, sizes: Sizes) -> None:
        self._state = state
        self._sizes = sizes
        self._bytes: dict[TenantId, tuple[float, int]] = {}
        self._adding = asyncio.Lock()
        _name_old_tenants(state)

    # Verbs

    def known(self, tenant: TenantId | str) -> TenantRecord:
        """By its id or its name.

        Raises:
            NotFound: TENANT_NOT_FOUND.
        """
        return self._state.view().known_tenant(tenant)

    async def add(
        self, name: str, quota: Quota, make_template: MakeTemplate, *, if_not_exists: bool = False
    ) -> tuple[TenantRecord, bool]:
        """A tenant without databases; the record, and whether it is new. `make_template` makes
        what its databases begin as.

        Raises:
            AlreadyExists: TENANT_EXISTS.
        """
        name = tenant_name(name)
        async with self._adding:
            existing = self._state.view().tenant(name)
            if existing is not None and not if_not_exists:
                raise AlreadyExists(
                    "TENANT_EXISTS",
                    f"There is a tenant {name!r} already.",
                    "`pagestore tenant set` changes what it may have.",
                )
            if existing is not None:
                await make_template(existing.tenant)
                return existing, False
            made = TenantRecord(
                tenant=TenantId.generate(), name=name, quota=quota, created_micros=now_micros()
            )
            with self._state.change() as change:
                change.put_tenant(made)
            try:
                await make_template(made.tenant)
            except BaseException:
                with self._state.change() as change:
                    change.remove_tenant(made)
                raise
            return made, True

    def set_quota(self, name: str, change_quota: Callable[[Quota], Quota]) -> TenantRecord:
        """
        Raises:
            NotFound: TENANT_NOT_FOUND.
        """
        with self._state.change() as change:
            record = change.known_tenant(name)
            record = record.model_copy(update={"quota": change_quota(record.quota)})
            change.put_tenant(record)
        self._bytes.pop(record.tenant, None)
        return record

    def remove(self, name: str, *, if_exists: bool = False) -> bool:
        """Whether there was one.

        Raises:
            FailedPrecondition: TENANT_NOT_EMPTY, DEFAULT_TENANT.
        """
        with self._state.change() as change:
            record = change.tenant(name)
            if record is None and if_exists:
                return False
            record = change.known_tenant(name)
            if record.tenant == DEFAULT_TENANT:
                raise FailedPrecondition(
                    "DEFAULT_TENANT", f"The tenant {DEFAULT_TENANT_NAME!r} is always there."
                )
            left = change.count_databases(record.tenant)
            if left:
                raise FailedPrecondition(
                    "TENANT_NOT_EMPTY",
                    f"The tenant {name!r} has {left} databases.",
                    f"Remove them first: pagestore ls --tenant {name}",
                )
            change.remove_tenant(record)
        return True

    # Quotas

    async def admit_database(self, tenant: TenantId) -> None:
        """Before anything is made of a database.

        Raises:
            ResourceExhausted: TENANT_DATABASES, TENANT_BYTES.
        """
        _admit_one_more(self._state.view(), tenant)
        await self.admit_bytes(tenant)

    def admit_entry(self, change: Change, tenant: TenantId) -> None:
        """In the transaction that enters it: of two at once, one may be too many.

        Raises:
            ResourceExhausted: TENANT_DATABASES.
        """
        _admit_one_more(change, tenant)

    async def admit_bytes(self, tenant: TenantId) -> None:
        """
        Raises:
            ResourceExhausted: TENANT_BYTES.
        """
        record = self._state.view().tenant(tenant)
        most = record.quota.own_bytes if record is not None else None
        if record is None or most is None:
            return
        try:
            used = await self.own_bytes(tenant)
        except Unavailable:
            return  # What is asked for will say so itself, if it needs the page server.
        if used >= most:
            raise _over("TENANT_BYTES", record, f"{used} bytes of its own", f"{most} bytes")

    def admit_awake(self, tenant: TenantId, awake: int) -> None:
        """
        Args:
            awake: computes of it that run already, or are about to.

        Raises:
            ResourceExhausted: TENANT_AWAKE.
        """
        record = self._state.view().tenant(tenant)
        most = record.quota.awake if record is not None else None
        if record is not None and most is not None and awake >= most:
            what = f"{awake} awake databases"
            raise _over("TENANT_AWAKE", record, what, f"{most} at a time")

    async def own_bytes(self, tenant: TenantId) -> int:
        """At the page server, a few seconds ago at most.

        Raises:
            Unavailable: it is away.
        """
        clock = asyncio.get_running_loop().time
        asked, known = self._bytes.get(tenant, (-BYTES_SECONDS, 0))
        if clock() - asked < BYTES_SECONDS:
            return known
        total = sum((await self._bytes_but(tenant, set())).values())
        self._bytes[tenant] = clock(), total
        return total

    async def unlisted(self, tenant: TenantId) -> Unlisted:
        """
        Raises:
            Unavailable: the page server is away.
        """
        view = self._state.view()
        found = await self._bytes_but(tenant, {each.timeline for each in view.databases(tenant)})
        dropped = {
            record.timeline for record in view.unsettled() if record.state is TimelineState.DROPPED
        }
        deleted = sum(size for timeline, size in found.items() if timeline in dropped)
        return Unlisted(sum(found.values()) - deleted, deleted)

    async def _bytes_but(self, tenant: TenantId, known: set[TimelineId]) -> dict[TimelineId, int]:
        """Of the tenant's timelines, but these. What every database begins from is nobody's own."""
        infos = await self._sizes.list_timelines(tenant)
        templates = self._state.view().templates(tenant).values()
        known |= {template.timeline for template in templates}
        sizes = {TimelineId(info.timeline_id): info.physical_bytes for info in infos}
        return {timeline: size for timeline, size in sizes.items() if timeline not in known}


class _Counting(Protocol):
    def tenant(self, tenant: TenantId | str) -> TenantRecord | None: ...
    def count_databases(self, tenant: TenantId) -> int: ...


def _admit_one_more(view: _Counting, tenant: TenantId) -> None:
    record = view.tenant(tenant)
    most = record.quota.databases if record is not None else None
    if record is None or most is None:
        return
    count = view.count_databases(tenant)
    if count >= most:
        raise _over("TENANT_DATABASES", record, f"{count} databases", f"{most}")


def _over(reason: str, record: TenantRecord, has: str, may: str) -> ResourceExhausted:
    return ResourceExhausted(
        reason,
        f"The tenant {record.name!r} has {has}, and may have {may}.",
        "`pagestore rm` and `pagestore stop` make room; the operator can give it more: "
        f"pagestore tenant set {record.name}",
    )


def _name_old_tenants(state: ControlState) -> None:
    """Before tenants were entered, whoever named one was believed."""
    view = state.view()
    nameless = {item.tenant for item in view.databases()} - {item.tenant for item in view.tenants()}
    if nameless:
        with state.change() as change:
            for tenant in sorted(nameless):
                name = f"tenant-{str(tenant)[:12]}"
                change.put_tenant(TenantRecord(tenant=tenant, name=name, created_micros=0))
