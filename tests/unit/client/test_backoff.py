"""What is asked again while it is Unavailable, and what is not."""

from __future__ import annotations

import asyncio

import pytest

from pagestore.client.backoff import patiently
from pagestore.errors import LASTING, Unavailable

SECONDS = 5.0


def ask(reason: str) -> int:
    """How often it was called, if it succeeds at the third."""
    calls = 0

    async def call() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise Unavailable(reason, "It is not to be had.")
        return calls

    async def run() -> int:
        return await patiently(call, asyncio.get_running_loop().time() + SECONDS)

    return asyncio.run(run())


@pytest.mark.parametrize("reason", ["UNAVAILABLE", "IO_ERROR", "WAL_WRITE_FAILED"])
def test_what_may_pass_is_asked_again(reason: str) -> None:
    assert ask(reason) == 3


@pytest.mark.parametrize("reason", sorted(LASTING))
def test_what_does_not_pass_by_waiting_is_told_at_once(reason: str) -> None:
    with pytest.raises(Unavailable) as told:
        ask(reason)
    assert told.value.reason == reason
