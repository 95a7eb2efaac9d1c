"""WAL chunks are joined while the reader is busy, in order, and gaps are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from pagestore.client.walservice import WalPiece
from pagestore.errors import DataLoss, Unavailable
from pagestore.ingest.chunks import LARGE_BYTES, QUEUED, joined
from tests.unit.virtual_time import play, settle


def chunk(lsn: int, data: bytes) -> WalPiece:
    return WalPiece(lsn, data)


async def stream(*chunks: WalPiece, error: Exception | None = None) -> AsyncIterator[WalPiece]:
    for item in chunks:
        yield item
    if error is not None:
        raise error


def test_a_slow_reader_gets_what_came_meanwhile_as_one_piece() -> None:
    async def main() -> None:
        many = [chunk(100 + i, bytes([i])) for i in range(50)]
        got: list[WalPiece] = []
        async for piece in joined(stream(*many)):
            got.append(piece)
            await asyncio.sleep(0.001)
        assert b"".join(data for _, data in got) == bytes(range(50))
        assert len(got) < 50
        assert max(len(data) for _, data in got) <= QUEUED + 1
        position = 100
        for lsn, data in got:
            assert lsn == position
            position += len(data)

    asyncio.run(main())


def test_large_pieces_are_not_joined() -> None:
    async def main() -> None:
        large = [chunk(1 + i * LARGE_BYTES, bytes(LARGE_BYTES)) for i in range(8)]
        got: list[WalPiece] = []
        async for piece in joined(stream(*large, chunk(large[-1].end, b"last"))):
            got.append(piece)
            await asyncio.sleep(0.001)
        assert got == [*large, (large[-1].end, b"last")]

    asyncio.run(main())


def test_a_gap_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(DataLoss) as caught:
            async for _ in joined(stream(chunk(1, b"ab"), chunk(4, b"c"))):
                pass
        assert caught.value.reason == "WAL_GAP"

    asyncio.run(main())


def test_what_came_before_an_error_is_given_first() -> None:
    async def main() -> None:
        pieces = joined(stream(chunk(1, b"ab"), error=Unavailable("X", "gone")))
        assert await anext(pieces) == (1, b"ab")
        with pytest.raises(Unavailable):
            await anext(pieces)

    asyncio.run(main())


def test_a_reader_that_leaves_ends_the_stream() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def endless() -> AsyncIterator[WalPiece]:
            try:
                lsn = 1
                while True:
                    yield chunk(lsn, b"x")
                    lsn += 1
            finally:
                closed.set()

        source = endless()
        pieces = joined(source)
        await anext(pieces)
        await pieces.aclose()
        await source.aclose()  # type: ignore[attr-defined]
        assert closed.is_set()

    asyncio.run(main())


def test_a_reader_that_gives_up_is_not_kept_by_what_still_waits() -> None:
    async def main() -> None:
        many = [chunk(i, b"x") for i in range(10 * QUEUED)]
        async with asyncio.timeout(10), aclosing(joined(stream(*many))) as pieces:
            await anext(pieces)
            await settle()  # the queue is full

    play(main())
