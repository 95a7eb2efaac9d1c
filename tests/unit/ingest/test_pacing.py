"""A busy timeline is read in few pieces; whoever waits, or a lot of WAL, makes one due at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from pagestore.client.walservice import WalPiece
from pagestore.ingest import pacing
from pagestore.ingest.pacing import LARGE_BYTES, Pace, paced

NEVER_MS = 3_600_000


class Log:
    """A log that grows; its reads are counted, and can linger."""

    def __init__(self) -> None:
        self.end = 0
        self.reads: list[tuple[int, int]] = []
        self.awaited = False
        self.pace = Pace(lambda: self.awaited, lambda: self.end)
        self._grown = asyncio.Event()

    def grow(self, count: int) -> None:
        self.end += count
        self._grown.set()
        self.pace.look()

    async def read(self, lsn: int, linger_ms: int) -> AsyncGenerator[WalPiece, None]:
        self.reads.append((lsn, linger_ms))
        while True:
            if self.end > lsn:
                yield WalPiece(lsn, bytes(self.end - lsn))
                lsn = self.end
            if linger_ms == 0:
                return
            self._grown.clear()
            await self._grown.wait()

    def follow(self, linger_ms: int = NEVER_MS) -> AsyncGenerator[WalPiece, None]:
        return paced(self.read, 0, self.pace, linger_ms)


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing becomes due by itself: a test that relies on it hangs."""
    monkeypatch.setattr(pacing, "PACE_SECONDS", 3600.0)


def test_many_small_advances_come_in_few_pieces() -> None:
    async def main() -> None:
        log = Log()
        pieces = 0

        async def grow() -> None:
            for _ in range(200):
                log.grow(1)
                await asyncio.sleep(0.001)

        growing = asyncio.create_task(grow())
        async with aclosing(log.follow()) as chunks:
            position = 0
            async for chunk in chunks:
                assert chunk.lsn == position
                position += len(chunk.data)
                pieces += 1
                if position == 200:
                    break
        await growing
        assert pieces <= len(log.reads) < 100

    asyncio.run(main())


def test_it_ends_when_nothing_came() -> None:
    async def main() -> None:
        log = Log()
        log.grow(5)
        assert [len(chunk.data) async for chunk in log.follow(linger_ms=1)] == [5]

    asyncio.run(main())


@pytest.mark.usefixtures("never")
def test_who_waits_gets_every_advance_as_it_comes() -> None:
    async def main() -> None:
        log = Log()
        log.grow(1)
        async with aclosing(log.follow()) as chunks:
            assert len((await anext(chunks)).data) == 1
            coming = asyncio.ensure_future(anext(chunks))
            await asyncio.sleep(0)
            log.awaited = True
            log.pace.look()
            for _ in range(3):
                await asyncio.sleep(0.001)
                assert not coming.done()
                log.grow(7)
                assert len((await coming).data) == 7
                coming = asyncio.ensure_future(anext(chunks))
            await asyncio.sleep(0.001)
            log.awaited = False
            log.grow(1)
            await coming
            resting = asyncio.ensure_future(anext(chunks))
            log.grow(1)
            await asyncio.sleep(0.001)
            assert not resting.done()
            resting.cancel()
            await asyncio.wait([resting])
        assert log.reads == [(0, 0), (1, NEVER_MS)]

    asyncio.run(main())


@pytest.mark.usefixtures("never")
def test_who_asks_makes_one_piece_due() -> None:
    async def main() -> None:
        log = Log()
        log.grow(1)
        async with aclosing(log.follow()) as chunks:
            await anext(chunks)
            coming = asyncio.ensure_future(anext(chunks))
            log.grow(2)
            await asyncio.sleep(0.001)
            assert not coming.done()
            log.pace.hasten()
            assert len((await coming).data) == 2
        assert log.reads == [(0, 0), (1, 0)]

    asyncio.run(main())


@pytest.mark.usefixtures("never")
def test_a_large_piece_makes_the_next_one_due() -> None:
    async def main() -> None:
        log = Log()
        log.grow(LARGE_BYTES)
        async with aclosing(log.follow()) as chunks:
            await anext(chunks)
            log.grow(1)
            assert len((await anext(chunks)).data) == 1

    asyncio.run(main())
