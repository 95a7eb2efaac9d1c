"""Follows the WAL service: every timeline with news is taken in, an idle one costs nothing.

A subscription to each safekeeper (WatchCommits) tells the commit LSN of every timeline and each
change of it. For a timeline whose commit LSN lies beyond what is ingested, one task reads its
WAL from a safekeeper that has it, at a pace (pacing.py), and feeds it to the core in a worker
thread; it ends when nothing new came for `linger_ms`, and the next change or wait starts another.
What a subscription or a stream loses by breaking is told again at the next one, since positions
are absolute; so both are simply repeated, for ever and quietly, a stream at another safekeeper.

A timeline whose WAL cannot be taken in (damaged, or unsupported) stops, with a named error for
whoever reads beyond that point. Damage is looked at again once in a while: a scrub, or whoever
puts a copy there, repairs it; all else is tried again when the process restarts. What ingest has to
read of a timeline may be away for now (an object store, a disk that errs): then it is tried again
and again, and whoever asks is told what is waited for. The others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import structlog

from pagestore import tasks
from pagestore._native import RedoPool
from pagestore.client.walservice import WalPiece
from pagestore.errors import (
    DataLoss,
    NotFound,
    OutOfRange,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from pagestore.ids import TenantId, TimelineId
from pagestore.ingest.apply import TimelineIngest, stopped
from pagestore.ingest.chunks import joined
from pagestore.ingest.pacing import Pace, paced
from pagestore.ingest.releases import Releases
from pagestore.ingest.sources import Source, Sources, WalSource, unless_stalled
from pagestore.ingest.waiters import LsnWaiters, TimelineKey
from pagestore.pauses import Pauses
from pagestore.timeline import Repository, Timeline
from pagestore.v1 import wal_pb2

LINGER_MS = 2000
SLOT_WAL_BYTES = 1 << 30
"""As much as computes let replication slots hold back (native/postgres/shim/slots.c)."""
SILENCE_SECONDS = 6.0
"""A safekeeper says something every two seconds; one of several that does not is asked anew."""
WORKERS = 2
POSITIONS_AT_ONCE = 64
"""Considered before other work of the event loop has its turn."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
REPAIRED_SECONDS = 30.0
"""After that it is looked whether what was damaged is whole again."""
_log = structlog.get_logger(__name__)


