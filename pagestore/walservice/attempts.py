"""What a disk that fails keeps from being done, tried again until it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
"""Seconds."""


async def until_done(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Calls `attempt` with growing pauses, first after one, until it says that all is done."""
    pause, done = FIRST_PAUSE, False
    while not done:
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE)
        done = await attempt()
