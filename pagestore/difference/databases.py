"""Two databases beside each other: their schemas, then table by table what rows differ.

Each is read as of one moment, which its session takes first; then it is asked up to which LSN its
WAL is, so that no block that this moment shows changed is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pagestore.client.page import AsyncPageClient
from pagestore.difference import schemas
from pagestore.difference.parting import Changed, Head, changed_since_parting
from pagestore.difference.rows import Row, TableDifference, compare
from pagestore.difference.schemas import ChangedObject
from pagestore.difference.session import SqlSession
from pagestore.difference.tables import (
    Table,
    TableName,
    blocks_to_read,
    select_rows,
    tables_of,
    unescaped,
)
from pagestore.errors import DeadlineExceeded
from pagestore.ids import TenantId, TimelineId, parse_lsn

LONGEST_HEADER = 40
"""Of a WAL page: what is inserted next begins behind one, and what was inserted ends before it."""
HEAD_SECONDS = 30.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Side:
    """A database.

    Args:
        head: its commit LSN now.
        is_past: it stands still at that LSN.
    """

    name: str
    url: str
    tenant: TenantId
    timeline: TimelineId
    head: Callable[[], int]
    is_past: bool = False


@dataclass
class Difference:
    """From one database to the other.

    Args:
        tables: those that both have, where rows differ.
        blocks_read: of both sides; `tables_read` that many tables, the others were not touched.
        known_blocks: whether it was known which blocks were changed.
    """

    schema: list[ChangedObject] = field(default_factory=list)
    tables: dict[TableName, TableDifference] = field(default_factory=dict)
    only_ours: list[TableName] = field(default_factory=list)
    only_theirs: list[TableName] = field(default_factory=list)
    tables_read: int = 0
    blocks_read: int = 0
    known_blocks: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.schema or self.tables or self.only_ours or self.only_theirs)


async def difference(
    pages: AsyncPageClient,
    ours: Side,
    theirs: Side,
    pg_dump: Path,
    limit: int,
    *,
    whole: bool = False,
) -> Difference:
    """
    Args:
        limit: of rows of a table that are told one by one.
        whole: all rows of all tables are read, whatever the page server knows.

    Raises:
        FailedPrecondition: SQL_FAILED, DUMP_FAILED. NotFound: NO_PSQL.
    """
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(await SqlSession.open(side.name, side.url))
            for side in (ours, theirs)
        ]
        found = Difference()
        dumps = await asyncio.gather(
            *(schemas.dumped(pg_dump, side.name, side.url) for side in (ours, theirs))
        )
        found.schema = schemas.changed(*dumps)
        changed = None
        if not whole:
            heads = [
                await _head(session, side)
                for session, side in zip(sessions, (ours, theirs), strict=True)
            ]
            changed = await changed_since_parting(pages, *heads)
        found.known_blocks = changed is not None
        await _tables(found, sessions, changed, limit)
        return found


async def _head(session: SqlSession, side: Side) -> Head:
    """Behind all that the session's moment shows."""
    if side.is_past:
        return Head(side.tenant, side.timeline, side.head())
    ((inserted,),) = await session.rows("SELECT pg_catalog.pg_current_wal_insert_lsn()")
    least = parse_lsn(inserted) - LONGEST_HEADER
    clock = asyncio.get_running_loop().time
    deadline = clock() + HEAD_SECONDS
    while (lsn := await asyncio.to_thread(side.head)) < least:
        if clock() > deadline:
            raise DeadlineExceeded(
                "LSN_NOT_REACHED", f"What {side.name} shows is not durable after {HEAD_SECONDS} s."
            )
        await asyncio.sleep(_LOOK_SECONDS)
    return Head(side.tenant, side.timeline, lsn)


async def _tables(
    found: Difference,
    sessions: list[SqlSession],
    changed: tuple[Changed, Changed] | None,
    limit: int,
) -> None:
    ours, theirs = [await tables_of(session) for session in sessions]
    found.only_ours = [name for name in ours if name not in theirs]
    found.only_theirs = [name for name in theirs if name not in ours]
    for name, table in ours.items():
        if (other := theirs.get(name)) is None:
            continue
        blocks = blocks_to_read(
            table, other, None if changed is None else [one.of(table.place) for one in changed]
        )
        if blocks is not None and len(blocks) == 0:
            continue
        found.tables_read += 1
        found.blocks_read += 2 * len(blocks) if blocks is not None else table.blocks + other.blocks
        differs = await compare(
            _rows(sessions[0], table, blocks), _rows(sessions[1], other, blocks), limit
        )
        if differs.total:
            found.tables[name] = differs


async def _rows(
    session: SqlSession, table: Table, blocks: NDArray[np.uint32] | None
) -> AsyncIterator[Row]:
    async for line in session.lines(select_rows(table, blocks)):
        key, _, row = line.partition("\t")
        yield Row(unescaped(key), unescaped(row))
