"""Who may log in to a database, asked of its own catalog, whether it is awake or not.

pg_authid is read at the commit LSN of now, from the page server: so what CREATE ROLE and ALTER ROLE
did holds from the next login on, also of a database that sleeps or has crashed. What was read holds
until something is committed; to ask whether something was, costs one question to the WAL service.

A stranger may tell nothing from how long it takes: for a database that there is not, the roles of
the empty template are looked up, as often and at the same price as another's would be.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from pagestore.client.page import AsyncPageClient
from pagestore.compute.roles import read_databases, read_roles
from pagestore.control.history import History
from pagestore.control.logs import End, Logs
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres.roles import RoleEntry

REMEMBERED = 10_000
"""Databases, and names of databases that there are not."""


@dataclass
class _Known:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: float = -1.0
    """When it was last asked whether something was committed."""
    lsn: int = -1
    roles: Mapping[str, RoleEntry] = field(default_factory=dict)


class Roles:
    def __init__(self, pages: AsyncPageClient, logs: Logs, history: History) -> None:
        self._pages = pages
        self._logs = logs
        self._history = history
        self._known: OrderedDict[tuple[TimelineId, str], _Known] = OrderedDict()

    async def of(
        self, tenant: TenantId, timeline: TimelineId, stranger: str = ""
    ) -> Mapping[str, RoleEntry]:
        """The roles of a timeline, by name.

        Args:
            stranger: a name that there is not, for which this timeline stands in.
        """
        known = self._remembered((timeline, stranger))
        clock = asyncio.get_running_loop().time
        arrived = clock()
        async with known.lock:
            # Who waited here may share what was asked after it had come.
            if known.asked <= arrived:
                asked = clock()
                end = await self._logs.end(timeline)
                if end.commit_lsn != known.lsn:
                    known.roles = await self._read(tenant, timeline, end)
                    known.lsn = end.commit_lsn
                known.asked = asked
            return known.roles

    async def databases(
        self, tenant: TenantId, timeline: TimelineId, lsn: int | None = None
    ) -> frozenset[str]:
        """The names of those inside Postgres, now or at a moment of the past."""
        if lsn is None:
            lsn = await self._last(timeline, await self._logs.end(timeline))
        return await read_databases(self._pages, tenant, timeline, lsn)

    def _remembered(self, key: tuple[TimelineId, str]) -> _Known:
        known = self._known.setdefault(key, _Known())
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known

    async def _read(
        self, tenant: TenantId, timeline: TimelineId, end: End
    ) -> Mapping[str, RoleEntry]:
        lsn = await self._last(timeline, end)
        return await read_roles(self._pages, tenant, timeline, lsn)

    async def _last(self, timeline: TimelineId, end: End) -> int:
        return (await self._history.last_record(timeline, end)).lsn
