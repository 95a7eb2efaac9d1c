"""One open timeline of a safekeeper: the waiter around the acceptor.

Every message goes through :meth:`WalTimeline.handle`, one at a time: the acceptor says what is
to be done, this carries it out in order, and the new state is taken when all has succeeded. A
message once begun is finished even if its caller has gone away. What peers tell (`hear`) and the
stream's own advances only move positions: they come in between, or wait until a message is done.

A disk that fails ends what was going on: nothing is answered, the state stays what it was, and
`last_error` says why until something has succeeded again.

The directory holds the control file and the segments (docs/formats/safekeeper.md). An open
timeline without a stream holds no file descriptor and no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import structlog

from pagestore import tasks
from pagestore.consensus import acceptor
from pagestore.consensus.acceptor import (
    Action,
    Append,
    Attach,
    Detach,
    Elect,
    Flushed,
    Heard,
    Message,
    Persist,
    State,
    Vote,
    WalPosition,
    step,
)
from pagestore.consensus.election import named
from pagestore.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    OutOfRange,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from pagestore.ids import format_lsn
from pagestore.walservice import log, segments
from pagestore.walservice.attempts import until_done
from pagestore.walservice.finishing import Finishing
from pagestore.walservice.host import TimelineHost
from pagestore.walservice.log import LogFiles
from pagestore.walservice.retained import RetainedWal
from pagestore.walservice.retention import Retention
from pagestore.walservice.stored import Stored
from pagestore.walservice.stream import Stream

FIRST_ASK, LAST_ASK = 0.005, 0.05
"""Seconds between questions to peers, while somebody waits."""
COMMIT_NEWS_SECONDS = 0.2
"""For news of a commit that somebody has heard of already."""
_log = structlog.get_logger(__name__)


class Handled(NamedTuple):
    """The state behind a message, and whether there was anything to do for it."""

    state: State
    acted: bool


class WalTimeline:
    """Make it with :meth:`open`."""

    def __init__(self, directory: Path, loaded: log.Loaded, around: TimelineHost) -> None:
        self.directory = directory
        self.state = loaded.state
        self.users = 0
        self.filling = asyncio.Lock()
        self.retention = Retention(directory, around.owner, loaded.horizon, around.share)
        self._around = around
        self._stored = Stored(directory, around.owner, loaded.control)
        self._stream: Stream | None = None
        self._lock = asyncio.Lock()
        self._change = asyncio.Event()
        self._finishing = Finishing()
        self._unheard: list[Heard] = []
        self._failure = ""
        self._resuming: asyncio.Task[None] | None = None
        self._retired = False
        self._hold = False
        self._asked_at = 0.0

    @classmethod
    async def open(cls, directory: Path, around: TimelineHost) -> WalTimeline:
        """Reads the control file, searches the log's end if it must, resumes the attachment.

        Raises:
            FileNotFoundError: there is no timeline.
            DataLoss: as :func:`log.load`.
        """
        loaded = await asyncio.to_thread(log.load, directory, around.owner)
        timeline = cls(directory, loaded, around)
        if not loaded.control.clean:
            with contextlib.suppress(ResourceExhausted, Unavailable):
                await timeline._stored.keep(timeline.state, clean=True)
        await timeline._resume()
        for heard in around.recall():
            timeline.hear(heard)
        around.moved(timeline.state)
        timeline._dropping_point()  # which tells what it has to spare
        return timeline

    @property
    def idle(self) -> bool:
        """Whether nothing is lost by closing it."""
        attached = self._stream is not None or self.state.attachment is not None
        return self.users == 0 and not attached and not self._lock.locked()

    @property
    def base_lsn(self) -> int:
        """The first position whose WAL is kept."""
        return self.retention.horizon.base_lsn(self.state)

    @property
    def _files(self) -> LogFiles:
        return LogFiles(self.directory, self.base_lsn, self._stored.control.epoch)

    @property
    def retained(self) -> RetainedWal:
        return RetainedWal(self.directory, self.state.start, self.base_lsn, self.state.position)

    @property
    def receiving(self) -> bool:
        return self._stream is not None and self._stream.receiving

    @property
    def last_error(self) -> str:
        """Why WAL does not flow, if it should, or what failed last."""
        fault = self._around.fault(self.state)
        if fault is not None:
            return fault.message
        if self._failure or self.state.attachment is None or self.receiving:
            return self._failure
        return self._stream.last_error if self._stream else ""

    async def accused(self) -> None:
        """It was thought to be none for too long. What was confirmed is durable here."""
        async with self._exclusively():
            await self._end_stream()

    async def _end_stream(self) -> None:
        if self._stream is not None:
            position = await self._stream.stop()
            self._stream = None
            self._learn(position)

    async def close(self) -> None:
        """Ends the stream but not the attachment: the next open resumes it."""
        if self._resuming is not None:
            self._resuming.cancel()
        async with self._lock:
            await self._end_stream()
            await self._stored.keep(self.state, clean=True)

    async def settle(self) -> bool:
        """Makes the control file name the log's end; whether it does, and nobody came."""
        if self._stream is None and not self._stored.is_end_of(self.state):
            with contextlib.suppress(PagestoreError):
                await self._finishing.finish(self._settle())
        return self.idle and self._stored.is_end_of(self.state)

    async def _settle(self) -> None:
        async with self._exclusively():
            if self._stream is None:
                await self._stored.keep(self.state, clean=True)

    async def retire(self) -> None:
        """Ends all use of it, before its files go.

        Raises:
            FailedPrecondition: ATTACHED.
        """
        async with self._lock, self.retention.lock:
            if self.state.attachment is not None:
                raise FailedPrecondition(
                    "ATTACHED",
                    f"A compute is attached to {self.directory.name}.",
                    "Stop it and detach it first.",
                )
            self._retired = True
            self._wake()

    def _check_present(self) -> None:
        if self._retired:
            raise NotFound(
                "TIMELINE_NOT_FOUND", f"Timeline {self.directory.name} has been deleted."
            )

    # Messages

    async def vote(self, term: int) -> tuple[bool, State]:
        """Whether the promise was given, and the state that tells the rest."""
        answer = await self.handle(Vote(term))
        return answer.acted, answer.state

    async def append(self, term: int, lsn: int, data: bytes) -> State:
        return (await self.handle(Append(term, lsn, len(data)), data)).state

    async def elect(self, message: Elect) -> State:
        return (await self.handle(message)).state

    async def change_members(self, message: acceptor.ChangeMembers) -> State:
        return (await self.handle(message)).state

    async def attach(self, term: int, conninfo: str, start_lsn: int, hold: bool = False) -> State:
        """`hold` as of Stream, until it is attached again without."""
        self._hold = hold
        state = (await self.handle(Attach(term, conninfo, start_lsn))).state
        if self._stream is not None and not hold:
            self._stream.go()
        return state

    async def detach(self, term: int, wait_flush_lsn: int, wait_seconds: float) -> State:
        """Raises DeadlineExceeded (WAL_NOT_FLUSHED), still attached, when the wait was vain."""
        if wait_flush_lsn and not await self.wait_flush(wait_flush_lsn, wait_seconds):
            raise DeadlineExceeded(
                "WAL_NOT_FLUSHED",
                f"The log ends at {format_lsn(self.state.position.flush_lsn)} after "
                f"{wait_seconds:g} s, not at {format_lsn(wait_flush_lsn)}. "
                f"{self.last_error}".rstrip(),
                "Detach without waiting, if the rest may be lost.",
            )
        return (await self.handle(Detach(term))).state

    def hear(self, heard: Heard) -> None:
        """Takes in how far a peer is."""
        if self._lock.locked():
            self._unheard.append(heard)
        else:
            self._become(step(self.state, heard).state)

    async def handle(self, message: Message, data: bytes = b"") -> Handled:
        """Carries a message out to the end, whoever stops waiting for it.

        Raises:
            PagestoreError: the acceptor's refusal, or what failed; nothing was promised then.
        """
        if not isinstance(message, Heard | Flushed):
            await self._around.end_trial(self.state)
        return await self._finishing.finish(self._handle(message, data))

    @contextlib.asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[None]:
        """What peers tell meanwhile is taken in at the end."""
        async with self._lock:
            try:
                yield
            finally:
                unheard, self._unheard = self._unheard, []
                for heard in unheard:
                    self._become(step(self.state, heard).state)

    async def _handle(self, message: Message, data: bytes) -> Handled:
        async with self._exclusively():
            self._check_present()
            before = self.state
            outcome = step(before, message)
            if outcome.refusal is not None:
                raise outcome.refusal
            state = outcome.state
            try:
                for action in outcome.actions:
                    state = await self._carry_out(action, state, message, data)
            except BaseException as error:
                await self._resume()
                self._note_failure(error)
                raise
            if outcome.actions:
                self._failure = ""
            if state is not before:
                self._become(self._with_advances(state))
            return Handled(self.state, bool(outcome.actions))

    def _with_advances(self, state: State) -> State:
        """The stream may have gone on while a message was carried out that leaves it alone."""
        return replace(
            state,
            position=max(state.position, self.state.position),
            known_commit_lsn=max(state.known_commit_lsn, self.state.known_commit_lsn),
        )

    def _note_failure(self, error: BaseException) -> None:
        """Refusals are the caller's matter; a disk that fails is everybody's."""
        if isinstance(error, Unavailable | ResourceExhausted | DataLoss):
            self._failure = error.message
            _log.error("not done", directory=str(self.directory), error=error.message)

    async def _carry_out(
        self, action: Action, state: State, message: Message, data: bytes
    ) -> State:
        match action:
            case Persist():
                await self._stored.keep(state, clean=action.clean)
            case acceptor.StopStream():
                await self._end_stream()
                return replace(
                    state,
                    position=self.state.position,
                    known_commit_lsn=self.state.known_commit_lsn,
                )
            case acceptor.CutLog():
                return replace(state, position=await self._cut(action.position))
            case acceptor.WriteLog():
                assert isinstance(message, Append)
                position = await asyncio.to_thread(
                    log.append, self._files, state.position, message.lsn, data
                )
                return step(state, Flushed(message.term, position)).state
            case acceptor.CompareLog():
                assert isinstance(message, Append)
                await self._compare(message, data)
            case acceptor.StartStream():
                self._start_stream(state)
        return state

    async def _cut(self, position: WalPosition) -> WalPosition:
        """The log's end is to be searched from there on before anything is cut, so that a crash
        finds the old end or the new one. Nothing behind it is claimed from now on, even if this
        fails: it has lost. Returns the position with the record that ends there."""
        if position.flush_lsn > self.base_lsn:
            position = await asyncio.to_thread(self.retained.align, position.flush_lsn)
        self._become(replace(self.state, position=position))
        await self._stored.search_from(position)
        await asyncio.to_thread(log.cut, self._files, position)
        return position

    async def _compare(self, message: Append, data: bytes) -> None:
        end = message.lsn + message.length
        there = await asyncio.to_thread(segments.read_range, self.directory, message.lsn, end)
        if there != data:
            raise FailedPrecondition(
                "LSN_MISMATCH",
                f"The log has other WAL at {format_lsn(message.lsn)} than this append.",
                "Vote again: the answer tells where the log ends.",
            )

    # The stream

    async def _resume(self) -> None:
        """Starts the stream that the state asks for, if there is none: now, or by and by."""
        if not await self._is_resumed() and (self._resuming is None or self._resuming.done()):
            work = until_done(self._is_resumed_now)
            self._resuming = tasks.errand(work, f"resume {self.directory.name}")

    async def _is_resumed(self) -> bool:
        if self.state.attachment is None or self._stream is not None:
            return True
        if self._around.is_on_trial(self.state):
            return False
        try:
            await self._stored.keep(self.state, clean=False)
            self._start_stream(self.state)
        except (PagestoreError, OSError) as error:
            if self._failure != str(error):
                _log.error("cannot resume", directory=str(self.directory), error=str(error))
            self._failure = str(error)
            return False
        return True

    async def resume(self) -> None:
        """Goes on at once with what had to wait until the log counts."""
        async with self._exclusively():
            await self._resume()

    async def _is_resumed_now(self) -> bool:
        async with self._exclusively():
            return self._retired or await self._is_resumed()

    def _start_stream(self, state: State) -> None:
        self._failure = ""
        name = named(state, self._around.owner.number).standby_name
        words = (name, self.refresh, self._around.believed)
        self._stream = Stream(self._files, state, *words, hold=self._hold)

    def _is_far_from_stored(self) -> bool:
        stored, end = self._stored.position, self.state.position
        return not self._stored.control.clean and not segments.is_one(stored, end)

    async def _note_position(self) -> None:
        """Bounds what is to be searched after a crash. Best effort."""
        async with self._exclusively():
            if self._is_far_from_stored():
                with contextlib.suppress(Unavailable, ResourceExhausted):
                    await self._stored.note(self.state)

    def _learn(self, position: WalPosition) -> None:
        outcome = step(self.state, Flushed(self.state.writing_term, position))
        if outcome.refusal is None:
            self._become(outcome.state)

    def _become(self, state: State) -> None:
        before, self.state = self.state, state
        if state is before:
            return
        if state.configuration != before.configuration:
            for heard in self._around.recall():
                self.state = step(self.state, heard).state
        self._around.moved(self.state)
        if state.commit_lsn != before.commit_lsn or state.position != before.position:
            self._wake()
        crossed = not segments.is_one(state.position, before.position)
        if crossed or (self._dropping_point() and not self.retention.lock.locked()):
            self._finishing.begin(self._tidy())

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    # Dropping

    async def begin_at(self, term: int, lsn: int) -> None:
        """Goes on at `lsn`, a record's end, where the WAL before it has been dropped by those
        that were to fill this log: whoever may ask for it has it.

        Raises:
            FailedPrecondition: NOT_ELECTED.
        """
        await self._finishing.finish(self._begin_at(term, lsn))

    async def _begin_at(self, term: int, lsn: int) -> None:
        async with self._exclusively(), self.retention.lock:
            self._check_present()
            self._check_may_fill(term)
            outcome = step(self.state, Append(term, self.state.position.flush_lsn, 0))
            if outcome.refusal is not None:
                raise outcome.refusal
            position = WalPosition(lsn, 0)
            if position > self.state.position:
                state = step(self.state, Flushed(term, position)).state
                await self.retention.keep_from(lsn)
                await self._stored.keep(state, clean=True)
                await asyncio.to_thread(log.begin, self._files, position)
                self._become(state)

    async def release(self, consumer: str, lsn: int) -> None:
        """See :meth:`Retention.release`; drops what can go now."""
        self._check_present()
        await self._finishing.finish(self._release(consumer, lsn))

    async def _release(self, consumer: str, lsn: int) -> None:
        await self.retention.release(consumer, lsn)
        await self._tidy()

    async def _tidy(self) -> None:
        """As a log grows from segment to segment: where its end is searched, and begins."""
        await self._note_position()
        lsn = self._dropping_point()
        if lsn and not self._retired:
            await self.retention.drop(lsn)
            self._dropping_point()

    async def let_go(self) -> bool:
        """Keeps no WAL at all, if nobody needs any; whether so. Raises as `Retention.let_go`."""
        return await self._finishing.finish(self._let_go())

    async def _let_go(self) -> bool:
        async with self._exclusively():
            if self._retired or self._stream is not None or self._around.is_on_trial(self.state):
                return False
            await self._stored.keep(self.state, clean=True)
            gone = await self.retention.let_go(self.state, self._stored.position)
            self._dropping_point()
            return gone

    def _dropping_point(self) -> int:
        return self.retention.due(self.state, self._stored.position)

    # Reading

    def refresh(self) -> None:
        """Takes in what the stream has confirmed and not told of yet."""
        if self._stream is not None:
            self._learn(self._stream.position)

    async def wait_commit(self, lsn: int, seconds: float) -> bool:
        """Whether the commit LSN reached `lsn` in time. NotFound when the timeline goes."""
        return await self._wait(lambda: self.state.commit_lsn >= lsn, seconds)

    async def wait_flush(self, lsn: int, seconds: float) -> bool:
        """Whether all below `lsn` became durable here in time."""
        return await self._wait(lambda: self.state.position.flush_lsn >= lsn, seconds)

    async def _wait(self, reached: Callable[[], bool], seconds: float) -> bool:
        self.refresh()
        pause = FIRST_ASK
        try:
            async with asyncio.timeout(seconds):
                while not reached() and not self._retired:
                    if self._stream is not None:
                        self._stream.hasten()
                    await self._next_change(pause)
                    pause *= 2
        except TimeoutError:
            return reached()
        self._check_present()
        return True

    async def _next_change(self, pause: float) -> None:
        """Peers are asked, less and less often, until their own news come as soon."""
        change = self._change
        if self.state.alone or pause > LAST_ASK:
            await change.wait()
            return
        if time.monotonic() - self._asked_at > FIRST_ASK:
            self._asked_at = time.monotonic()
            self._around.ask()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(change.wait(), pause)

    async def read(self, lsn: int, limit: int) -> bytes:
        """Committed WAL from `lsn` on, at most `limit` bytes and within one segment.

        Raises:
            OutOfRange: LSN_TOO_OLD.
            DataLoss: SEGMENT_DAMAGED.
        """
        self._check_present()
        end = min(self.state.commit_lsn, segments.read_end(lsn, limit))
        try:
            return await self.retained.read(lsn, end)
        except DataLoss:
            self.retained.check(lsn)
            raise

    async def read_log(self, term: int, lsn: int, limit: int) -> bytes:
        """What a peer elected in `term` has behind `lsn`, or will have: committed or not.

        Raises:
            FailedPrecondition: NOT_ELECTED, LSN_MISMATCH: the log ends before `lsn`.
            OutOfRange: LSN_TOO_OLD.
        """
        async with self._exclusively():
            self._check_present()
            self._check_may_fill(term)
            self.retained.check(lsn)
            end = min(self.state.position.flush_lsn, segments.read_end(lsn, limit))
            if lsn > end:
                raise FailedPrecondition(
                    "LSN_MISMATCH", f"{format_lsn(lsn)} is behind the log's end here."
                )
            return await asyncio.to_thread(segments.read_range, self.directory, lsn, end)

    async def first_kept(self, term: int) -> int:
        """The first record's end from which `read_log` can go on."""
        async with self._exclusively():
            self._check_present()
            self._check_may_fill(term)
            first = await asyncio.to_thread(self.retained.first_end)
            return (first or self.state.position).flush_lsn

    def _check_may_fill(self, term: int) -> None:
        if not acceptor.may_fill(self.state, term):
            raise FailedPrecondition(
                "NOT_ELECTED",
                f"The log here is of term {self.state.writing_term}, not {term}.",
                "Ask another safekeeper.",
            )

    async def check_readable(self, lsn: int, *, consumed: bool = False) -> None:
        """Raises OutOfRange (LSN_TOO_OLD, LSN_NOT_COMMITTED) where there is no committed WAL.
        That it is committed may be known to peers, who are asked. Of a log without peers, who has
        `consumed` all below proves that it was longer: DataLoss (LOG_ROLLED_BACK)."""
        self._check_present()
        self.refresh()
        self.retained.check(lsn)
        if lsn > self.state.commit_lsn and not self.state.alone:
            await self.wait_commit(lsn, COMMIT_NEWS_SECONDS)
        if lsn > self.state.commit_lsn:
            if consumed and self.state.alone:
                error = self.retained.rolled_back(lsn)
                self._note_failure(error)
                raise error
            raise OutOfRange(
                "LSN_NOT_COMMITTED",
                f"{format_lsn(lsn)} is beyond the commit LSN, {format_lsn(self.state.commit_lsn)}.",
            )

    async def align(self, lsn: int) -> WalPosition:
        """The last record's end at or below `lsn`."""
        await self.check_readable(lsn)
        return await asyncio.to_thread(self.retained.align, lsn)
