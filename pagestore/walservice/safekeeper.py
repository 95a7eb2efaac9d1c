"""All timelines of one safekeeper.

A timeline exists when its directory holds a control file: that file is the last step of
creation, and deletion begins by renaming the directory. What a crash left of either is removed
at start; a directory that holds anything else is left as it is, and refused by name. Timelines
are opened when asked for, and those that nobody uses are closed again, longest unused first; what
all of them have is an entry in the index of commit LSNs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from pagestore import durable, locks, tasks
from pagestore.consensus import acceptor
from pagestore.consensus.acceptor import Attachment, Elect, Heard, State, WalPosition
from pagestore.consensus.members import ALONE, UNCONFIGURED, Configuration, Member
from pagestore.consensus.testimony import contradicts
from pagestore.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PagestoreError,
    Unavailable,
)
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.pgformat.wal import PAGE_SIZE, header_length
from pagestore.tokens import Verifier, split_address
from pagestore.walservice import compute_address, control_file, segments
from pagestore.walservice.addresses import AddressBook
from pagestore.walservice.attempts import until_done
from pagestore.walservice.budget import KEEP_BYTES, REST_SECONDS, Budget
from pagestore.walservice.compute_address import ComputeAddress
from pagestore.walservice.control_file import Control
from pagestore.walservice.finishing import Finishing
from pagestore.walservice.memory_of_peers import MemoryOfPeers
from pagestore.walservice.owner import Owner
from pagestore.walservice.peer_status import PeerStatus
from pagestore.walservice.peers import Peers
from pagestore.walservice.stored import write_failure
from pagestore.walservice.timeline import WalTimeline
from pagestore.walservice.trial import Trials
from pagestore.walservice.watch import TimelineKey, Watchable

MAX_OPEN = 1000
"""Open timelines kept without a user or a stream."""
MAX_START_LSN = 2**62
FIRST_DRAWN = 2
"""The lowest incarnation that is drawn by lot: 1 is who made the timeline."""
_DELETED = ".deleted"
_ID = re.compile("[0-9a-f]{32}")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """`peers` are addresses by number; `keep_bytes` of WAL that nobody needs stay, of all timelines
    together; `verifier` is by the keys of now, which sign where computes are."""

    number: int = 1
    peers: Mapping[int, str] = field(default_factory=dict)
    keep_bytes: int = KEEP_BYTES
    verifier: Callable[[], Verifier] = field(default=lambda: Verifier(()))


class Safekeeper:
    """Make it with :meth:`open`; of one event loop."""

    def __init__(self, data_dir: Path, settings: Settings) -> None:
        self.data_dir = data_dir
        self.number = settings.number
        self.budget = Budget(settings.keep_bytes)
        self.verifier = settings.verifier
        self.commits: Watchable[int] = Watchable()
        self.committed_bytes = 0
        """Since this process began."""
        self.peer_statuses: Watchable[PeerStatus] = Watchable()
        self.book = AddressBook(data_dir)
        self.trials = Trials(self._counts_again, self._remembered_late)
        self.memory = MemoryOfPeers(data_dir)
        self.peers = Peers(self.number, self.book, self.memory, self.trials, self._heard)
        self._open: OrderedDict[TimelineKey, asyncio.Task[WalTimeline]] = OrderedDict()
        self._catalog_lock = asyncio.Lock()
        self._finishing = Finishing()
        self._lock_fd = -1
        self._resting: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, data_dir: Path, settings: Settings) -> Safekeeper:
        """Finds all timelines, and resumes those that a compute is attached to.

        Raises:
            FailedPrecondition: DATA_DIR_IN_USE.
        """
        safekeeper = cls(data_dir, settings)
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        safekeeper._lock_fd = _lock(data_dir / "lock")
        await safekeeper.book.load(settings.peers)
        for number, key, heard in safekeeper.memory.load():
            safekeeper.peers.remember(number, key, heard)
        found = await asyncio.to_thread(_find_timelines, data_dir, safekeeper.number)
        safekeeper.trials.begin(key for key, _ in found)
        for key, state in found:
            if state is not None:
                safekeeper.publish(key, state)
            else:
                await safekeeper._open_found(key)
        safekeeper.peers.start()
        safekeeper._resting = tasks.endless(safekeeper._rest(found), "let WAL go")
        return safekeeper

    async def close(self) -> None:
        """Ends all streams; attachments stay."""
        if self._resting is not None:
            self._resting.cancel()
            await asyncio.gather(self._resting, return_exceptions=True)
        await self.peers.close()
        for key in list(self._open):
            task = self._open.pop(key)
            with contextlib.suppress(PagestoreError):
                await (await task).close()
        self.memory.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def believed(self, key: TimelineKey, term: int, text: str) -> ComputeAddress:
        """Where the compute of this term is, as its host has told and signed it.

        Raises:
            InvalidInput: INVALID_CONNINFO. FailedPrecondition: TLS_REQUIRED.
            PermissionDenied: ADDRESS_NOT_SIGNED.
        """
        address = compute_address.parse(split_address(text)[0])
        self.verifier().check_address(*key, term, text)
        return address

    async def _open_found(self, key: TimelineKey) -> None:
        """Searches its log's end, and resumes what is attached. Where the disk fails, tries again
        in the background: nobody else may ask for the timeline."""
        if not await self._is_opened(key):
            self._finishing.begin(until_done(lambda: self._is_opened(key)))

    async def _is_opened(self, key: TimelineKey) -> bool:
        """Or will never be."""
        if self._lock_fd < 0:
            return True
        try:
            async with self.use(key):
                pass
        except (DataLoss, NotFound) as error:
            _log.error("timeline not opened", timeline=str(key.timeline), error=error.message)
        except PagestoreError as error:
            _log.warning("timeline not opened yet", timeline=str(key.timeline), error=str(error))
            return False
        return True

    # Rest

    async def _rest(self, found: list[tuple[TimelineKey, State | None]]) -> None:
        """Until cancelled. What is there at the start has to say what it has to spare, once peers
        have told how far they are."""
        await asyncio.sleep(REST_SECONDS)
        for key, _ in found:
            await self._say_spare(key)
        while True:
            await asyncio.sleep(REST_SECONDS / 12)
            while (resting := self.budget.to_rest(time.monotonic())) is not None:
                await self.rest(resting)

    async def _say_spare(self, key: TimelineKey) -> None:
        with contextlib.suppress(PagestoreError, OSError):
            if await asyncio.to_thread(segments.has_any, self._directory(key)):
                await asyncio.sleep(0.01)  # others have their turn
                async with self.use(key):
                    pass

    async def rest(self, key: TimelineKey) -> bool:
        """Has a timeline at rest let go of its WAL; whether it has."""
        try:
            async with self.use(key) as timeline:
                gone = await timeline.let_go()
        except NotFound:
            self.budget.forget(key)
            return True
        except (PagestoreError, OSError):
            gone = False
        if not gone:
            self.budget.put_off(key, time.monotonic())
        return gone

    # News

    def publish(self, key: TimelineKey, state: State) -> None:
        """Tells consumers and peers how far a timeline is."""
        before = self.commits.get(key)
        if before is not None and before < state.commit_lsn:
            self.committed_bytes += state.commit_lsn - before
        self.commits.publish(key, state.commit_lsn)
        self.trials.note(key, state)
        status = PeerStatus.of(state)
        if self.trials.is_on_trial(key, state):
            status = status.withheld
        self.peers.share(key, status.peers)
        if status.peers:
            self.peer_statuses.publish(key, status)
        else:
            self.peer_statuses.forget(key)

    def _counts_again(self, key: TimelineKey, state: State) -> None:
        """The others remember nothing of a log that it does not have."""
        task = self._open.get(key)
        if task is None or not task.done() or _failed(task):
            self.publish(key, state)
        else:
            timeline = task.result()
            self.publish(key, timeline.state)
            self._finishing.begin(timeline.resume())

    def _remembered_late(self, key: TimelineKey, remembered: Heard) -> bool:
        status = self.peer_statuses.get(key)
        if status is None or not contradicts(remembered, status.heard):
            return False
        self.trials.begin([key])
        self.peer_statuses.publish(key, status.withheld)
        task = self._open.get(key)
        if task is not None and task.done() and not _failed(task):
            self._finishing.begin(task.result().accused())
        return True

    def _heard(self, key: TimelineKey, heard: Heard) -> None:
        """A timeline is opened for what a peer tells only if it could learn by that."""
        task = self._open.get(key)
        if task is None:
            status = self.peer_statuses.get(key)
            if status is not None and status.may_learn(heard):
                self._finishing.begin(self._is_opened(key))
        elif task.done() and not _failed(task):
            task.result().hear(heard)

    def _directory(self, key: TimelineKey) -> Path:
        return self.data_dir / str(key.tenant) / str(key.timeline)

    def owner(self, key: TimelineKey) -> Owner:
        return Owner(key.tenant, key.timeline, self.number)

    @contextlib.asynccontextmanager
    async def use(self, key: TimelineKey) -> AsyncIterator[WalTimeline]:
        """The timeline, open as long as it is used.

        Raises:
            NotFound: TIMELINE_NOT_FOUND.
            DataLoss: as :func:`pagestore.walservice.log.load`.
        """
        timeline = await self._opened(key)
        timeline.users += 1
        try:
            yield timeline
        finally:
            timeline.users -= 1
            await self._close_unused()

    async def _opened(self, key: TimelineKey) -> WalTimeline:
        """The one WalTimeline of `key`; between its return and its use nothing may wait."""
        while True:
            task = self._open.get(key)
            if task is None:
                task = asyncio.create_task(self._open_timeline(key))
                self._open[key] = task
            try:
                timeline = await asyncio.shield(task)
            except BaseException:
                if _failed(task) and self._open.get(key) is task:
                    del self._open[key]
                raise
            if self._open.get(key) is task:
                self._open.move_to_end(key)
                return timeline

    async def _open_timeline(self, key: TimelineKey) -> WalTimeline:
        try:
            return await WalTimeline.open(self._directory(key), _TimelineHost(self, key))
        except FileNotFoundError as error:
            raise NotFound(
                "TIMELINE_NOT_FOUND", f"There is no WAL of timeline {key.timeline}."
            ) from error
        except OSError as error:
            raise Unavailable(
                "WAL_READ_FAILED",
                f"The log of timeline {key.timeline} cannot be read: {error}.",
                "It is tried again; look at the disk.",
            ) from error

    async def _close_unused(self) -> None:
        """Lets go of the longest unused ones beyond MAX_OPEN."""
        excess = len(self._open) - MAX_OPEN
        for key, task in list(self._open.items()) if excess > 0 else ():
            if excess <= 0:
                return
            if not task.done() or _failed(task):
                continue
            timeline = task.result()
            if timeline.idle and await timeline.settle() and self._open.get(key) is task:
                del self._open[key]
                excess -= 1

    async def create(
        self,
        key: TimelineKey,
        start: WalPosition,
        system_id: int,
        member: Member = ALONE,
        configuration: Configuration = UNCONFIGURED,
    ) -> None:
        """Idempotent for the same start and cluster.

        Raises:
            AlreadyExists: TIMELINE_EXISTS, with another start or cluster.
            InvalidInput: INVALID_LSN.
        """
        _check_start(start)
        state = acceptor.initial(start, system_id, member, configuration)
        await self._finishing.finish(self._create(key, state))

    async def _create(self, key: TimelineKey, state: State) -> None:
        async with self._catalog_lock:
            try:
                async with self.use(key) as timeline:
                    there = timeline.state
            except NotFound:
                await self._make(key, state)
                return
        if (there.start, there.system_id) != (state.start, state.system_id):
            raise AlreadyExists(
                "TIMELINE_EXISTS",
                f"Timeline {key.timeline} exists, from {format_lsn(there.start.flush_lsn)} on.",
            )

    async def admit(
        self, key: TimelineKey, elect: Elect, start: WalPosition, system_id: int
    ) -> State:
        """Follows an election that the others have carried out: as a learner where there is no
        memory of the timeline, else as whom it is.

        Raises:
            PagestoreError: the acceptor's refusal.
        """
        _check_start(start)
        return await self._finishing.finish(self._admit(key, elect, start, system_id))

    async def _admit(
        self, key: TimelineKey, elect: Elect, start: WalPosition, system_id: int
    ) -> State:
        async with self._catalog_lock:
            try:
                async with self.use(key) as timeline:
                    await timeline.vote(elect.term)
                    return await timeline.elect(elect)
            except NotFound:
                me = Member(self.number, FIRST_DRAWN + secrets.randbelow(2**31))
                joined = acceptor.admit(me, elect, start, system_id)
                if joined.refusal is not None:
                    raise joined.refusal from None
                await self._make(key, joined.state)
                return joined.state

    async def _make(self, key: TimelineKey, state: State) -> None:
        """A creation that failed leaves nothing that a later one would take for made."""
        directory = self._directory(key)
        try:
            await asyncio.to_thread(_create_directory, directory, state, self.owner(key))
        except OSError as error:
            await asyncio.to_thread(_remove_directory, directory)
            raise write_failure(directory, error) from error
        self.publish(key, state)

    async def delete(self, key: TimelineKey) -> None:
        """Removes the log; a timeline that is not there is no error.

        Raises:
            FailedPrecondition: ATTACHED.
        """
        await self._finishing.finish(self._delete(key))

    async def _delete(self, key: TimelineKey) -> None:
        async with self._catalog_lock:
            # It stays open, but retired, until it is gone: nobody opens it anew meanwhile.
            # What is damaged may go too.
            with contextlib.suppress(NotFound, DataLoss):
                async with self.use(key) as timeline:
                    await timeline.retire()
            try:
                await asyncio.to_thread(_remove_directory, self._directory(key))
            finally:
                self._open.pop(key, None)
            self.commits.forget(key)
            self.peer_statuses.forget(key)
            self.peers.share(key, frozenset())
            self.trials.forget(key)
            self.budget.forget(key)


class _TimelineHost:
    """One timeline's view of its safekeeper."""

    def __init__(self, safekeeper: Safekeeper, key: TimelineKey) -> None:
        self.owner = safekeeper.owner(key)
        self._safekeeper = safekeeper
        self._key = key

    def share(self, spare: int) -> int:
        return self._safekeeper.budget.share(self._key, spare, time.monotonic())

    def moved(self, state: State) -> None:
        self._safekeeper.publish(self._key, state)

    def recall(self) -> list[Heard]:
        return self._safekeeper.peers.recall(self._key)

    def ask(self) -> None:
        self._safekeeper.peers.ask(self._key)

    def is_on_trial(self, state: State) -> bool:
        return self._safekeeper.trials.is_on_trial(self._key, state)

    async def end_trial(self, state: State) -> None:
        await self._safekeeper.trials.end(self._key, state)

    def fault(self, state: State) -> DataLoss | None:
        return self._safekeeper.trials.fault(self._key, state)

    def believed(self, attachment: Attachment) -> ComputeAddress:
        return self._safekeeper.believed(self._key, attachment.term, attachment.conninfo)


