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

from pagestore.client.page import AsyncPageClient, Rel
from pagestore.client.walservice import WalService
from pagestore.control.history import History
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import layout, relmap, slru
from pagestore.postgres.roles import RoleEntry, find_roles
from pagestore.postgres.shared_catalogs import PG_AUTHID
from pagestore.v1 import page_pb2

REMEMBERED = 10_000
"""Databases, and names of databases that there are not."""
_SHARED = (layout.GLOBAL_TABLESPACE, 0)


@dataclass
class _Known:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: float = -1.0
    """When it was last asked whether something was committed."""
    lsn: int = -1
    roles: Mapping[str, RoleEntry] = field(default_factory=dict)


class Roles:
    def __init__(self, pages: AsyncPageClient, wal: WalService, history: History) -> None:
        self._pages = pages
        self._wal = wal
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
                status = await self._wal.get_status(tenant, timeline)
                if status.commit_lsn != known.lsn:
                    known.roles = await self._read(tenant, timeline)
                    known.lsn = status.commit_lsn
                known.asked = asked
            return known.roles

    def _remembered(self, key: tuple[TimelineId, str]) -> _Known:
        known = self._known.setdefault(key, _Known())
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known

    async def _read(self, tenant: TenantId, timeline: TimelineId) -> Mapping[str, RoleEntry]:
        lsn = (await self._history.head(timeline)).lsn
        mapping = relmap.parse(await self._pages.get_relation_map(tenant, timeline, lsn, *_SHARED))
        rel = Rel(*_SHARED, mapping[PG_AUTHID])
        blocks = await self._pages.get_rel_size(tenant, timeline, lsn, rel) or 0
        pages = await self._pages.get_pages(tenant, timeline, lsn, rel, range(blocks))
        segments: dict[int, bytes] = {}
        missing: set[int] = set()
        while True:
            found = find_roles(pages, lambda xid: _committed(xid, segments, missing))
            if not missing:
                return found
            while missing:
                number = missing.pop()
                segments[number] = await self._pages.get_slru_segment(
                    tenant, timeline, lsn, page_pb2.SLRU_KIND_XACT, number
                )


def _committed(xid: int, segments: Mapping[int, bytes], missing: set[int]) -> bool:
    """By the segments of pg_xact that are there; those that are not are noted as missing."""
    page = slru.page_of(slru.XACT, xid)
    number = page // slru.PAGES_PER_SEGMENT
    if number not in segments:
        missing.add(number)
        return False
    _, offset = slru.page_position(slru.XACT, page)
    at = offset + xid % slru.XACTS_PER_PAGE // 4
    segment = segments[number]
    return at < len(segment) and segment[at] >> xid % 4 * 2 & 3 == 1
