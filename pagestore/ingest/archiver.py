"""Committed WAL into the object store, soon after it was committed.

Layers are put there by and by; what they do not have yet is in the WAL behind them. Every few
seconds, so that no commit is older than `age` before it is there, what has been committed of each
timeline since is read from a safekeeper and put there as one object. An idle timeline
costs nothing: only news of commits (follower.py) bring one here.

Where it goes on from is what the store itself has, listed once at the beginning. What journaled
layers hold is removed again; a timeline that is gone, as a whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol

import structlog

from pagestore.errors import NotFound, OutOfRange, PagestoreError, Unavailable
from pagestore.ingest.sources import Source, Sources
from pagestore.ingest.waiters import TimelineKey
from pagestore.objects import archived_wal
from pagestore.objects.archived_wal import OBJECT_BYTES, Archived, ArchivedWal, Range, object_name
from pagestore.objects.store import ObjectStore
from pagestore.pauses import Pauses
from pagestore.threads_aside import aside

TOGETHER = 4
"""Timelines that are read and put at a time."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
_log = structlog.get_logger(__name__)


class Kept(Protocol):
    """What is known of the journal of this page server."""

    @property
    def generation(self) -> int:
        """That was claimed."""

    def durable_lsn(self, key: TimelineKey) -> int:
        """Up to where layers in the object store have a timeline; 0: nothing of it is there."""

    def check_store(self) -> None:
        """Raises Unavailable where the object store is not the one that was claimed."""


class Archiver:
    """
    Args:
        knows: whether there is such a timeline (any more).
        age: seconds within which a commit is there.
    """

    def __init__(
        self,
        store: ObjectStore,
        store_id: bytes,
        sources: Sources,
        kept: Kept,
        knows: Callable[[TimelineKey], bool],
        *,
        age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._store_id = store, store_id
        self._sources, self._kept, self._knows = sources, kept, knows
        self._age, self._clock = age, clock
        self._ranges: dict[TimelineKey, list[Range]] = {}
        self._reached: dict[TimelineKey, int] = {}
        self._since: dict[TimelineKey, float] = {}
        """Of those with WAL that is not there: since when, at most."""
        self._durable: set[TimelineKey] = set()
        """Of those of which more is journaled: their WAL may go."""
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.last_error = ""
        self.on_archived: Callable[[TimelineKey], object] = lambda key: None

    @property
    def behind_seconds(self) -> float:
        """The age of the oldest commit that is not there; 0 when all are."""
        oldest = min(self._since.values(), default=None)
        return 0.0 if oldest is None else max(self._clock() - oldest, 1e-3)

    def reached(self, key: TimelineKey) -> int:
        """Up to where a timeline is in the object store, as layers or as WAL."""
        return max(self._reached.get(key, 0), self._kept.durable_lsn(key))

    def note(self, key: TimelineKey) -> None:
        """There may be news of a timeline's commits."""
        if key not in self._since and self._sources.commit_lsn(key) > self.reached(key):
            self._since[key] = self._clock()
            self._news.set()

    def note_durable(self, key: TimelineKey) -> None:
        """More of a timeline is journaled, or that it is gone. From any thread."""
        self._loop.call_soon_threadsafe(self._note_durable, key)

    async def run(self) -> None:
        """Until cancelled."""
        await self._begin()
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            if not self._since and not self._durable:
                self._news.clear()
                await self._news.wait()
            # More than half of what is allowed is left for reading and putting.
            await asyncio.sleep(self._age * 0.4)
            if await self._round():
                pauses.reset()
            else:
                await pauses.sleep()

    async def _begin(self) -> None:
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                found = await aside(lambda: ArchivedWal(self._store, self._store_id))
                break
            except Unavailable as error:
                self._failed(error)
                await pauses.sleep()
        self._ranges = found.ranges
        for key, ranges in found.ranges.items():
            # Of one that is not journaled yet, all there ever was is there.
            begin = self._kept.durable_lsn(key) or min(ranges).start
            self._reached[key] = found.end(key, begin)
            self._note_durable(key)
        for source in self._sources.all:
            for key in source.commits:
                self.note(key)

    async def _round(self) -> bool:
        """Whether nothing failed."""
        due, turns = list(self._since), asyncio.Semaphore(TOGETHER)

        async def attempt(key: TimelineKey) -> bool:
            async with turns:
                try:
                    await self._archive(key)
                except PagestoreError as error:
                    self._failed(error)
                    return False
            return True

        done = await asyncio.gather(*map(attempt, due))
        pruned = await self._prune()
        if pruned and all(done):
            self.last_error = ""
            return True
        return False

    async def _archive(self, key: TimelineKey) -> None:
        """What has been committed of one timeline."""
        since = self._clock()
        if not self._knows(key):
            self._since.pop(key, None)
            return
        target = self._sources.commit_lsn(key)
        source = self._sources.ahead(key, ())
        try:
            async with aclosing(self._committed(source, key, target)) as pieces:
                async for wal in pieces:
                    made = await aside(partial(self._put, key, wal))
                    self._ranges.setdefault(key, []).append(made)
                    self._reached[key] = made.end
        except (NotFound, OutOfRange):
            if self._knows(key):
                raise
        self.on_archived(key)
        if self._sources.commit_lsn(key) > self.reached(key):
            self._since[key] = since
        else:
            self._since.pop(key, None)

    def _put(self, key: TimelineKey, wal: Archived) -> Range:
        made = archived_wal.put(self._store, self._store_id, key, self._kept.generation, wal)
        self._kept.check_store()
        return made

    def _delete(self, names: list[str]) -> None:
        self._store.delete(names)
        if names:
            self._kept.check_store()

    async def _committed(
        self, source: Source, key: TimelineKey, target: int
    ) -> AsyncGenerator[Archived, None]:
        """From where the store has it up to `target`, in parts of bounded size."""
        status = await source.client.get_status(*key)
        data, start = bytearray(), 0
        async with aclosing(source.client.read_back(*key, self.reached(key), target)) as pieces:
            async for lsn, piece in pieces:
                start = start or lsn
                data += piece
                if len(data) >= OBJECT_BYTES:
                    yield Archived(start, bytes(data), status.term, status.system_id)
                    start += len(data)
                    data.clear()
        if data:
            yield Archived(start, bytes(data), status.term, status.system_id)

    def _note_durable(self, key: TimelineKey) -> None:
        if key in self._ranges:
            self._durable.add(key)
            self._news.set()

    async def _prune(self) -> bool:
        """Removes what journaled layers hold; whether nothing failed."""
        while self._durable:
            key = self._durable.pop()
            durable = self._kept.durable_lsn(key)
            is_gone = not durable and not self._knows(key)
            ranges = self._ranges.get(key, [])
            old = [range_ for range_ in ranges if is_gone or range_.end <= durable]
            try:
                names = [object_name(key, range_) for range_ in old]
                await aside(partial(self._delete, names))
            except PagestoreError as error:
                self._durable.add(key)
                self._failed(error)
                return False
            self._forget(key, old)
        return True

    def _forget(self, key: TimelineKey, old: list[Range]) -> None:
        left = [range_ for range_ in self._ranges.get(key, []) if range_ not in old]
        if left:
            self._ranges[key] = left
        else:
            self._ranges.pop(key, None)
            if not self._knows(key):
                self._reached.pop(key, None)

    def _failed(self, error: PagestoreError) -> None:
        if not self.last_error:
            _log.warning("WAL is not archived", error=str(error))
        self.last_error = str(error)
