"""Reading at one moment: where, by what right, and how an answer is read on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from pagestore.client.urls import past_url
from pagestore.errors import Aborted, OutOfRange
from pagestore.mcp import facts
from pagestore.mcp.desk import Continuation, Desk, Place
from pagestore.sdk import sql
from pagestore.sdk.client import AsyncClient, AsyncDatabase

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
        begun = Continuation.read(continuation, of)
    else:
        begun = Continuation(of, 0, await facts.place(client, database, at))
    place = begun.place
    url = past_url((await client.database(database)).url, place.point)
    bounds = sql.Bounds(bounds.rows, bounds.bytes, skip=begun.skip)
    try:
        ran = await sql.run(url, text, seconds=seconds, bounds=bounds, read_only=True)
    finally:
        await _check_history(client, database, place)
    rest = Continuation(of, begun.skip + len(ran.rows), place)
    return ran, place.lsn, str(rest) if ran.more else None


async def _check_history(client: AsyncClient, database: str, place: Place) -> None:
    """A restore may have come between, or just now: an LSN does not say of which history it is.

    Raises:
        Aborted: MOVED_MEANWHILE.
    """
    with suppress(OutOfRange):  # an LSN that the present history has not
        if await facts.place(client, database, place.point) == place:
            return
    raise Aborted(
        "MOVED_MEANWHILE",
        f"Database {database!r} was taken to another history while its answer was read.",
        "Ask anew, without the continuation; a checkpoint's name as `at` lasts.",
    )


@asynccontextmanager
async def scratch(desk: Desk, database: str, at: str | None) -> AsyncIterator[AsyncDatabase]:
    """A branch that is gone afterwards, whatever is done to it."""
    client = await desk.client()
    async with client.branch(database, at=at, ttl=SCRATCH_TTL) as made:
        yield made
