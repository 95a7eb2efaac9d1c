"""The roles and databases of a cluster as the page server has them, whether a server runs on it or
not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from pagestore.client.page import AsyncPageClient, Rel
from pagestore.errors import PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import layout, relmap, slru
from pagestore.postgres.roles import RoleEntry, find_roles
from pagestore.postgres.shared_catalogs import (
    PG_AUTHID,
    PG_DATABASE,
    Committed,
    find_databases,
)
from pagestore.v1 import page_pb2

_T = TypeVar("_T")
_SHARED = (layout.GLOBAL_TABLESPACE, 0)


async def read_roles(
    pages: AsyncPageClient, tenant: TenantId, timeline: TimelineId, lsn: int
) -> dict[str, RoleEntry]:
    """By name, as they are at an LSN, the end of a record."""
    return await _read(pages, (tenant, timeline, lsn), PG_AUTHID, find_roles)


async def read_databases(
    pages: AsyncPageClient, tenant: TenantId, timeline: TimelineId, lsn: int
) -> frozenset[str]:
    """Their names inside Postgres, as they are at an LSN, the end of a record."""
    return await _read(pages, (tenant, timeline, lsn), PG_DATABASE, find_databases)


async def _read(
    pages: AsyncPageClient,
    at: tuple[TenantId, TimelineId, int],
    catalog: int,
    find: Callable[[Iterable[bytes], Committed], _T],
) -> _T:
    """What the rows of a shared catalog say.

    A login waits for it, so what it nearly always takes is asked for at once: the map, and as if
    the catalog were where initdb has put it, of one page, by some of the first million
    transactions.
    """
    rel = Rel(*_SHARED, catalog)
    relation_map, blocks, first, commits = await asyncio.gather(
        pages.get_relation_map(*at, *_SHARED),
        pages.get_rel_size(*at, rel),
        _perhaps(pages.get_pages(*at, rel, range(1))),
        _perhaps(pages.get_slru_segment(*at, page_pb2.SLRU_KIND_XACT, 0)),
    )
    number = relmap.parse(relation_map)[catalog]
    if number != catalog:
        rel, first = Rel(*_SHARED, number), None
        blocks = await pages.get_rel_size(*at, rel)
    heap = (first or [])[: blocks or 0]
    if rest := range(len(heap), blocks or 0):
        heap += await pages.get_pages(*at, rel, rest)
    segments = {} if commits is None else {0: commits}
    missing: set[int] = set()
    while True:
        found = find(heap, lambda xid: _committed(xid, segments, missing))
        if not missing:
            return found
        while missing:
            number = missing.pop()
            segments[number] = await pages.get_slru_segment(*at, page_pb2.SLRU_KIND_XACT, number)


async def _perhaps(asked: Awaitable[_T]) -> _T | None:
    """None where a guess was wrong; whoever needs it asks again, and is told why not."""
    try:
        return await asked
    except PagestoreError:
        return None


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
