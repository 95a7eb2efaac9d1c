"""When open layers become files.

Four occasions. Memory: half the bound of all open layers together starts a flush of the
timeline that holds most, beside ingest; at the whole bound ingest waits for it. Rest: a
timeline that took nothing in for a while is flushed, so that an idle one holds no memory; but one
that takes in little, again and again, only once in a long while, since each flush is a file, three
syncs and a transaction, and there are thousands of such. Depth: a page that is changed all the time
is flushed before a read of it would take long, and compaction gives it an image. And the end of the
process. A full or failing disk stops nobody who reads: the frozen layer stays
readable in memory, whoever wants to add waits for room, and the flush is tried again, with
pauses that grow a little, until it is done. What it fails by is told as the timeline's `failure`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import structlog

from pagestore import tasks
from pagestore.errors import NotFound, PagestoreError
from pagestore.ingest.waiters import TimelineKey
from pagestore.pauses import Pauses
from pagestore.timeline import Repository, Timeline

IDLE_SECONDS = 10.0
RETRY_SECONDS = 1.0
MOST_RETRIES = 4.0
"""The longest pause, in first ones: there may be room again any moment, and somebody waits."""
TRICKLE_SECONDS = 3600.0
"""Between two flushes at rest of a timeline that holds little."""
TRICKLE_BYTES = 1 << 20
DEEP = 1024 * 8
"""So much to be applied in one read, in weights of `Layer.depth`, is not left in memory."""
_log = structlog.get_logger(__name__)


class Flusher:
    """Flushes timelines of one repository, one at a time, in a thread of its own."""

    def __init__(
        self,
        repository: Repository,
        open_layer_bytes: int,
        *,
        idle_seconds: float = IDLE_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        trickle_seconds: float = TRICKLE_SECONDS,
    ) -> None:
        self._repository = repository
        self._soft_bytes = open_layer_bytes // 2
        self._idle_seconds = idle_seconds
        self._retry_seconds = retry_seconds
        self._trickle_seconds = trickle_seconds
        self._thread = ThreadPoolExecutor(1, "flush")
        self._lock = asyncio.Lock()
        self._touched: dict[TimelineKey, float] = {}
        self._rested: dict[TimelineKey, float] = {}
        """When each was flushed at rest, if that was lately."""
        self._relief: asyncio.Task[None] | None = None
        self._relieving = self._pauses()
        self._failed: dict[TimelineKey, _Failure] = {}
        self.on_flushed: Callable[[TimelineKey], None] = lambda key: None

    def _pauses(self) -> Pauses:
        return Pauses(self._retry_seconds, MOST_RETRIES * self._retry_seconds)

    def touch(self, key: TimelineKey) -> None:
        """Says that a timeline has just taken something in."""
        self._touched[key] = asyncio.get_running_loop().time()

    def forget(self, key: TimelineKey) -> None:
        self._touched.pop(key, None)
        self._rested.pop(key, None)
        self._failed.pop(key, None)

    @property
    def is_busy(self) -> bool:
        """Whether something is being flushed, or memory is so full that it soon will be."""
        return self._lock.locked() or self._repository.memory_bytes > self._soft_bytes

    def failure(self, key: TimelineKey) -> str:
        """Why a timeline's last flush failed; empty when all is well."""
        failed = self._failed.get(key)
        return failed.message if failed is not None else ""

    async def make_room(self) -> None:
        """Returns once memory is within its bound; waits as long as nothing can be flushed."""
        if self._relief is None and self._repository.memory_bytes > self._soft_bytes:
            self._relief = tasks.errand(self._relieve(), "make room")
        while self._repository.pressure() is not None:
            if self._relief is None:
                self._relief = tasks.errand(self._relieve(), "make room")
            await asyncio.shield(self._relief)

    async def _relieve(self) -> None:
        """Flushes the timeline that holds most, one that failed last only if there is no other;
        pauses if that does not help."""
        try:
            able = [_key(t) for t in self._repository.in_memory() if t.can_shrink]
            able.sort(key=lambda key: key in self._failed)
            if able and not await self._flush_quietly(able[0]):
                await self._relieving.sleep()
            else:
                self._relieving.reset()
        finally:
            self._relief = None

    def _may_try(self, key: TimelineKey) -> bool:
        failed = self._failed.get(key)
        return failed is None or asyncio.get_running_loop().time() >= failed.not_before

    async def flush(self, timeline: Timeline) -> None:
        """Puts everything a timeline has taken in into files.

        Raises:
            ResourceExhausted: STORE_FULL. Unavailable: IO_ERROR. Nothing is lost, and it may be
                tried again.
        """
        async with self._lock:
            await self._flush(timeline)

    async def run(self) -> None:
        """Flushes timelines at rest, and tries again what failed, until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self._idle_seconds / 2))
            now = asyncio.get_running_loop().time()
            for key in self._due(now):
                if await self._flush_quietly(key):
                    self._rested[key] = now
            lately = now - self._trickle_seconds
            self._rested = {key: at for key, at in self._rested.items() if at > lately}

    def _due(self, now: float) -> list[TimelineKey]:
        """Those at rest, and deep ones; and those whose flush failed, though they be busy: what is
        said of them stays said until it is done."""
        ready = (key for key, at in self._touched.items() if self._is_ready(key, now, at))
        return [key for key in dict.fromkeys([*ready, *self._failed]) if self._may_try(key)]

    def _is_ready(self, key: TimelineKey, now: float, touched: float) -> bool:
        try:
            timeline = self._repository.get(*key)
        except NotFound:
            return True  # to be forgotten
        if timeline.open_depth >= DEEP:
            return True
        if now - touched < self._idle_seconds:
            return False
        return key not in self._rested or timeline.memory_bytes >= TRICKLE_BYTES

    async def close(self) -> None:
        """Flushes whatever is left, and ends the thread."""
        if self._relief is not None:
            self._relief.cancel()
            await asyncio.gather(self._relief, return_exceptions=True)
        for key in list(self._touched):
            await self._flush_quietly(key)
        self._thread.shutdown()

    async def _flush_quietly(self, key: TimelineKey) -> bool:
        """Whether it was done; what fails is noted, and stays to be done."""
        touched = self._touched.get(key)
        try:
            await self.flush(self._repository.get(*key))
        except NotFound:
            self.forget(key)  # deleted: nothing is left to be done
        except (PagestoreError, OSError) as error:
            self._note(key, error)
            return False
        else:
            if self._touched.get(key) == touched:
                self._touched.pop(key, None)
        return True

    async def _flush(self, timeline: Timeline) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, _freeze_and_flush, timeline)
        key = _key(timeline)
        self.on_flushed(key)
        if self._failed.pop(key, None) is not None:
            _log.warning("a flush is done that had failed", timeline=str(key[1]))

    def _note(self, key: TimelineKey, error: Exception) -> None:
        message = error.message if isinstance(error, PagestoreError) else str(error)
        before = self._failed.get(key)
        pauses = before.pauses if before is not None else self._pauses()
        not_before = asyncio.get_running_loop().time() + pauses.next()
        self._failed[key] = _Failure(message, not_before, pauses)
        if before is None or before.message != message:
            # A full disk says so for every timeline and second; once is enough.
            _log.error("a flush failed and is tried again", timeline=str(key[1]), error=message)


class _Failure(NamedTuple):
    message: str
    not_before: float
    pauses: Pauses


def _key(timeline: Timeline) -> TimelineKey:
    return timeline.tenant_id, timeline.timeline_id


def _freeze_and_flush(timeline: Timeline) -> None:
    timeline.freeze()
    timeline.flush()