class CannotTakeIn(Exception):
    """WAL came, and ingest refused it: not a matter of the stream."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _is_damage(error: Exception) -> bool:
    """Read once more before it is believed: bytes may have been replaced under a new term."""
    cause = error.cause if isinstance(error, CannotTakeIn) else error
    return isinstance(cause, DataLoss) and cause.reason != "LOG_ROLLED_BACK"


def _passes(error: Exception) -> bool:
    """Whether trying again can help: whatever goes wrong with a stream, but that the timeline
    or its old WAL is gone, and WAL that reads as damaged."""
    if isinstance(error, OutOfRange):
        return error.reason != "LSN_TOO_OLD"
    return isinstance(error, PagestoreError) and not isinstance(error, NotFound | DataLoss)


class OpenLayerBound(Protocol):
    """What keeps open layers within their memory; pagestore.maintenance.flusher is one."""

    on_flushed: Callable[[TimelineKey], None]

    def touch(self, key: TimelineKey) -> None:
        """Says that a timeline has just taken something in."""

    def forget(self, key: TimelineKey) -> None: ...

    async def make_room(self) -> None:
        """Returns once memory is within its bound."""


class Follower:
    """Takes in the WAL of all timelines that the repository knows."""

    def __init__(
        self,
        repository: Repository,
        sources: Sequence[WalSource],
        waiters: LsnWaiters,
        flusher: OpenLayerBound,
        redo: Callable[[int], RedoPool | None],
        *,
        consumer: str = "page",
        slot_wal_bytes: int = SLOT_WAL_BYTES,
        linger_ms: int = LINGER_MS,
        check_images: bool = False,
        connect: Callable[[str], WalSource] | None = None,
    ) -> None:
        self._repository = repository
        self._sources = Sources(sources, connect)
        self.slot_wal_bytes = slot_wal_bytes
        self._releases = Releases(repository, self._sources, consumer, slot_wal_bytes)
        flusher.on_flushed = self._releases.note
        self._waiters = waiters
        self._flusher = flusher
        self._redo = redo
        self._consumer = consumer
        self._linger_ms = linger_ms
        self._check_images = check_images
        self._threads = ThreadPoolExecutor(WORKERS, "ingest")
        self._settled: dict[TimelineKey, int] = {}  # the commit LSN known to be ingested
        self._tasks: dict[TimelineKey, asyncio.Task[None]] = {}
        self._paces: dict[TimelineKey, Pace] = {}  # of those that have a task
        self._failures: dict[TimelineKey, PagestoreError] = {}
        self._rolled_back: set[TimelineKey] = set()  # those whose failure is an older log
        self._damaged: set[TimelineKey] = set()  # those whose failure a repair may end
        self._waits: dict[TimelineKey, PagestoreError] = {}  # for what is away for now
        self._going: set[TimelineKey] = set()
        self.on_told: Callable[[TimelineKey], object] = lambda key: None
        """Of news of a timeline's commits."""
        waiters.on_wait = self._awaited

    # What others ask

    @property
    def sources(self) -> Sources:
        return self._sources

    def commit_lsn(self, key: TimelineKey) -> int:
        """The commit LSN last told by the WAL service; 0 if it told none."""
        return self._sources.commit_lsn(key)

    def failure(self, key: TimelineKey) -> PagestoreError | None:
        """Why a timeline takes nothing in any more, if so."""
        return self._failures.get(key)

    def waits_for(self, key: TimelineKey) -> PagestoreError | None:
        """What keeps a timeline from taking in what there is, and passes."""
        return self._waits.get(key)

    def active(self) -> int:
        """How many timelines are being read from the WAL service."""
        return len(self._tasks)

    def release_within(self, bound: Callable[[TimelineKey], int]) -> None:
        """No WAL is released beyond this LSN of its timeline; `release` says that it has moved."""
        self._releases.within = bound

    def release(self, key: TimelineKey) -> None:
        self._releases.note(key)

    def hasten(self, key: TimelineKey) -> None:
        """Somebody asks how far a timeline is: takes in what there is."""
        if key in self._paces:
            self._paces[key].hasten()

    def appeared(self, key: TimelineKey) -> None:
        """A timeline was made: its WAL may have been announced before."""
        self._consider(key)

    @asynccontextmanager
    async def without(self, key: TimelineKey) -> AsyncIterator[None]:
        """A timeline is about to go: it is not taken in meanwhile, whoever tells of it or waits
        for it. One that stays all the same is followed on."""
        self._going.add(key)
        try:
            await self._disappeared(key)
            yield
        finally:
            self._going.discard(key)
            self._consider(key)

    async def _disappeared(self, key: TimelineKey) -> None:
        self._failures.pop(key, None)
        self._rolled_back.discard(key)
        self._damaged.discard(key)
        self._settled.pop(key, None)
        self._flusher.forget(key)
        self._waits.pop(key, None)
        task = self._tasks.pop(key, None)
        self._paces.pop(key, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._waiters.fail(key, NotFound("TIMELINE_NOT_FOUND", f"Timeline {key[1]} was deleted."))

    # The subscription

    async def run(self) -> None:
        """Follows until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._watchers = group
            group.create_task(self._releases.run())
            group.create_task(self._look_at_damage())
            for source in self._sources.all:
                group.create_task(self._watch(source))

    async def _look_at_damage(self) -> None:
        while True:
            await asyncio.sleep(REPAIRED_SECONDS)
            for key in self._damaged - self._going - self._paces.keys():
                self._begin(key)

    async def _watch(self, source: Source) -> None:
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            silence = SILENCE_SECONDS if len(self._sources) > 1 else None
            source.told_all = False
            try:
                async for update in source.client.watch_commits(self._consumer, silence=silence):
                    pauses.reset()
                    source.lost = ""
                    self._learn(update)
                    await self._told(source, update)
                    source.told_all |= update.snapshot_complete
            except PagestoreError as error:
                if not source.lost:
                    _log.info("WAL service lost", address=source.client.address, error=str(error))
                source.lost = str(error)
            await pauses.sleep()

    def _learn(self, update: wal_pb2.CommitUpdate) -> None:
        for member in update.safekeepers:
            source = self._sources.learn(member.address)
            if source is not None:
                _log.info("another safekeeper", address=member.address)
                self._watchers.create_task(self._watch(source))

    async def close(self) -> None:
        """Stops every task; what was taken in stays for the flusher."""
        following = list(self._tasks.values())
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        self._threads.shutdown()

    async def _told(self, source: Source, update: wal_pb2.CommitUpdate) -> None:
        for number, position in enumerate(update.positions):
            key = TenantId(position.tenant_id), TimelineId(position.timeline_id)
            source.commits[key] = position.commit_lsn
            self._consider(key)
            self.on_told(key)
            if number % POSITIONS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _consider(self, key: TimelineKey) -> None:
        """Starts following a timeline that has news; does not load one that has none."""
        committed = self._sources.commit_lsn(key)
        if key in self._paces:
            self._paces[key].look()
            return
        is_stopped = key in self._failures and key not in self._rolled_back
        if is_stopped or key in self._going or self._settled.get(key) == committed:
            return
        try:
            ingested = self._repository.reached(*key)
        except NotFound:
            return
        if key in self._rolled_back and committed >= ingested:  # the right log is back
            self._rolled_back.discard(key)
            del self._failures[key]
        if committed > ingested or (committed < ingested and self._may_be_older()):
            self._begin(key)
        else:
            self._settled[key] = committed

    def _may_be_older(self) -> bool:
        """Whether the only safekeeper may have come back with less than it had: it is asked for
        more, and says so. Later news are often behind what was read meanwhile."""
        return len(self._sources) == 1 and not self._sources.all[0].told_all

    def _awaited(self, key: TimelineKey) -> None:
        """Somebody waits: perhaps for news that have not been told yet."""
        if key in self._paces:
            self._paces[key].look()
        elif len(self._sources) and key not in self._failures and key not in self._going:
            self._begin(key)

    def _begin(self, key: TimelineKey) -> None:
        pace = Pace(lambda: self._waiters.awaited(key), lambda: self.commit_lsn(key))
        self._paces[key] = pace
        self._tasks[key] = tasks.errand(self._follow(key, pace), f"follow {key[1]}")

    # One timeline

    async def _follow(self, key: TimelineKey, pace: Pace) -> None:
        try:
            timeline = self._repository.get(*key)
        except NotFound:  # deleted since it was considered
            self._forget_task(key)
            return
        self._releases.note(key)
        try:
            await self._read_until_idle(key, timeline, pace)
        except NotFound as error:
            _log.info("timeline not followed", timeline=str(key[1]), error=str(error))
        except Exception as error:
            self._stopped(key, timeline, error)
        finally:
            self._forget_task(key)

    def _stopped(self, key: TimelineKey, timeline: Timeline, error: Exception) -> None:
        cause = error.cause if isinstance(error, CannotTakeIn) else error
        failure, before = stopped(timeline, cause), self._failures.get(key)
        if before is None or before.message != failure.message:
            _log.error("ingest stopped", timeline=str(key[1]), error=str(failure), exc_info=error)
        self._failures[key] = failure
        if isinstance(cause, DataLoss):
            is_older = cause.reason == "LOG_ROLLED_BACK"
            (self._rolled_back if is_older else self._damaged).add(key)
        self._waiters.fail(key, failure)

    def _forget_task(self, key: TimelineKey) -> None:
        if self._tasks.get(key) is asyncio.current_task():
            del self._tasks[key], self._paces[key]
            self._waits.pop(key, None)

    async def _read_until_idle(self, key: TimelineKey, timeline: Timeline, pace: Pace) -> None:
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        # Whether trying again can help, of those that failed. The exceptions themselves would hold
        # this frame, and it them: the timeline, and its files, until the garbage is collected.
        failed: dict[Source, bool] = {}
        damaged_at = -1
        redo = self._redo(await self._major(key, timeline))
        while True:
            # Anew for each stream: a new term may have cut the log inside the last record,
            # and the bytes of it that came before must not be joined to what replaced them.
            ingest = TimelineIngest(timeline, redo, check_images=self._check_images)
            before = ingest.next_lsn
            source = self._sources.ahead(key, failed)
            try:
                async with aclosing(joined(self._stream(source, key, before, pace))) as pieces:
                    async for lsn, data in pieces:
                        await self._take(key, ingest, lsn, data)
                reached = ingest.next_lsn
            except Exception as error:
                failed[source] = _passes(error)
                again = timeline.last_record_lsn == damaged_at
                if self._is_hopeless(failed) and (again or not _is_damage(error)):
                    raise
                if _is_damage(error):
                    damaged_at = timeline.last_record_lsn
                if key not in self._waits:
                    _log.info("WAL stream lost", timeline=str(key[1]), error=str(error))
                reached = timeline.last_record_lsn
            if len(failed) >= len(self._sources) or timeline.last_record_lsn > before:
                failed.clear()
            if self._sources.commit_lsn(key) <= reached:
                return
            if timeline.last_record_lsn > before:
                pauses.reset()
            await pauses.sleep()

    async def _major(self, key: TimelineKey, timeline: Timeline) -> int:
        """Of Postgres; once what tells it can be read."""
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        loop = asyncio.get_running_loop()
        while True:
            try:
                major = await loop.run_in_executor(self._threads, lambda: timeline.major)
            except (Unavailable, ResourceExhausted) as error:
                self._wait_for(key, error)
            else:
                self._waits.pop(key, None)
                return major
            await pauses.sleep()

    def _wait_for(self, key: TimelineKey, error: PagestoreError) -> None:
        """Told in the log once, until something else is waited for."""
        before = self._waits.get(key)
        if before is None or before.reason != error.reason:
            _log.warning("ingest waits", timeline=str(key[1]), error=str(error))
        self._waits[key] = error.with_traceback(None)

    def _is_hopeless(self, failed: dict[Source, bool]) -> bool:
        """Whether every safekeeper has said what no other attempt will change."""
        return len(failed) >= len(self._sources) and not any(failed.values())

    def _stream(
        self, source: Source, key: TimelineKey, lsn: int, pace: Pace
    ) -> AsyncGenerator[WalPiece, None]:
        def read(lsn: int, linger_ms: int) -> AsyncGenerator[WalPiece, None]:
            return source.client.read_wal(*key, lsn, linger_ms=linger_ms)

        stream = paced(read, lsn, pace, self._linger_ms)
        if len(self._sources) == 1:
            return stream
        return unless_stalled(stream, lsn, lambda: self._sources.commit_lsn(key))

    async def _take(self, key: TimelineKey, ingest: TimelineIngest, lsn: int, data: bytes) -> None:
        await self._flusher.make_room()
        before = ingest.timeline.last_record_lsn
        work = asyncio.get_running_loop().run_in_executor(self._threads, ingest.take, lsn, data)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        except NotFound:
            raise
        except (Unavailable, ResourceExhausted) as error:
            self._wait_for(key, error)
            raise
        except Exception as error:
            raise CannotTakeIn(error) from error
        else:
            self._waits.pop(key, None)
            if key in self._damaged and ingest.timeline.last_record_lsn > before:
                _log.info("ingest goes on", timeline=str(key[1]))
                self._damaged.discard(key)
                self._failures.pop(key, None)
        finally:
            del work  # it has what is raised here, which has this frame
            self._flusher.touch(key)
            self._waiters.advance(key, ingest.timeline.last_record_lsn)
