"""Where two databases parted, and what was changed on either side since.

A row is the same on both sides if its block is, and if the transaction that wrote it came to the
same end. Blocks, the page server knows. A transaction that was under way where they parted may have
committed on one side and never on the other, without touching a block again: whether there was one
tells the log of transactions (pg_xact) as it was there, beside what it became. Where there was, all
blocks are read. (Around the corner of 32 bits a number stands for two; those of the older time are
frozen, and have come to their end.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagestore.client.page import AsyncPageClient
from pagestore.difference.tables import Place
from pagestore.errors import NotFound
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import page_pb2 as pb

XACTS_A_SEGMENT = 32 * 8192 * 4
WAIT_MS = 30_000
_XID = 0xFFFFFFFF
_UNDER_WAY, _COMMITTED = 0, 1
_XACT = pb.SLRU_KIND_XACT


class Head(NamedTuple):
    """A database's timeline, and the LSN up to which it is looked at."""

    tenant: TenantId
    timeline: TimelineId
    lsn: int


class Changed(NamedTuple):
    """Blocks by relation, of one side."""

    blocks: Mapping[Place, NDArray[np.uint32]]

    def of(self, place: Place) -> NDArray[np.uint32]:
        return self.blocks.get(place, np.empty(0, np.uint32))


async def changed_since_parting(
    pages: AsyncPageClient, ours: Head, theirs: Head
) -> tuple[Changed, Changed] | None:
    """None where it is not known: they have nothing in common, or not in reach."""
    try:
        a, b = await _ancestry(pages, ours), await _ancestry(pages, theirs)
    except NotFound:
        return None  # an ancestor that was deleted, and serves its branches only
    common = next((timeline for timeline in a if timeline in b), None)
    if common is None:
        return None
    parted = min(a[common], b[common])
    commit = await pages.known_commit(ours.tenant, ours.timeline, parted, wait_ms=WAIT_MS)
    if not commit.commit_lsn or not commit.next_full_xid:
        return None
    for head in (ours, theirs):
        if await _was_settled_later(pages, head, parted, commit.next_full_xid):
            return None
    # Whoever began behind that commit has written all it has written behind it, too.
    return (
        await _changed(pages, ours, commit.commit_lsn),
        await _changed(pages, theirs, commit.commit_lsn),
    )


async def _ancestry(pages: AsyncPageClient, head: Head) -> dict[TimelineId, int]:
    """Each timeline of a history, the nearest first, and up to where it is of it."""
    found: dict[TimelineId, int] = {}
    here, upto = head.timeline, head.lsn
    while True:
        found[here] = upto
        info = await pages.get_timeline(head.tenant, here)
        if not info.parent_timeline_id:
            return found
        here, upto = TimelineId(info.parent_timeline_id), min(upto, info.branch_lsn)


async def _changed(pages: AsyncPageClient, head: Head, after: int) -> Changed:
    found: dict[Place, NDArray[np.uint32]] = {}
    if after < head.lsn:
        stream = pages.changed_blocks(head.tenant, head.timeline, after, head.lsn, wait_ms=WAIT_MS)
        async for relation in stream:
            place = Place(relation.spc_oid, relation.db_oid, relation.rel_number)
            found[place] = np.frombuffer(relation.blocks, "<u4")
    return Changed(found)


async def _was_settled_later(
    pages: AsyncPageClient, head: Head, parted: int, next_full_xid: int
) -> bool:
    """Whether a transaction that had begun before, and was under way at `parted`, has committed
    since."""
    if parted >= head.lsn:
        return False
    end = next_full_xid & _XID
    for segment in range(-(-end // XACTS_A_SEGMENT)):
        then = await _segment(pages, head, segment, parted)
        now = await _segment(pages, head, segment, head.lsn)
        if settled_later(then, now, end - segment * XACTS_A_SEGMENT):
            return True
    return False


async def _segment(pages: AsyncPageClient, head: Head, segment: int, lsn: int) -> bytes:
    """None of it is left where it is older than any row."""
    try:
        return await pages.get_slru_segment(head.tenant, head.timeline, lsn, _XACT, segment)
    except NotFound:
        return b""


def settled_later(before: bytes, after: bytes, count: int) -> bool:
    """Whether one of the first `count` transactions had no end yet, and has committed since: of
    two states of a part of pg_xact, two bits a transaction."""
    then, now = _states(before)[:count], _states(after)[:count]
    both = min(len(then), len(now))
    return bool(np.any((then[:both] == _UNDER_WAY) & (now[:both] == _COMMITTED)))


def _states(raw: bytes) -> NDArray[np.uint8]:
    packed = np.frombuffer(raw, np.uint8)
    return np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).reshape(-1)
