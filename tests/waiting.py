"""Waiting in tests: until something holds, or to see that it goes on holding.

A pause that stands for neither is a race that some machine loses. What is *quiet* can only be
seen by looking for a while: :func:`stays` looks all the while, and fails at the first moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.01


def wait_until(
    condition: Callable[[], object], seconds: float = PATIENCE_SECONDS, *, what: str = ""
) -> None:
    """
    Raises:
        AssertionError: it did not come about within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what or f"not within {seconds} s"
        time.sleep(_PAUSE_SECONDS)


async def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """As :func:`wait_until`, on an event loop."""
    await until_answered(_answering(condition), seconds)


async def until_answered(
    ask: Callable[[], Awaitable[object]], seconds: float = PATIENCE_SECONDS
) -> None:
    """As :func:`until`, where the condition itself has to be awaited."""
    deadline = time.monotonic() + seconds
    while not await ask():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(_PAUSE_SECONDS)


def wait_still(value: Callable[[], object], seconds: float, within: float = 30.0) -> None:
    """Returns when it has not changed for so long.

    Raises:
        AssertionError: it still changes after `within` seconds.
    """
    deadline = time.monotonic() + within
    last, since = value(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, f"it does not come to rest: {last}"
        time.sleep(_PAUSE_SECONDS)
        if (now := value()) != last:
            last, since = now, time.monotonic()


def stays(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it holds now and goes on to hold for so long: how quiet is seen."""
    over = time.monotonic() + seconds
    while condition():
        if time.monotonic() >= over:
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


async def stays_on_loop(condition: Callable[[], object], seconds: float) -> bool:
    """As :func:`stays`, on an event loop."""
    over = time.monotonic() + seconds
    while condition():
        if time.monotonic() >= over:
            return True
        await asyncio.sleep(_PAUSE_SECONDS)
    return False


def let_pass(seconds: float) -> None:
    """No condition: whatever goes on, goes on for so long. A fault lasts; a kill is to fall at
    another moment than the last."""
    time.sleep(seconds)


def _answering(condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def ask() -> object:
        return condition()

    return ask
