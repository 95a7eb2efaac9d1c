"""WAL as it arrives, joined into larger pieces while ingest is busy.

Feeding the core costs the same few microseconds for a kilobyte as for megabytes, and a batch
becomes readable as a whole. So a slow reader of the stream gets what came meanwhile as one
piece, as long as it is small: to join large ones costs more than to feed them one by one. A
reader that keeps up gets each at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import pairwise

from pagestore.client.walservice import WalPiece
from pagestore.errors import DataLoss
from pagestore.ids import format_lsn

QUEUED = 4
"""Bounds what waits: a piece that arrives has at most 1 MiB."""
LARGE_BYTES = 256 << 10


async def joined(stream: AsyncIterator[WalPiece]) -> AsyncGenerator[WalPiece, None]:
    """Pieces of contiguous WAL; ends and fails as `stream` does.

    Raises:
        DataLoss: WAL_GAP; a piece does not begin where the one before it ended.
    """
    queue: asyncio.Queue[WalPiece | None] = asyncio.Queue(QUEUED)

    async def pump() -> None:
        try:
            async for piece in stream:
                await queue.put(piece)
        finally:
            await queue.put(None)

    task = asyncio.create_task(pump())
    try:
        while (piece := await queue.get()) is not None:
            some, size = [piece], len(piece.data)
            while size < LARGE_BYTES and not queue.empty():
                more = queue.get_nowait()
                if more is None:
                    queue.put_nowait(None)
                    break
                some.append(more)
                size += len(more.data)
            if size:
                yield _join(some)
        await task
    finally:
        task.cancel()
        while not queue.empty():  # room for the pump's last word, or it would wait for ever
            queue.get_nowait()
        await asyncio.gather(task, return_exceptions=True)
        del task  # it has what is raised here, which has this frame, and whoever reads this


def _join(pieces: list[WalPiece]) -> WalPiece:
    for before, piece in pairwise(pieces):
        if piece.lsn != before.end:
            raise DataLoss(
                "WAL_GAP", f"WAL at {format_lsn(piece.lsn)} came after {format_lsn(before.end)}."
            )
    if len(pieces) == 1:
        return pieces[0]
    return WalPiece(pieces[0].lsn, b"".join(piece.data for piece in pieces))
