"""All timelines of one safekeeper.

A timeline exists when its directory holds a control file: that file is the last step of
creation, and deletion begins by renaming the directory. What a crash left of either is removed
at start. Timelines are opened when asked for, and those that nobody uses are closed again,
longest unused first; what all of them have is an entry in the index of commit LSNs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import structlog

from pagestore.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PagestoreError,
)
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.pgformat.wal import PAGE_SIZE, header_length
from pagestore.walservice import acceptor, control_file
from pagestore.walservice.acceptor import Position
from pagestore.walservice.commits import CommitIndex, TimelineKey
from pagestore.walservice.finishing import Finishing
from pagestore.walservice.timeline import WalTimeline

MAX_OPEN = 1000
"""Open timelines kept without a user or a stream."""
MAX_START_LSN = 2**62
_DELETED = ".deleted"
_log = structlog.get_logger(__name__)


class Safekeeper:
    """Make it with :meth:`open`; of one event loop."""

    def __init__(self, data_dir: Path, number: int) -> None:
        self.data_dir = data_dir
        self.name = f"sk{number}"
        self.commits = CommitIndex()
        self._open: OrderedDict[TimelineKey, asyncio.Task[WalTimeline]] = OrderedDict()
        self._catalog_lock = asyncio.Lock()
        self._finishing = Finishing()
        self._lock_fd = -1

    @classmethod
    async def open(cls, data_dir: Path, number: int) -> Safekeeper:
        """Finds all timelines, and resumes those that a compute is attached to.

        Raises:
            FailedPrecondition: DATA_DIR_IN_USE.
        """
        safekeeper = cls(data_dir, number)
        data_dir.mkdir(parents=True, exist_ok=True)
        safekeeper._lock_fd = _lock(data_dir / "lock")
        for key, commit_lsn in await asyncio.to_thread(_find_timelines, data_dir):
            if commit_lsn is not None:
                safekeeper.commits.publish(key, commit_lsn)
            else:
                await safekeeper._open_found(key)
        return safekeeper

    async def close(self) -> None:
        """Ends all streams; attachments stay."""
        for key in list(self._open):
            task = self._open.pop(key)
            with contextlib.suppress(PagestoreError):
                await (await task).close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    async def _open_found(self, key: TimelineKey) -> None:
        """Searches its log's end, and resumes what is attached."""
        try:
            async with self.use(key):
                pass
        except DataLoss as error:
            _log.error("timeline is damaged", timeline=str(key.timeline), error=error.message)

    def _directory(self, key: TimelineKey) -> Path:
        return self.data_dir / str(key.tenant) / str(key.timeline)

    @contextlib.asynccontextmanager
    async def use(self, key: TimelineKey) -> AsyncIterator[WalTimeline]:
        """The timeline, open as long as it is used.

        Raises:
            NotFound: TIMELINE_NOT_FOUND.
            DataLoss: CONTROL_DAMAGED, SEGMENT_DAMAGED.
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
            return await WalTimeline.open(
                self._directory(key), self.name, partial(self.commits.publish, key)
            )
        except FileNotFoundError as error:
            raise NotFound(
                "TIMELINE_NOT_FOUND", f"There is no WAL of timeline {key.timeline}."
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

    async def create(self, key: TimelineKey, start: Position, system_id: int) -> None:
        """Idempotent for the same arguments.

        Raises:
            AlreadyExists: TIMELINE_EXISTS, with another start or cluster.
            InvalidInput: INVALID_LSN.
        """
        _check_start(start)
        await self._finishing.finish(self._create(key, start, system_id))

    async def _create(self, key: TimelineKey, start: Position, system_id: int) -> None:
        async with self._catalog_lock:
            try:
                async with self.use(key) as timeline:
                    if (timeline.state.start, timeline.state.system_id) == (start, system_id):
                        return
                    raise AlreadyExists(
                        "TIMELINE_EXISTS",
                        f"Timeline {key.timeline} exists, from "
                        f"{format_lsn(timeline.state.start.flush_lsn)} on.",
                    )
            except NotFound:
                pass
            state = acceptor.initial(start, system_id)
            await asyncio.to_thread(_create_directory, self._directory(key), state)
            self.commits.publish(key, state.commit_lsn)

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


def _failed(task: asyncio.Task[WalTimeline]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _check_start(start: Position) -> None:
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
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise FailedPrecondition(
            "DATA_DIR_IN_USE",
            f"Another safekeeper runs on {path.parent}.",
            "Stop it, or give each a directory of its own.",
        ) from error
    return descriptor


def _find_timelines(data_dir: Path) -> list[tuple[TimelineKey, int | None]]:
    """Those that exist, with the commit LSN where the control file knows it and nothing is
    attached: such a one costs no more than this small read. Removes what a crash left of
    others."""
    found = []
    for tenant_dir in data_dir.iterdir():
        if not tenant_dir.is_dir() or len(tenant_dir.name) != 32:
            continue
        for directory in tenant_dir.iterdir():
            if directory.name.endswith(_DELETED) or not (directory / control_file.NAME).exists():
                shutil.rmtree(directory, ignore_errors=True)
                continue
            key = TimelineKey(TenantId.parse(tenant_dir.name), TimelineId.parse(directory.name))
            found.append((key, _known_commit(directory)))
    return found


def _known_commit(directory: Path) -> int | None:
    try:
        state, clean = control_file.read(directory)
    except DataLoss:
        return None
    return state.commit_lsn if clean and state.attachment is None else None


def _create_directory(directory: Path, state: acceptor.State) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    control_file.replace(directory, state, clean=True)
    control_file.sync_directory(directory.parent)
    control_file.sync_directory(directory.parent.parent)


def _remove_directory(directory: Path) -> None:
    doomed = directory.with_name(directory.name + _DELETED)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(doomed)
        control_file.sync_directory(directory.parent)
        shutil.rmtree(doomed)
