"""WAL as it arrives, joined into larger pieces while ingest is busy.

Feeding the core costs the same few microseconds for a kilobyte as for megabytes, and a batch
becomes readable as a whole. So a slow reader of the stream gets all that came meanwhile as one
piece, and a reader that keeps up gets each chunk at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from pagestore.errors import DataLoss
from pagestore.ids import format_lsn
from pagestore.v1 import wal_pb2

QUEUED_CHUNKS = 4
"""Bounds what waits: a chunk has at most 1 MiB."""

Piece = tuple[int, bytes]
"""(LSN of the first byte, bytes)."""


async def joined(stream: AsyncIterator[wal_pb2.WalChunk]) -> AsyncGenerator[Piece, None]:
    """Pieces of contiguous WAL; ends and fails as `stream` does.

    Raises:
        DataLoss: WAL_GAP; a chunk does not begin where the one before it ended.
    """
    queue: asyncio.Queue[wal_pb2.WalChunk | None] = asyncio.Queue(QUEUED_CHUNKS)

    async def pump() -> None:
        try:
            async for chunk in stream:
                await queue.put(chunk)
        finally:
            await queue.put(None)

    task = asyncio.create_task(pump())
    try:
        ended = False
        while not ended:
            chunks = [await queue.get()]
            while not queue.empty():
                chunks.append(queue.get_nowait())
            ended = chunks[-1] is None
            some = [chunk for chunk in chunks if chunk is not None and chunk.data]
            if some:
                yield _join(some)
        await task
    finally:
        task.cancel()
        while not queue.empty():  # room for the pump's last word, or it would wait for ever
            queue.get_nowait()
        await asyncio.gather(task, return_exceptions=True)


def _join(chunks: list[wal_pb2.WalChunk]) -> Piece:
    expected = chunks[0].lsn
    for chunk in chunks:
        if chunk.lsn != expected:
            raise DataLoss(
                "WAL_GAP", f"WAL at {format_lsn(chunk.lsn)} came after {format_lsn(expected)}."
            )
        expected += len(chunk.data)
    if len(chunks) == 1:
        return chunks[0].lsn, chunks[0].data
    return chunks[0].lsn, b"".join(chunk.data for chunk in chunks)
