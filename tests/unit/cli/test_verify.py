"""What `verify --replay` says of WAL that is no longer there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pagestore.cli.verify import _named
from pagestore.errors import OutOfRange


async def dropped() -> AsyncIterator[tuple[int, bytes]]:
    yield 16, b"wal"
    raise OutOfRange("LSN_TOO_OLD", "WAL at 0/20 has been dropped; it is kept from 0/40 on.")


async def read() -> list[tuple[int, bytes]]:
    return [piece async for piece in _named(dropped())]


def test_dropped_wal_names_the_ways_to_have_it() -> None:
    with pytest.raises(OutOfRange) as caught:
        asyncio.run(read())
    assert caught.value.reason == "WAL_DROPPED"
    assert "kept from 0/40" in caught.value.message
    assert "--wal DIR" in (caught.value.hint or "")
    assert "--wal-keep-bytes" in (caught.value.hint or "")
