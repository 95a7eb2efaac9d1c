"""A running compute: wait for its end, stop it with nothing lost, find it again later.

Beside the data directory lies ``compute.json``: which process this is, and what it runs.
It is how a control plane that was restarted finds the computes that outlived it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pagestore.client.walservice import WalService
from pagestore.errors import (
    Aborted,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    PagestoreError,
)
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.pgformat import wal as walformat
from pagestore.pgformat.control_file import ControlFile, DbState
from pagestore.postgres.checkpoint import end_of_checkpoint
from pagestore.postgres.operator_session import operator_session
from pagestore.postgres.process import POLL_SECONDS, ServerProcess, start_ticks
from pagestore.postgres.server_log import log_tail
from pagestore.postgres.settings import AUTO_CONF, SYNCHRONOUS_FILE, synchronous_conf
from pagestore.postgres.user_settings import LONGEST_FILE, allowed, parse
from pagestore.postgres.wal_role import WAL_ROLE

RECORD_FILE = "compute.json"
_VERSION = 1
_DETACH_WAIT_MS = 1_000
KEPT = ("pg_stat/pgstat.stat", "pg_stat/pg_stat_statements.stat")
"""Files that no WAL holds, of use to the next compute of the same timeline. All may be lost, as
after a crash; one that is larger than LONGEST_KEPT is."""
LONGEST_KEPT = 4 << 20
RULE_SECONDS = 20.0
LAST_WAL_SECONDS = 0.3
"""For whoever has not taken the last WAL yet, once enough of the others have."""


@dataclass(frozen=True, slots=True)
class ComputeRecord:
    """The content of compute.json."""

    pid: int
    start_ticks: int
    tenant: TenantId
    timeline: TimelineId
    term: int
    start_lsn: int
    system_id: int
    port: int
    socket_directory: str
    log: str
    superuser: str
    database: str
    host: str = ""
    wal_password: str = field(default="", repr=False)
    ready: bool = False

    @classmethod
    def of_start(cls, pid: int, **facts: Any) -> ComputeRecord:
        return cls(pid=pid, start_ticks=start_ticks(pid) or 0, **facts)

    def now_ready(self) -> ComputeRecord:
        return replace(self, ready=True)

    def conninfo(self) -> str:
        """libpq keywords for the superuser over the Unix socket."""
        return _conninfo(
            host=self.socket_directory,
            port=str(self.port),
            user=self.superuser,
            dbname=self.database,
        )

    def wal_conninfo(self) -> str:
        """libpq keywords by which safekeepers reach the walsender. May hold a password."""
        port = str(self.port)
        if not self.host:
            return _conninfo(host=self.socket_directory, port=port, user=self.superuser)
        return _conninfo(host=self.host, port=port, user=WAL_ROLE, password=self.wal_password)

    def save(self, directory: Path) -> None:
        facts = asdict(self) | {
            "version": _VERSION,
            "tenant": str(self.tenant),
            "timeline": str(self.timeline),
        }
        temporary = directory / f"{RECORD_FILE}.tmp"
        temporary.touch(0o600)
        temporary.write_text(json.dumps(facts, indent=1))
        temporary.replace(directory / RECORD_FILE)

    @classmethod
    def load(cls, directory: Path) -> ComputeRecord | None:
        """None when there is none that can be read."""
        try:
            facts = json.loads((directory / RECORD_FILE).read_text())
            if facts.pop("version") != _VERSION:
                return None
            facts["tenant"] = TenantId.parse(facts["tenant"])
            facts["timeline"] = TimelineId.parse(facts["timeline"])
            return cls(**facts)
        except (OSError, ValueError, TypeError, KeyError, PagestoreError):
            return None


@dataclass(frozen=True, slots=True)
class StopResult:
    """``clean``: the shutdown checkpoint is durable at the WAL service, so the next start
    finds everything, and the files of KEPT can be."""

    flush_lsn: int
    clean: bool
    files: Mapping[str, bytes] = field(default_factory=dict)
    user_settings: Mapping[str, str] | None = None
    """None where there was no file to read them from."""


class RunningCompute:
    """A compute that was ready once. Belongs to one event loop."""

    def __init__(
        self,
        directory: Path,
        record: ComputeRecord,
        server: ServerProcess,
        phases: Mapping[str, float] | None = None,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.phases = dict(phases or {})
        """Seconds that each phase of its start took; none for an adopted one."""
        self.remarks = remarks
        """What its start found to say to the user."""
        self.directory = directory
        self.record = record
        self._server = server

    @property
    def pid(self) -> int:
        return self.record.pid

    @property
    def port(self) -> int:
        return self.record.port

    @property
    def term(self) -> int:
        return self.record.term

    @property
    def start_lsn(self) -> int:
        return self.record.start_lsn

    @property
    def superuser(self) -> str:
        return self.record.superuser

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return Path(self.record.log)

    @property
    def alive(self) -> bool:
        return self._server.alive

    def conninfo(self) -> str:
        """libpq keywords: the superuser, over the Unix socket."""
        return self.record.conninfo()

    async def wait_exit(self) -> int | None:
        """Until the server is gone; its exit code, None when it was adopted."""
        return await self._server.wait()

    async def set_rule(self, rule: str) -> None:
        """Whom commits wait for from now on.

        When this returns, nobody is told of a commit by an older rule any more: every walsender
        that knew one has ended.

        Raises:
            DeadlineExceeded: RULE_NOT_TAKEN.
        """
        target = self.data / SYNCHRONOUS_FILE
        temporary = target.with_suffix(".tmp")
        temporary.write_text(synchronous_conf(rule))
        shutil.copymode(target, temporary)
        owner = target.stat()
        os.chown(temporary, owner.st_uid, owner.st_gid)
        temporary.replace(target)
        self._server.send(signal.SIGHUP)
        try:
            async with asyncio.timeout(RULE_SECONDS):
                # The postmaster takes a file before it tells its children to.
                while await self.rule() != rule:
                    await asyncio.sleep(POLL_SECONDS)
                await self._renew_walsenders()
        except TimeoutError as error:
            raise DeadlineExceeded(
                "RULE_NOT_TAKEN",
                f"The compute {self.pid} has not taken {rule!r} as its quorum within "
                f"{RULE_SECONDS:.0f} s.",
            ) from error

    async def _renew_walsenders(self) -> None:
        """Ends those that run; safekeepers come back at once."""
        async with await operator_session(self.conninfo()) as session:
            cursor = await session.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_replication"
                " WHERE sync_state <> 'async' OR application_name ~ '^sk[0-9]'"
            )
            pids = [row[0] for row in await cursor.fetchall()]
            left = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)"
            while await (await session.execute(left, (pids,))).fetchone() != (0,):
                await asyncio.sleep(POLL_SECONDS)

    async def rule(self) -> str:
        """Whom commits wait for, as a new session is told."""
        async with await operator_session(self.conninfo()) as session:
            row = await (await session.execute("SHOW synchronous_standby_names")).fetchone()
        return str(row[0]) if row else ""

    def release(self) -> None:
        """Lets it live on, unwatched."""
        self._server.release()

    async def stop(self, wal: WalService, timeout: float = 60.0) -> StopResult:
        """A fast shutdown; then the directory is removed.

        The directory is removed only once the shutdown checkpoint is durable at the WAL
        service, or when another compute has taken the timeline over. May be repeated
        after a failure.

        Raises:
            DeadlineExceeded: COMPUTE_STOP_TIMEOUT; it was killed. No acknowledged commit is
                lost, but the directory is kept.
            PagestoreError: the WAL service is away; the directory is kept.
        """
        self._server.send(signal.SIGINT)
        try:
            async with asyncio.timeout(timeout):
                await self._shut_down(wal)
        except TimeoutError as error:
            await self._server.kill()
            raise DeadlineExceeded(
                "COMPUTE_STOP_TIMEOUT",
                f"Postgres did not stop within {timeout:.0f} s and was killed. Its log "
                f"{self.log} ends:\n{log_tail(self.log)}",
            ) from error
        end = self._clean_end()
        result = await self._detach(wal, end)
        result = replace(result, user_settings=self.user_settings())
        if result.clean:
            result = replace(result, files=self._kept())
        await asyncio.to_thread(self.remove)
        return result

    def user_settings(self) -> dict[str, str] | None:
        """What ALTER SYSTEM has set by now, running or not."""
        text = _read(self.data / AUTO_CONF, LONGEST_FILE)
        return None if text is None else allowed(parse(text))

    def _kept(self) -> dict[str, bytes]:
        found = ((path, _read(self.data / path, LONGEST_KEPT)) for path in KEPT)
        return {path: content for path, content in found if content is not None}

    async def _shut_down(self, wal: WalService) -> None:
        """Until the server is gone, or only waits for somebody who does not take its last WAL
        although the WAL service has it: a safekeeper that is frozen, while the others are not."""
        ending = asyncio.ensure_future(self._server.wait())
        taken = 0
        while not ending.done() and taken < 2:
            await asyncio.wait([ending], timeout=LAST_WAL_SECONDS)
            end = 0 if ending.done() else self._clean_end()
            if end and await self._is_committed(wal, end):
                taken += 1
        if not ending.done():
            await self._server.kill()
        await ending

    async def _is_committed(self, wal: WalService, lsn: int) -> bool:
        try:
            return await wal.is_committed(self.record.tenant, self.record.timeline, lsn)
        except PagestoreError:
            return False

    async def kill(self) -> None:
        """Ends it as a crash would. The directory stays until `remove`."""
        await self._server.kill()

    def remove(self) -> None:
        """Throws the directory away. Only for a compute that is gone."""
        if self._server.alive:
            raise FailedPrecondition("COMPUTE_RUNNING", f"The compute {self.pid} still runs.")
        remove_directory(self.directory, Path(self.record.socket_directory))

    def _clean_end(self) -> int:
        """The end of the shutdown checkpoint; 0 when there is none, or it is being written."""
        try:
            control = ControlFile.parse((self.data / "global/pg_control").read_bytes())
        except DataLoss:
            return 0
        if control.state != DbState.SHUTDOWNED:
            return 0
        return end_of_checkpoint(control.checkpoint_lsn)

    async def _detach(self, wal: WalService, end: int) -> StopResult:
        ids = (self.record.tenant, self.record.timeline)
        try:
            flush = await self._flushed(wal, end)
            if flush < end:
                # The safekeeper was away while the server stopped: hand it the rest.
                rest = read_local_wal(self.data, flush, end)
                flush = (await wal.append_wal(*ids, self.term, flush, rest)).flush_lsn
        except Aborted:
            return StopResult(0, clean=False)
        return StopResult(flush, clean=0 < end <= flush)

    async def _flushed(self, wal: WalService, end: int) -> int:
        ids = (self.record.tenant, self.record.timeline)
        try:
            return await wal.detach_compute(
                *ids, self.term, wait_flush_lsn=end, wait_ms=_DETACH_WAIT_MS if end else 0
            )
        except DeadlineExceeded:
            return await wal.detach_compute(*ids, self.term)


def adopt(directory: Path) -> RunningCompute | None:
    """The compute that runs in a directory, or None.

    None also for one whose start was never finished, or that is dead; what is left of it
    is then for :func:`clear` to end and remove.
    """
    record = ComputeRecord.load(directory)
    if record is None or not record.ready or not is_running(record, directory):
        return None
    try:
        server = ServerProcess(record.pid)
    except ProcessLookupError:
        return None
    if not is_running(record, directory):
        server.release()
        return None
    return RunningCompute(directory, record, server)


async def clear(directory: Path) -> None:
    """Ends whatever runs in a compute's directory, and removes it.

    Also a server whose starter died before it could write compute.json."""
    record = ComputeRecord.load(directory)
    sockets = Path(record.socket_directory) if record is not None else directory / "run"
    pid = _server_of(directory, record)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            await ServerProcess(pid).kill()
    await asyncio.to_thread(remove_directory, directory, sockets)


def _server_of(directory: Path, record: ComputeRecord | None) -> int | None:
    if record is not None and is_running(record, directory):
        return record.pid
    try:
        pid = int((directory / "data/postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if _works_in(pid, directory) else None


def is_running(record: ComputeRecord, directory: Path) -> bool:
    """Whether the process of the record is alive, and is this directory's server."""
    return start_ticks(record.pid) == record.start_ticks and _works_in(record.pid, directory)


