"""The launcher of one machine: computes are processes here.

::

    DIR/lib/pagestore_shim-<digest>.so    readable by Postgres's user; pagestore_session too
    DIR/logs/<timeline>.log               what its servers said
    DIR/<timeline's start>-<random>/      one a start; thrown away with it
    DIR/<...>.removing/                   on its way out

Whatever else lies in DIR is not ours, and is left alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import signal
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from pagestore import durable, tasks
from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.client.walservice import WalService
from pagestore.compute import removal
from pagestore.compute.leftovers import adopt, clear, clear_version_1, resume_removal
from pagestore.compute.record import ComputeRecord
from pagestore.compute.running import RunningCompute
from pagestore.compute.start import ComputeSpec, start_compute
from pagestore.control import credentials
from pagestore.control.computes import CarriedFiles, Compute
from pagestore.control.operator_key import OperatorKey
from pagestore.control.quorum.client import QuorumClient
from pagestore.control.quorum.keeper import Keeper
from pagestore.control.quorum.lookout import Lookout
from pagestore.control.records import DatabaseRecord
from pagestore.control.session_keys import SessionKeys
from pagestore.errors import FailedPrecondition
from pagestore.ids import TimelineId
from pagestore.postgres.process import account
from pagestore.postgres.settings import SessionLibrary
from pagestore.tokens import Signer

SESSION_LIBRARY = "pagestore_session.so"
"""Lies beside the shim."""
_COMPUTE = re.compile(r"[0-9a-f]{10}-[0-9a-f]{6}")
"""The name of a compute's directory."""


