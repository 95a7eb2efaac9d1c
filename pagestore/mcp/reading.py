"""Reading at one moment: where, by what right, and how an answer is read on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pagestore.client.urls import past_url
from pagestore.mcp import facts
from pagestore.mcp.desk import Continuation, Desk
from pagestore.sdk import sql
from pagestore.sdk.client import AsyncDatabase

SCRATCH_TTL = "10m"
"""Of a branch that is removed at the end anyway, unless this process is killed."""


async def read(
    desk: Desk,
    database: str,
    text: str,
    at: str | None,
    continuation: str | None,
    bounds: sql.Bounds,
    seconds: float,
) -> tuple[sql.Ran, str, str | None]:
    """What a text says at a point; the LSN; and how it goes on."""
    of: tuple[Any, ...] = (database, text, at)
    client = await desk.client()
    if continuation:
        where = Continuation.read(continuation, of)
    else:
        where = Continuation(of, *await facts.place(client, database, at), 0)
    url = past_url((await client.database(database)).url, where.point)
    bounds = sql.Bounds(bounds.rows, bounds.bytes, skip=where.skip)
    ran = await sql.run(url, text, seconds=seconds, bounds=bounds, read_only=True)
    rest = Continuation(of, where.lsn, where.point, where.skip + len(ran.rows))
    return ran, where.lsn, str(rest) if ran.more else None


@asynccontextmanager
async def scratch(desk: Desk, database: str, at: str | None) -> AsyncIterator[AsyncDatabase]:
    """A branch that is gone afterwards, whatever is done to it."""
    client = await desk.client()
    async with client.branch(database, at=at, ttl=SCRATCH_TTL) as made:
        yield made