def _failed(task: asyncio.Task[WalTimeline]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _check_start(start: WalPosition) -> None:
    lsn, prev = start.flush_lsn, start.prev_record_lsn
    in_page_header = 0 < lsn % PAGE_SIZE < header_length(lsn)
    possible = 0 < lsn < MAX_START_LSN and lsn % 8 == 0 and not in_page_header
    if not possible or prev >= lsn or prev % 8 != 0:
        raise InvalidInput(
            "INVALID_LSN",
            f"A log cannot start at {format_lsn(lsn)} behind a record at {format_lsn(prev)}.",
            "Ask AlignLsn for a record's end and its start.",
        )


def _lock(path: Path) -> int:
    descriptor = locks.take(path)
    if descriptor is None:
        raise FailedPrecondition(
            "DATA_DIR_IN_USE",
            f"Another safekeeper runs on {path.parent}.",
            "Stop it, or give each a directory of its own.",
        )
    return descriptor


def _find_timelines(data_dir: Path, number: int) -> list[tuple[TimelineKey, State | None]]:
    """Those that exist, with the state where the control file knows it and nothing is attached:
    such a one costs no more than this small read. Removes what a crash left of others, and
    nothing else; names that are not ours are passed over."""
    found = []
    for tenant_dir in data_dir.iterdir():
        if not tenant_dir.is_dir() or not _ID.fullmatch(tenant_dir.name):
            continue
        for directory in tenant_dir.iterdir():
            name, _, suffix = directory.name.partition(".")
            if not directory.is_dir() or not _ID.fullmatch(name) or suffix not in ("", "deleted"):
                _log.warning("passed over", path=str(directory))
            elif suffix:
                shutil.rmtree(directory, ignore_errors=True)
            elif control_file.is_unfinished(directory):
                _remove_unfinished(directory)
            else:
                key = TimelineKey(TenantId.parse(tenant_dir.name), TimelineId.parse(name))
                found.append((key, _settled_state(directory, Owner(*key, number))))
    return found


def _remove_unfinished(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def _settled_state(directory: Path, owner: Owner) -> State | None:
    try:
        control = control_file.read(directory, owner)
    except (DataLoss, OSError):
        return None
    return control.state if control.clean and control.state.attachment is None else None


def _create_directory(directory: Path, state: State, owner: Owner) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    control_file.replace(directory, Control(state, clean=True, revision=1), owner)
    durable.sync_directory(directory.parent)
    durable.sync_directory(directory.parent.parent)


def _remove_directory(directory: Path) -> None:
    doomed = directory.with_name(directory.name + _DELETED)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(doomed)
        durable.sync_directory(directory.parent)
        shutil.rmtree(doomed)
