"""A timeline's WAL in few large pieces, and at once where somebody waits for it.

A busy compute makes its WAL durable thousands of times a second. To read each time costs both
processes a message, some hundred microseconds, however little it brings, and those are taken
from the commits. So WAL is asked for about every PACE_SECONDS, all that has been committed
until then. What nobody reads need not be ingested sooner: unchanged pages are served without
waiting for it.

Who waits for an LSN makes it due now, and as long as anybody waits one stream brings each
advance as it comes. A large piece makes the next one due as well: there is much to catch up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from pagestore.client.walservice import WalPiece

PACE_SECONDS = 0.1
LARGE_BYTES = 1 << 20

Read = Callable[[int, int], AsyncGenerator[WalPiece, None]]
"""Committed WAL from an LSN on; ends when none came for so many milliseconds."""


class Pace:
    """When the next piece of one timeline is due.

    Args:
        awaited: whether somebody waits for WAL that is not ingested.
        known: the highest commit LSN that was told.
    """

    def __init__(self, awaited: Callable[[], bool], known: Callable[[], int]) -> None:
        self.awaited = awaited
        self._known = known
        self._change = asyncio.Event()
        self._hastened = False

    def look(self) -> None:
        """What `awaited` or `known` tell has changed."""
        self._change.set()

    def hasten(self) -> None:
        """Makes the next piece due, once."""
        self._hastened = True
        self._change.set()

    async def rest(self, lsn: int, linger_seconds: float) -> bool:
        """Returns when WAL behind `lsn` is due; False when none came for `linger_seconds`."""
        began = asyncio.get_running_loop().time()
        while not (self._hastened or self.awaited()):
            changed = self._known() > lsn
            self._change.clear()
            try:
                async with asyncio.timeout_at(
                    began + (PACE_SECONDS if changed else linger_seconds)
                ):
                    await self._change.wait()
            except TimeoutError:
                return changed
        self._hastened = False
        return True


async def paced(read: Read, lsn: int, pace: Pace, linger_ms: int) -> AsyncGenerator[WalPiece, None]:
    """WAL from `lsn` on; ends when nothing new came for `linger_ms`, fails as `read` does."""
    while True:
        begin = lsn
        stays = pace.awaited()
        async with aclosing(read(lsn, linger_ms if stays else 0)) as stream:
            async for piece in stream:
                yield piece
                lsn = piece.end
                if stays and not pace.awaited():
                    break
        if lsn - begin < LARGE_BYTES and not await pace.rest(lsn, linger_ms / 1000):
            return
