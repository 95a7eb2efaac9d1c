"""What a disk that fails keeps from being done, tried again until it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pagestore.pauses import Pauses

FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
"""Seconds."""


async def until_done(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Calls `attempt` with growing pauses, first after one, until it says that all is done."""
    pauses, done = Pauses(FIRST_PAUSE, LAST_PAUSE, spread=False), False
    while not done:
        await pauses.sleep()
        done = await attempt()
