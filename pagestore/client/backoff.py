"""Asking again while nobody answers, by the event loop's clock (:mod:`pagestore.pauses`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pagestore.errors import LASTING, Unavailable
from pagestore.pauses import Pauses

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
    pauses = Pauses(FIRST_PAUSE, longest)
    while True:
        try:
            return await call()
        except Unavailable as error:
            pause = pauses.next()
            if not may_pass(error) or asyncio.get_running_loop().time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