def _works_in(pid: int, directory: Path) -> bool:
    """Whether a process's working directory is the data directory: a postmaster's is."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(directory / "data")
    except OSError:
        return False


def remove_directory(directory: Path, sockets: Path) -> None:
    """A compute's directory, and its sockets' where that lies elsewhere."""
    shutil.rmtree(directory, ignore_errors=True)
    if sockets.parent != directory:
        shutil.rmtree(sockets, ignore_errors=True)


def read_local_wal(data: Path, start: int, end: int) -> bytes:
    """The bytes of [start, end) from a stopped server's own segments.

    Raises:
        FailedPrecondition: WAL_GONE; a segment was recycled already.
    """
    out = bytearray()
    while start < end:
        path = data / "pg_wal" / walformat.segment_name(walformat.TIMELINE_ID, start)
        offset = start % walformat.SEGMENT_SIZE
        length = min(end - start, walformat.SEGMENT_SIZE - offset)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise FailedPrecondition(
                "WAL_GONE", f"The WAL from {format_lsn(start)} on is no longer in {path.parent}."
            ) from error
        try:
            out += os.pread(fd, length, offset)
        finally:
            os.close(fd)
        start += length
    return bytes(out)


def _read(path: Path, longest: int) -> bytes | None:
    """A file of a tenant's: regular, and no longer than this, or as if there were none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = file.read(longest + 1)
    return content if len(content) <= longest else None


def _conninfo(**words: str) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in words.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
