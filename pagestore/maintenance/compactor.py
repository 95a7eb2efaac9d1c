"""The background worker that compacts: it looks at timelines whose layers have changed, asks the
policy, and has one job at a time done, in a thread of its own.

It gives way. The thread has the least claim on the processor; while something is flushed, or waits
for room, the job stands still; each timeline gets one job in its turn. A timeline that nobody
touches is not looked at, and one that has no file of its own costs nothing at all.

What fails by the world's doing (a full disk, an ancestor that is behind, a page that cannot be
made) is told in the log once, and tried again, after pauses that grow. What fails otherwise ends
the process, as of every task here.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Self

import structlog

from pagestore._native import Compaction, RedoPool
from pagestore.errors import InvalidInput, NotFound, PagestoreError
from pagestore.ingest.waiters import TimelineKey
from pagestore.layers.native import LayerKind
from pagestore.maintenance.ancestry import steps
from pagestore.maintenance.figures import Depths, ancestors
from pagestore.maintenance.policy import (
    MOST_LEVEL,
    RECORD_WEIGHT,
    Bounds,
    Figures,
    Images,
    Job,
    next_job,
    read_weight,
)
from pagestore.maintenance.rewriting import Rewritten, rewrite
from pagestore.pauses import Pauses
from pagestore.timeline import Repository, Timeline

LOOK_SECONDS = 1.0
REST_SECONDS = 60.0
"""Without a change for so long, a timeline is at rest."""
GIVE_WAY_SECONDS = 0.05
RETRY_SECONDS = 10.0
MOST_RETRY_SECONDS = 3600.0
NICE = 10
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Totals:
    """Since the process began. Bytes of files."""

    merges: int = 0
    image_passes: int = 0
    bytes_read: int = 0
    bytes_merged: int = 0
    bytes_imaged: int = 0
    bytes_flushed: int = 0
    bytes_of_wal: int = 0
    """That went into files."""
    images: int = 0
    refused: int = 0
    failures: int = 0

    def add(self, job: Job, done: Rewritten) -> None:
        self.bytes_read += done.read
        self.images += done.images
        self.refused += done.refused
        if isinstance(job, Images) and not job.replaces:
            self.image_passes += 1
            self.bytes_imaged += done.written
        else:
            self.merges += 1
            self.bytes_merged += done.written


@dataclass(frozen=True, slots=True)
class Standing:
    """Bytes of layer files that there are: deltas by how often they were merged, images, and of
    all about how many nobody reads."""

    levels: tuple[int, ...] = ()
    images: int = 0
    dead: int = 0

    @classmethod
    def of(cls, files: Iterable[Figures]) -> Self:
        levels = [0] * (MOST_LEVEL + 1)
        images = dead = 0
        for file in files:
            dead += file.dead
            if file.kind == LayerKind.IMAGE:
                images += file.bytes
            else:
                levels[file.level] += file.bytes
        while levels and levels[-1] == 0:
            levels.pop()
        return cls(tuple(levels), images, dead)

    def __add__(self, other: Standing) -> Standing:
        levels = zip_longest(self.levels, other.levels, fillvalue=0)
        images, dead = self.images + other.images, self.dead + other.dead
        return Standing(tuple(map(sum, levels)), images, dead)


@dataclass(slots=True)
class _Seen:
    """What is remembered of a timeline that was looked at."""

    state: tuple[int, int] = (-1, -1)
    kept: tuple[object, ...] = ()
    since: float = 0.0
    looked: bool = False
    rested: bool = False
    """It was looked at as one at rest."""
    pauses: Pauses = field(
        default_factory=lambda: Pauses(RETRY_SECONDS, MOST_RETRY_SECONDS, spread=False)
    )
    not_before: float = 0.0
    message: str = ""
    newest: int | None = None
    """The number of its newest layer, and where it was durable, when it was looked at."""
    durable: int = 0
    weight: int = 0
    """The most that a read of what is in files has to apply."""
    standing: Standing = Standing()

    @classmethod
    def of(cls, timeline: Timeline) -> Self:
        """Of one that was not seen lately. What has no file yet counts from its first one on."""
        durable = timeline.disk_consistent_lsn
        return cls() if timeline.layer_count else cls(newest=0, durable=durable)

    def note(self, timeline: Timeline, files: list[Figures], bounds: Bounds, to: Totals) -> None:
        """What came since the look before; the first one begins to count."""
        durable = timeline.disk_consistent_lsn
        if self.newest is not None:
            fresh = (file for file in files if file.level == 0 and file.number > self.newest)
            to.bytes_flushed += sum(file.bytes for file in fresh)
            to.bytes_of_wal += durable - self.durable
        self.newest = max((file.number for file in files), default=0)
        self.durable = durable
        self.weight = read_weight(files, bounds)
        self.standing = Standing.of(files)


class Compactor:
    """
    Args:
        redo: the helpers of a timeline's major; None where it is not installed.
        busy: whether something is being flushed, or is about to be.
    """

    def __init__(
        self,
        repository: Repository,
        redo: Callable[[Timeline], RedoPool | None],
        *,
        busy: Callable[[], bool] = lambda: False,
        bounds: Bounds | None = None,
    ) -> None:
        self._repository, self._redo, self._busy = repository, redo, busy
        self._bounds = bounds or Bounds()
        self._thread = ThreadPoolExecutor(1, "compact", initializer=_be_nice)
        self._seen: dict[TimelineKey, _Seen] = {}
        self._depths = Depths()
        self._work: Compaction | None = None
        self._closing = False
        self.totals = Totals()

    async def run(self) -> None:
        """Looks and works, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            while await self.work_once():
                pass

    async def work_once(self) -> bool:
        """Looks at all timelines that are due, and does a job of each that needs one; whether
        there was any."""
        worked = False
        for timeline in self._due(self._repository.loaded()):
            worked |= await self._turn(timeline)
        return worked

    @property
    def deepest_records(self) -> int:
        """The most that a read of what is in files may have to apply, of timelines in use."""
        return max((seen.weight for seen in self._seen.values()), default=0) // RECORD_WEIGHT

    @property
    def standing(self) -> Standing:
        """Of timelines in use, as they were looked at last."""
        return sum((seen.standing for seen in self._seen.values()), Standing())

    async def close(self) -> None:
        """Ends what is under way: its files are nobody's, and it is done again some time."""
        self._closing = True
        if self._work is not None:
            self._work.cancel()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _due(self, loaded: Iterable[Timeline]) -> list[Timeline]:
        now = asyncio.get_running_loop().time()
        before, self._seen = self._seen, {}
        due = []
        for timeline in loaded:
            key, state = _key(timeline), (timeline.layer_count, timeline.disk_consistent_lsn)
            seen = self._seen[key] = before.get(key) or _Seen.of(timeline)
            if seen.state != state:
                seen.state, seen.since, seen.looked, seen.rested = state, now, False, False
            if seen.kept != _kept(timeline):
                seen.kept, seen.looked = _kept(timeline), False
            resting = not seen.rested and now - seen.since >= REST_SECONDS
            if state[0] > 0 and now >= seen.not_before and (resting or not seen.looked):
                due.append(timeline)
        return due

    async def _turn(self, timeline: Timeline) -> bool:
        """Whether a job was done."""
        loop = asyncio.get_running_loop()
        key = _key(timeline)
        seen = self._seen[key]
        at_rest = loop.time() - seen.since >= REST_SECONDS
        try:
            job = await loop.run_in_executor(self._thread, self._look, timeline, seen, at_rest)
            seen.looked, seen.rested = True, at_rest
            if job is None:
                return False
            done = await self._watched(timeline, job)
        except NotFound:
            self._seen.pop(key, None)
            return False
        except (PagestoreError, OSError) as error:
            self._note(timeline, error)
            return False
        self.totals.add(job, done)
        seen.state = (timeline.layer_count, timeline.disk_consistent_lsn)
        seen.looked = seen.rested = False
        seen.pauses.reset()
        seen.message = ""
        return True

    async def _watched(self, timeline: Timeline, job: Job) -> Rewritten:
        """Done in the thread, held up as long as somebody else needs the disk more."""
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._thread, self._do, timeline, job)
        try:
            while not running.done():
                if self._work is not None:
                    self._work.pause(self._busy())
                await asyncio.wait([running], timeout=GIVE_WAY_SECONDS)
            return running.result()
        except asyncio.CancelledError:
            if self._work is not None:
                self._work.cancel()
            raise
        finally:
            del running  # it has what is raised here, which has this frame, and so the timeline

    def _do(self, timeline: Timeline, job: Job) -> Rewritten:
        try:
            kept = self._repository.retention.retained(timeline)
            return rewrite(
                timeline, job, self._redo(timeline), self._bounds, self._begun, kept=kept
            )
        finally:
            self._work = None

    def _begun(self, work: Compaction) -> None:
        self._work = work
        if self._closing:
            work.cancel()

    def _look(self, timeline: Timeline, seen: _Seen, at_rest: bool) -> Job | None:
        kept = self._repository.retention.retained(timeline)
        files = self._depths.figures(timeline, kept)
        seen.note(timeline, files, self._bounds, self.totals)
        above = ancestors(timeline, self._bounds.deep_branch) if at_rest else 0
        return next_job(
            files,
            self._bounds,
            at_rest=at_rest,
            kept=kept,
            ancestors=above,
            steps=steps(timeline),
        )

    def _note(self, timeline: Timeline, error: Exception) -> None:
        seen = self._seen[_key(timeline)]
        if self._closing:
            return
        if isinstance(error, InvalidInput) and error.reason == "UNKNOWN_LAYER":
            return  # somebody else has changed the layers: looked at again as that shows
        message = error.message if isinstance(error, PagestoreError) else str(error)
        pause = seen.pauses.next()
        seen.not_before = asyncio.get_running_loop().time() + pause
        seen.looked = False
        self.totals.failures += 1
        if seen.message != message:
            _log.warning(
                "a compaction failed and is tried again",
                timeline=str(timeline.timeline_id),
                error=message,
                seconds=pause,
            )
        seen.message = message


def _key(timeline: Timeline) -> TimelineKey:
    return timeline.tenant_id, timeline.timeline_id


def _kept(timeline: Timeline) -> tuple[object, ...]:
    """What is kept, as far as it is known: where that is less than it was, more is dead."""
    kept = timeline.retained
    return timeline.horizon, kept.points if kept is not None else ()


def _be_nice() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