class LocalCompute:
    """A RunningCompute as the control plane sees it; somebody looks after its safekeepers as long
    as it runs."""

    def __init__(self, running: RunningCompute, wal: WalService) -> None:
        self._running = running
        self._wal = wal
        self.fenced = False
        self._keeper = _keeper(running, wal, self._fence)
        work = self._keeper.run() if self._keeper is not None else None
        name = f"safekeepers of {running.record.timeline}"
        self._keeping = tasks.errand(work, name) if work is not None else None

    @property
    def timeline(self) -> TimelineId:
        return self._running.record.timeline

    @property
    def alive(self) -> bool:
        return self._running.alive

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def port(self) -> int:
        return self._running.port

    @property
    def directory(self) -> Path:
        return self._running.directory

    @property
    def complaint(self) -> str:
        return self._keeper.complaint if self._keeper is not None else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._running.remarks

    @property
    def conninfo(self) -> str:
        return self._running.conninfo()

    async def wait_exit(self) -> str:
        code = await self._running.wait_exit()
        await self._end_keeping()
        if self.fenced:
            return "another compute of this timeline was started, so this one was ended"
        if code is None:
            return "Postgres ended"
        if code < 0:
            return f"Postgres was killed by {signal.Signals(-code).name}"
        return f"Postgres ended with exit status {code}"

    def user_settings(self) -> Mapping[str, str] | None:
        return self._running.user_settings()

    async def stop(self) -> CarriedFiles:
        await self._end_keeping()
        result = await self._running.stop(self._wal)
        return CarriedFiles(result.files, result.user_settings)

    async def discard(self) -> None:
        await self._end_keeping()
        await self._running.kill()
        await asyncio.to_thread(self._running.remove)

    async def _fence(self) -> None:
        self.fenced = True
        await asyncio.shield(self._running.kill())

    async def _end_keeping(self) -> None:
        """Before anything is detached, so that nothing is attached anew."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


def _keeper(
    running: RunningCompute, wal: WalService, fence: Callable[[], Awaitable[None]]
) -> Keeper | Lookout | None:
    if isinstance(wal, QuorumClient):
        return Keeper(wal, running, fence)
    if isinstance(wal, WalClient):
        record = running.record
        return Lookout(wal, (record.tenant, record.timeline), record.term, fence)
    return None


class LocalLauncher:
    def __init__(
        self,
        *,
        pages: AsyncPageClient,
        wal: WalService,
        key: OperatorKey,
        directory: Path,
        bindir: Path,
        run_as: str | None,
        shim_library: Path,
        settings: Mapping[str, str],
        session_keys: SessionKeys | None = None,
        host: str = "",
        signer: Signer | None = None,
    ) -> None:
        self._pages = pages
        self._wal = wal
        self._key = key
        self._directory = directory
        self._bindir = bindir
        self._run_as = run_as
        self._settings = settings
        self._host = host
        self._signer = signer
        self._library = _install(shim_library, directory / "lib")
        self._session_keys = session_keys
        self._session_library = _install(shim_library.with_name(SESSION_LIBRARY), directory / "lib")
        (directory / "logs").mkdir(mode=0o700, exist_ok=True)

    async def start(self, record: DatabaseRecord, kept: CarriedFiles) -> Compute:
        name = f"{str(record.timeline)[:10]}-{secrets.token_hex(3)}"
        spec = ComputeSpec(
            tenant=record.tenant,
            timeline=record.timeline,
            directory=self._directory / name,
            port=record.port,
            page_server=self._pages.address,
            run_as=self._run_as,
            bindir=self._bindir,
            shim_library=self._library,
            settings=self._settings,
            log=self._log(record.timeline),
            files=kept.files,
            user_settings=kept.settings or {},
            owner=str(record.created_micros),
            host=self._host,
            wal_password=credentials.wal_password(self._key, record) if self._host else "",
            session=self._session(record),
            signer=self._signer,
        )
        running = await start_compute(spec, self._pages, self._wal)
        compute = LocalCompute(running, self._wal)
        if record.password_was_reset:
            try:
                secret = credentials.password(self._key, record)
                await credentials.keep_password(compute.conninfo, secret)
            except BaseException:
                await asyncio.shield(compute.discard())
                raise
        return compute

    def _session(self, record: DatabaseRecord) -> SessionLibrary | None:
        if self._session_keys is None:
            return None
        return SessionLibrary(self._session_library, self._session_keys.key(record))

    async def leftovers(self) -> list[Compute]:
        found: list[Compute] = []
        for directory in sorted(self._directory.iterdir()):
            if not _COMPUTE.fullmatch(removal.original_name(directory)):
                continue
            if removal.is_aside(directory):
                resume_removal(directory)
            elif ComputeRecord.load(directory) is None:
                await clear_version_1(directory)
            elif (running := adopt(directory)) and running.record.host == self._host:
                found.append(LocalCompute(running, self._wal))
            else:
                await clear(directory)
        return found

    def forget(self, timeline: TimelineId) -> None:
        self._log(timeline).unlink(missing_ok=True)

    def _log(self, timeline: TimelineId) -> Path:
        return self._directory / "logs" / f"{timeline}.log"


def make_compute_dir(directory: Path, run_as: str | None) -> None:
    """
    Args:
        run_as: the user that Postgres runs as; None for our own.

    Raises:
        FailedPrecondition: COMPUTE_DIR_NOT_OURS; somebody else could move what we make there.
    """
    _make_passable(directory)
    owner = account(run_as)
    servers_user = owner.uid if owner is not None else None
    _refuse_unless(directory.stat().st_uid == os.geteuid(), directory, "belongs to another user")
    _refuse_unless(not directory.stat().st_mode & 0o002, directory, "is writable by everybody")
    for parent in directory.resolve().parents:
        found = parent.stat()
        is_open = found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX
        _refuse_unless(not is_open, parent, "is writable by everybody")
        _refuse_unless(found.st_uid != servers_user, parent, "belongs to Postgres's user")


def _refuse_unless(right: bool, directory: Path, wrong: str) -> None:
    if not right:
        raise FailedPrecondition(
            "COMPUTE_DIR_NOT_OURS",
            f"{directory} {wrong}, so computes' directories are not safe in it.",
            "Set `directory` of [computes] in pagestore.toml to one of your own.",
        )


def _make_passable(directory: Path) -> None:
    """One that Postgres's user may pass through, whatever our umask; one that is there already
    stays as it is."""
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o711)


def _install(library: Path, folder: Path) -> Path:
    """A copy that Postgres's user can read, named by its content: running servers keep theirs."""
    _make_passable(folder)
    _refuse_unless(folder.stat().st_uid == os.geteuid(), folder, "belongs to another user")
    try:
        content = library.read_bytes()
    except FileNotFoundError as error:
        raise FailedPrecondition(
            "MODULES_MISSING", f"There is no {library}.", "Build it with `make setup`."
        ) from error
    digest = hashlib.sha256(content).hexdigest()[:16]
    target = folder / f"{library.stem}-{digest}{library.suffix}"
    # A power cut may have left a name without its bytes.
    if not target.is_file() or target.read_bytes() != content:
        durable.replace(target, content, mode=0o755)
    return target
