"""Asking again while nobody answers: pauses that double up to a bound, each of a random length.

By the event loop's own clock, so that the simulation's virtual time holds here, too; libraries for
this (tenacity, stamina) measure by the machine's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pagestore.errors import LASTING, Unavailable

FIRST_PAUSE = 0.02

_T = TypeVar("_T")


def passes(error: Unavailable) -> bool:
    """Whether it may pass by waiting."""
    return error.reason not in LASTING


async def patiently(
    call: Callable[[], Awaitable[_T]],
    deadline: float,
    *,
    longest: float = 1.0,
    may_pass: Callable[[Unavailable], bool] = passes,
) -> _T:
    """Repeats what is Unavailable, but for reasons that do not pass by waiting.

    Args:
        deadline: by the event loop's clock; no pause goes beyond it.
        longest: seconds that a pause is at most.
        may_pass: which reasons those are.

    Raises:
        Unavailable: that of the last try.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return await call()
        except Unavailable as error:
            if not may_pass(error) or asyncio.get_running_loop().time() + pause > deadline:
                raise
        # Clients that lost the same service do not come back in step.
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
        pause = min(pause * 2, longest)
