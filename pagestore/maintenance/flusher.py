"""When open layers become files.

Three occasions. Memory: half the bound of all open layers together starts a flush of the
timeline that holds most, beside ingest; at the whole bound ingest waits for it. Rest: a
timeline that took nothing in for a while is flushed, so that an idle one holds no memory. And
the end of the process. A full disk stops nobody who reads: the frozen layer stays readable in
memory, whoever wants to add waits, and the flush is tried again until there is space.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from pagestore.errors import PagestoreError, ResourceExhausted
from pagestore.ingest.waiters import TimelineKey
from pagestore.timeline import Repository, Timeline

IDLE_SECONDS = 10.0
RETRY_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class Flusher:
    """Flushes timelines of one repository, one at a time, in a thread of its own."""

    def __init__(
        self, repository: Repository, open_layer_bytes: int, *, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._repository = repository
        self._soft_bytes = open_layer_bytes // 2
        self._idle_seconds = idle_seconds
        self._thread = ThreadPoolExecutor(1, "flush")
        self._lock = asyncio.Lock()
        self._touched: dict[TimelineKey, float] = {}
        self._relief: asyncio.Task[None] | None = None
        self.on_flushed: Callable[[TimelineKey], None] = lambda key: None
        self.full = ""
        """Why nothing can be flushed at the moment; empty when all is well."""

    def touch(self, key: TimelineKey) -> None:
        """Says that a timeline has just taken something in."""
        self._touched[key] = asyncio.get_running_loop().time()

    def forget(self, key: TimelineKey) -> None:
        self._touched.pop(key, None)

    async def make_room(self) -> None:
        """Returns once memory is within its bound; waits as long as the disk is full."""
        if self._relief is None and self._repository.memory_bytes > self._soft_bytes:
            self._relief = asyncio.create_task(self._relieve())
        while self._repository.pressure() is not None:
            if self._relief is None:
                self._relief = asyncio.create_task(self._relieve())
            await asyncio.shield(self._relief)

    async def _relieve(self) -> None:
        """Flushes the timeline that holds most; pauses if the disk is full."""
        try:
            largest = next((t for t in self._repository.in_memory() if t.can_shrink), None)
            if largest is not None:
                await self.flush(largest)
        except ResourceExhausted as error:
            self._say_full(error)
            await asyncio.sleep(RETRY_SECONDS)
        except PagestoreError as error:
            _log.error("flush failed", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._relief = None

    async def flush(self, timeline: Timeline) -> None:
        """Puts everything a timeline has taken in into files.

        Raises:
            ResourceExhausted: STORE_FULL; nothing is lost, and it may be tried again.
        """
        async with self._lock:
            await self._flush(timeline)

    async def run(self) -> None:
        """Flushes timelines at rest, until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self._idle_seconds / 2))
            now = asyncio.get_running_loop().time()
            idle = [k for k, at in self._touched.items() if now - at >= self._idle_seconds]
            await self._flush_quietly(idle)

    async def close(self) -> None:
        """Flushes whatever is left, and ends the thread."""
        if self._relief is not None:
            self._relief.cancel()
            await asyncio.gather(self._relief, return_exceptions=True)
        await self._flush_quietly(list(self._touched))
        self._thread.shutdown()

    async def _flush_quietly(self, keys: list[TimelineKey]) -> None:
        for key in keys:
            touched = self._touched.get(key)
            try:
                await self.flush(self._repository.get(*key))
            except ResourceExhausted as error:
                self._say_full(error)
            except PagestoreError as error:
                _log.error("flush failed", timeline=str(key[1]), error=str(error))
                self._touched.pop(key, None)
            else:
                if self._touched.get(key) == touched:
                    self._touched.pop(key, None)

    async def _flush(self, timeline: Timeline) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, _freeze_and_flush, timeline)
        self.on_flushed((timeline.tenant_id, timeline.timeline_id))
        if self.full:
            _log.warning("disk has space again")
            self.full = ""

    def _say_full(self, error: ResourceExhausted) -> None:
        if not self.full:
            _log.error("disk full, ingest waits", error=error.message)
        self.full = error.message


def _freeze_and_flush(timeline: Timeline) -> None:
    timeline.freeze()
    timeline.flush()
