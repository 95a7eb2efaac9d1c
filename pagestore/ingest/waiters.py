"""Waiting until a timeline has been ingested up to an LSN.

Lives on one event loop: `advance` is called there after each append, and wakes whoever waits
for a position at or below the new one. A wait costs one heap entry; a timeline without waiters
costs nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from pagestore.errors import DeadlineExceeded, PagestoreError
from pagestore.ids import TenantId, TimelineId, format_lsn

TimelineKey = tuple[TenantId, TimelineId]


class LsnWaiters:
    """Who waits for which timeline to reach which LSN."""

    def __init__(self) -> None:
        self._heaps: dict[TimelineKey, list[tuple[int, int, asyncio.Future[None]]]] = {}
        self._order = itertools.count()
        self.on_wait: Callable[[TimelineKey], None] = lambda key: None
        """Called when somebody begins to wait."""

    async def wait(
        self, key: TimelineKey, lsn: int, seconds: float, position: Callable[[], int]
    ) -> None:
        """Returns once `advance` has told of `lsn` or beyond.

        Args:
            position: where ingest is now; asked again when the time is over, for the message.

        Raises:
            DeadlineExceeded: LSN_NOT_REACHED, saying where ingest is.
            PagestoreError: what `fail` was told.
        """
        if position() >= lsn:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heap = self._heaps.setdefault(key, [])
        heapq.heappush(heap, (lsn, next(self._order), future))
        try:
            self.on_wait(key)
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            raise DeadlineExceeded(
                "LSN_NOT_REACHED",
                f"Timeline {key[1]} is ingested up to {format_lsn(position())}, not to "
                f"{format_lsn(lsn)}, after {seconds:.1f} s.",
                "If WAL up to there was committed, ask again or allow more time.",
            ) from None
        finally:
            self._forget_finished(key)

    def _forget_finished(self, key: TimelineKey) -> None:
        heap = self._heaps.get(key)
        if heap is None:
            return
        if all(future.done() for _, _, future in heap[:8]):
            heap[:] = [item for item in heap if not item[2].done()]
            heapq.heapify(heap)
        if not heap:
            self._heaps.pop(key, None)

    def advance(self, key: TimelineKey, lsn: int) -> None:
        """Wakes those who wait for `lsn` or less."""
        heap = self._heaps.get(key)
        while heap and heap[0][0] <= lsn:
            future = heapq.heappop(heap)[2]
            if not future.done():
                future.set_result(None)
        if not heap:
            self._heaps.pop(key, None)

    def fail(self, key: TimelineKey, error: PagestoreError) -> None:
        """Ends every wait on a timeline with `error`."""
        for _, _, future in self._heaps.pop(key, []):
            if not future.done():
                future.set_exception(error)

    def awaited(self, key: TimelineKey) -> bool:
        """Whether anybody waits for a timeline."""
        return any(not future.done() for _, _, future in self._heaps.get(key, ()))

    def count(self) -> int:
        """How many waits are under way (or just over)."""
        return sum(len(heap) for heap in self._heaps.values())
