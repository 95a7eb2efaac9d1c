"""One open timeline of a safekeeper: the waiter around the acceptor.

Every message goes through :meth:`WalTimeline.handle`, one at a time: the acceptor says what is
to be done, this carries it out in order, and the new state is taken when all has succeeded. A
message once begun is finished even if its caller has gone away.

The directory holds the control file and the segments (docs/formats/safekeeper.md). An open
timeline without a stream holds no file descriptor and no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import structlog

from pagestore._native import NativeError, WalWriter
from pagestore.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutOfRange,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from pagestore.ids import format_lsn
from pagestore.walservice import control_file, segments
from pagestore.walservice.acceptor import (
    Action,
    Append,
    Attach,
    CompareLog,
    CutLog,
    Detach,
    Flushed,
    Message,
    Persist,
    Position,
    StartStream,
    State,
    StopStream,
    Vote,
    WriteLog,
    step,
)
from pagestore.walservice.finishing import Finishing
from pagestore.walservice.stream import Stream

INLINE_READ = 128 << 10
"""Reads up to this size are done in the event loop: the page cache has them."""

_log = structlog.get_logger(__name__)


class Handled(NamedTuple):
    """The state behind a message, and whether there was anything to do for it."""

    state: State
    acted: bool


class WalTimeline:
    """Make it with :meth:`open`. `on_commit` is called after the commit LSN has changed."""

    def __init__(
        self,
        directory: Path,
        state: State,
        *,
        stored: tuple[State, bool],
        name: str,
        on_commit: Callable[[int], None],
    ) -> None:
        self.directory = directory
        self.state = state
        self.users = 0
        self._name = name
        self._on_commit = on_commit
        self._stored = stored
        self._stream: Stream | None = None
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._finishing = Finishing()
        self._failure = ""
        self._retired = False

    @classmethod
    async def open(
        cls, directory: Path, name: str, on_commit: Callable[[int], None]
    ) -> WalTimeline:
        """Reads the control file, searches the log's end if it must, resumes the attachment.

        Raises:
            DataLoss: CONTROL_DAMAGED, SEGMENT_DAMAGED.
        """
        state, stored, clean = await asyncio.to_thread(_load, directory)
        timeline = cls(directory, state, stored=(stored, clean), name=name, on_commit=on_commit)
        on_commit(state.commit_lsn)
        if not clean:
            with contextlib.suppress(ResourceExhausted, Unavailable):
                await timeline._persist(state, clean=True)
        await timeline._resume()
        return timeline

    @property
    def idle(self) -> bool:
        """Whether nothing is lost by closing it."""
        return self.users == 0 and self._stream is None and not self._lock.locked()

    @property
    def receiving(self) -> bool:
        return self._stream is not None and self._stream.receiving

    @property
    def last_error(self) -> str:
        """Why WAL does not flow, if it should."""
        if self.state.attachment is None or self.receiving:
            return ""
        return self._failure or (self._stream.last_error if self._stream else "")

    async def close(self) -> None:
        """Ends the stream but not the attachment: the next open resumes it."""
        async with self._lock:
            if self._stream is not None:
                self._learn(await self._stream.stop())
                self._stream = None
            await self._persist(self.state, clean=True)

    async def settle(self) -> bool:
        """Makes the control file name the log's end; whether it does, and nobody came."""
        if self._stream is None and not self._stored[1]:
            with contextlib.suppress(PagestoreError):
                await self._finishing.finish(self._settle())
        return self.idle and self._stored == (self.state, True)

    async def _settle(self) -> None:
        async with self._lock:
            if self._stream is None:
                await self._persist(self.state, clean=True)

    async def retire(self) -> None:
        """Ends all use of it, before its files go.

        Raises:
            FailedPrecondition: ATTACHED.
        """
        async with self._lock:
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

    # Writing

    async def vote(self, term: int) -> tuple[bool, State]:
        """Whether the promise was given, and the state that tells the rest."""
        answer = await self.handle(Vote(term))
        return answer.acted, answer.state

    async def append(self, term: int, lsn: int, data: bytes) -> State:
        return (await self.handle(Append(term, lsn, len(data)), data)).state

    async def attach(self, term: int, conninfo: str, start_lsn: int) -> State:
        return (await self.handle(Attach(term, conninfo, start_lsn))).state

    async def detach(self, term: int, wait_flush_lsn: int, wait_seconds: float) -> State:
        """Raises DeadlineExceeded (WAL_NOT_FLUSHED), still attached, when the wait was vain."""
        if wait_flush_lsn and not await self.wait_commit(wait_flush_lsn, wait_seconds):
            raise DeadlineExceeded(
                "WAL_NOT_FLUSHED",
                f"The log ends at {format_lsn(self.state.commit_lsn)} after {wait_seconds:g} s, "
                f"not at {format_lsn(wait_flush_lsn)}. {self.last_error}".rstrip(),
                "Detach without waiting, if the rest may be lost.",
            )
        return (await self.handle(Detach(term))).state

    async def handle(self, message: Message, data: bytes = b"") -> Handled:
        """Carries a message out to the end, whoever stops waiting for it.

        Raises:
            PagestoreError: the acceptor's refusal, or what failed; nothing was promised then.
        """
        return await self._finishing.finish(self._handle(message, data))

    async def _handle(self, message: Message, data: bytes) -> Handled:
        async with self._lock:
            self._check_present()
            outcome = step(self.state, message)
            if outcome.refusal is not None:
                raise outcome.refusal
            state = outcome.state
            try:
                for action in outcome.actions:
                    state = await self._carry_out(action, state, message, data)
            except BaseException:
                await self._resume()
                raise
            self._become(state)
            return Handled(state, bool(outcome.actions))

    async def _carry_out(
        self, action: Action, state: State, message: Message, data: bytes
    ) -> State:
        match action:
            case Persist():
                await self._persist(state, clean=action.clean)
            case StopStream():
                if self._stream is not None:
                    position = await self._stream.stop()
                    self._stream = None
                    self._learn(position)
                return replace(
                    state,
                    position=self.state.position,
                    known_commit_lsn=self.state.known_commit_lsn,
                )
            case CutLog():
                await self._cut(action.position)
            case WriteLog():
                assert isinstance(message, Append)
                position = await asyncio.to_thread(_write, self.directory, state, message.lsn, data)
                return step(state, Flushed(message.term, position)).state
            case CompareLog():
                assert isinstance(message, Append)
                await self._compare(message, data)
            case StartStream():
                self._start_stream(state)
        return state

    async def _persist(self, state: State, *, clean: bool) -> None:
        stored, stored_clean = self._stored
        if (state, clean) == self._stored:
            return
        if not clean and not stored_clean and replace(state, position=stored.position) == stored:
            return
        await self._store(state, clean=clean)

    async def _store(self, state: State, *, clean: bool) -> None:
        try:
            await asyncio.to_thread(control_file.replace, self.directory, state, clean=clean)
        except OSError as error:
            raise _control_error(self.directory, error) from error
        self._stored = (state, clean)

    async def _cut(self, position: Position) -> None:
        """The log's end is to be searched from there on before anything is cut, so that a crash
        finds the old end or the new one."""
        stored, _ = self._stored
        await self._store(replace(stored, position=position), clean=False)
        await asyncio.to_thread(_cut, self.directory, stored.start, position)

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
        """Starts the stream that the state asks for, if there is none."""
        if self.state.attachment is None or self._stream is not None:
            return
        try:
            await self._persist(self.state, clean=False)
            self._start_stream(self.state)
        except (PagestoreError, OSError) as error:
            self._failure = str(error)
            _log.error("cannot resume", directory=str(self.directory), error=str(error))

    def _start_stream(self, state: State) -> None:
        self._failure = ""
        self._stream = Stream(self.directory, state, self._name, self._advanced)

    def _advanced(self) -> None:
        """The stream has news."""
        if self._stream is None:
            return
        self._learn(self._stream.position)
        stored = self._stored[0].position.flush_lsn
        if stored // segments.SEGMENT != self.state.commit_lsn // segments.SEGMENT:
            self._finishing.begin(self._note_position())

    async def _note_position(self) -> State:
        """Bounds what is to be searched after a crash. Best effort."""
        async with self._lock:
            state = self.state
            stored, clean = self._stored
            if clean or stored.position.flush_lsn // segments.SEGMENT == (
                state.commit_lsn // segments.SEGMENT
            ):
                return state
            await asyncio.to_thread(control_file.replace, self.directory, state, clean=False)
            self._stored = (state, False)
            return state

    def _learn(self, position: Position) -> None:
        outcome = step(self.state, Flushed(self.state.writing_term, position))
        if outcome.refusal is None:
            self._become(outcome.state)

    def _become(self, state: State) -> None:
        advanced = state.commit_lsn != self.state.commit_lsn
        self.state = state
        if advanced:
            self._on_commit(state.commit_lsn)
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # Reading

    async def wait_commit(self, lsn: int, seconds: float) -> bool:
        """Whether the commit LSN reached `lsn` in time. NotFound when the timeline goes."""
        try:
            async with asyncio.timeout(seconds):
                while self.state.commit_lsn < lsn and not self._retired:
                    await self._news.wait()
        except TimeoutError:
            return self.state.commit_lsn >= lsn
        self._check_present()
        return True

    async def read(self, lsn: int, limit: int) -> bytes:
        """Committed WAL from `lsn` on, at most `limit` bytes and within one segment.

        Raises:
            DataLoss: SEGMENT_DAMAGED.
        """
        self._check_present()
        segment_end = (lsn // segments.SEGMENT + 1) * segments.SEGMENT
        end = min(self.state.commit_lsn, lsn + limit, segment_end)
        if end - lsn <= INLINE_READ:
            return segments.read_range(self.directory, lsn, end)
        return await asyncio.to_thread(segments.read_range, self.directory, lsn, end)

    def check_readable(self, lsn: int) -> None:
        """Raises OutOfRange (LSN_TOO_OLD, LSN_NOT_COMMITTED) where there is no committed WAL."""
        self._check_present()
        start = self.state.start.flush_lsn
        if lsn < start:
            raise OutOfRange(
                "LSN_TOO_OLD",
                f"{format_lsn(lsn)} is before the log's start, {format_lsn(start)}.",
                "Older WAL is in the timeline that this one was branched from.",
            )
        if lsn > self.state.commit_lsn:
            raise OutOfRange(
                "LSN_NOT_COMMITTED",
                f"{format_lsn(lsn)} is beyond the commit LSN, {format_lsn(self.state.commit_lsn)}.",
            )

    async def align(self, lsn: int) -> Position:
        """The last record's end at or below `lsn`."""
        self.check_readable(lsn)
        return await asyncio.to_thread(
            segments.align, self.directory, self.state.start, self.state.position, lsn
        )


def _load(directory: Path) -> tuple[State, State, bool]:
    """The state, the one stored, and whether that one knew the log's end."""
    stored, clean = control_file.read(directory)
    if not clean:
        end = segments.find_end(directory, stored.position)
        return replace(stored, position=end), stored, False
    end_lsn = stored.position.flush_lsn
    if end_lsn > stored.start.flush_lsn:
        segments.read_range(directory, end_lsn - 1, end_lsn)
    return stored, stored, True


def _cut(directory: Path, start: Position, position: Position) -> None:
    """Opening a log for writing makes zeros of all that is behind its end."""
    try:
        WalWriter(
            str(directory), start.flush_lsn, position.flush_lsn, position.prev_record_lsn
        ).close()
    except NativeError as error:
        raise _write_error(error, DataLoss, "SEGMENT_DAMAGED") from error


def _write(directory: Path, state: State, lsn: int, data: bytes) -> Position:
    """Appends whole records, durably; returns the log's new end."""
    start, end = state.start.flush_lsn, state.position
    try:
        writer = WalWriter(str(directory), start, end.flush_lsn, end.prev_record_lsn)
    except NativeError as error:
        raise _write_error(error, DataLoss, "SEGMENT_DAMAGED") from error
    try:
        writer.append(lsn, data)
        return Position(*writer.position[:2])
    except NativeError as error:
        raise _write_error(error, InvalidInput, "NOT_WAL") from error
    finally:
        writer.close()


def _control_error(directory: Path, error: OSError) -> PagestoreError:
    text = f"Cannot replace the control file in {directory}: {error.strerror}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted("STORE_FULL", text, "Free space, then try again.")
    return Unavailable("WAL_WRITE_FAILED", text)


def _write_error(
    error: NativeError, corrupt: type[PagestoreError], corrupt_reason: str
) -> PagestoreError:
    """What a failed append means to its caller; codes of native/core/status.h."""
    code, text = error.args
    if code == -3:
        return corrupt(corrupt_reason, f"Nothing was appended: {text}.")
    if code == -8:
        return ResourceExhausted(
            "STORE_FULL", f"No space for WAL: {text}.", "Free space, then append again."
        )
    return Unavailable("WAL_WRITE_FAILED", f"WAL was not made durable: {text}.")
