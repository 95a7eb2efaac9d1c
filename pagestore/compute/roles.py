"""The roles of a cluster as the page server has them, whether a server runs on it or not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pagestore.client.page import AsyncPageClient, Rel
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import layout, relmap, slru
from pagestore.postgres.roles import RoleEntry, find_roles
from pagestore.postgres.shared_catalogs import PG_AUTHID
from pagestore.v1 import page_pb2

_SHARED = (layout.GLOBAL_TABLESPACE, 0)


async def read_roles(
    pages: AsyncPageClient, tenant: TenantId, timeline: TimelineId, lsn: int
) -> dict[str, RoleEntry]:
    """By name, as they are at an LSN, the end of a record."""
    at = (tenant, timeline, lsn)
    # Until somebody rewrites it, it is where initdb has put it: asked for beside the map.
    rel = Rel(*_SHARED, PG_AUTHID)
    relation_map, blocks = await asyncio.gather(
        pages.get_relation_map(*at, *_SHARED), pages.get_rel_size(*at, rel)
    )
    number = relmap.parse(relation_map)[PG_AUTHID]
    if number != PG_AUTHID:
        rel = Rel(*_SHARED, number)
        blocks = await pages.get_rel_size(*at, rel)
    heap = await pages.get_pages(*at, rel, range(blocks or 0))
    segments: dict[int, bytes] = {}
    missing: set[int] = set()
    while True:
        found = find_roles(heap, lambda xid: _committed(xid, segments, missing))
        if not missing:
            return found
        while missing:
            number = missing.pop()
            segments[number] = await pages.get_slru_segment(
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
