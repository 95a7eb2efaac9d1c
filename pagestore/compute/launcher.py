"""Starts a compute: Postgres on a data directory made for this start alone.

The sequence, and why in this order:

1. *Vote*: a new term at the WAL service. From here on no earlier compute of this timeline
   can commit; the log is cut at X, the end of its last complete record.
2. *Base backup* at X from the page server, laid as it arrives.
3. *Checkpoint*: one shutdown checkpoint record at X, made durable at the WAL service under
   the new term before anything can run behind it (beside 2, as soon as the header is known).
4. *Serve*: the directory is finished, Postgres started, the safekeeper told to pull.
5. *Ready* when Postgres accepts connections and a safekeeper streams as its synchronous
   standby: before that every commit would only wait.

Whatever fails, the process is gone, the safekeeper detached and the directory removed; the
log stays, and its end is in the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from pagestore.client.page import AsyncPageClient, Rel
from pagestore.client.walservice import WalService, Won
from pagestore.compute import catalog
from pagestore.compute.catalog import Entry
from pagestore.compute.checkpoint import StartCheckpoint, lay_control_file, lay_segments, synthesize
from pagestore.compute.config import (
    OF_SEVERAL,
    SYNCHRONOUS_FILE,
    ServerPlace,
    command_line,
    hba,
    kept_auto_conf,
    postgresql_conf,
    quorum_rule,
    synchronous_conf,
)
from pagestore.compute.datadir import DataDirectory, Owner
from pagestore.compute.process import (
    POLL_SECONDS,
    ServerProcess,
    account,
    failed,
    log_tail,
    spawn,
    wait_accepting,
)
from pagestore.compute.remote_map import Fork
from pagestore.compute.running import ComputeRecord, RunningCompute, remove_directory
from pagestore.compute.wal_role import ensure_wal_role
from pagestore.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    PagestoreError,
    ResourceExhausted,
)
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import layout, relmap, slru
from pagestore.v1 import page_pb2 as pb

_SOCKET_NAME = "/.s.PGSQL.65535"
_MAX_SOCKET_PATH = 107
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL of linux/fs.h."""
_SHARED = (layout.GLOBAL_TABLESPACE, 0)
_BACKUP_WAIT_MS = 60_000


@dataclass(frozen=True, slots=True)
class ComputeSpec:
    """What to start, and where.

    Args:
        directory: made by the start and removed by the stop; a new name each time.
        run_as: the user that the server runs as; None for our own.
        shim_library: readable by that user; None only where every block is local.
        settings: for postgresql.conf, over the defaults.
        log: the server's log; beside the directory unless given. Kept after a failure.
        pgstat: statistics that the last clean stop returned.
        auto_conf: postgresql.auto.conf (ALTER SYSTEM), likewise.
        host: an address of this machine at which safekeepers and clients on other hosts reach the
            server; empty for this machine alone.
        wal_password: by which safekeepers log in there.
    """

    tenant: TenantId
    timeline: TimelineId
    directory: Path
    port: int
    page_server: str
    run_as: str | None = None
    bindir: Path = Path("/usr/lib/postgresql/15/bin")
    shim_library: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    pgstat: bytes | None = None
    auto_conf: bytes | None = None
    host: str = ""
    wal_password: str = field(default="", repr=False)
    start_timeout: float = 60.0

    @property
    def log_path(self) -> Path:
        return self.log or self.directory.with_name(self.directory.name + ".log")


async def start_compute(
    spec: ComputeSpec, pages: AsyncPageClient, wal: WalService
) -> RunningCompute:
    """The whole sequence; returns when commits work.

    Raises:
        Aborted: TERM_LOST; somebody else started this timeline meanwhile.
        Unavailable: COMPUTE_FAILED; Postgres exited. The message has its last words.
        DeadlineExceeded: COMPUTE_START_TIMEOUT.
        PagestoreError: what the page server or the WAL service answered.
    """
    owner = account(spec.run_as)
    if not (spec.bindir / "postgres").exists():
        raise FailedPrecondition(
            "POSTGRES_MISSING",
            f"There is no Postgres in {spec.bindir}.",
            "Install the package postgresql-15, or set the directory of its programs.",
        )
    check_reachable(spec.directory.parent, owner)
    spread_children(spec.directory.parent)
    clock = _Clock()
    won = await wal.win_term(spec.tenant, spec.timeline)
    clock.mark("vote")
    start = _Start(spec, owner, won, clock)
    try:
        async with asyncio.timeout(spec.start_timeout):
            await start.lay(pages, wal)
        return await start.serve(wal)
    except BaseException as error:
        await asyncio.shield(start.undo(wal))
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(
                "COMPUTE_START_TIMEOUT",
                f"No base backup came from the page server {spec.page_server} within "
                f"{spec.start_timeout:.0f} s.",
                "Is it running? `pagestore status` shows it.",
            ) from error
        if isinstance(error, OSError):
            raise _disk_error(spec.directory, error) from error
        raise


def _disk_error(directory: Path, error: OSError) -> PagestoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            "NO_SPACE_FOR_COMPUTE",
            f"There is no room for a compute's files in {directory.parent}.",
            "Free some space there; nothing is lost.",
        )
    return FailedPrecondition(
        "COMPUTE_DIRECTORY", f"A compute's files could not be laid in {directory}: {error}."
    )


class _Clock:
    """How long each phase of a start took, in seconds."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._last = time.monotonic()

    def mark(self, phase: str) -> None:
        now = time.monotonic()
        self.phases[phase] = now - self._last
        self._last = now


class _Start:
    """One start under way; `undo` takes back whatever it has come to."""

    def __init__(
        self,
        spec: ComputeSpec,
        owner: Owner | None,
        won: Won,
        clock: _Clock,
    ) -> None:
        self.spec = spec
        self.clock = clock
        self.owner = owner
        self.won = won
        self.term = won.term
        self.lsn = won.end_lsn
        self.prev_record_lsn = won.prev_record_lsn
        self.data = spec.directory / "data"
        self.sockets = spec.directory / "run"
        self.server: ServerProcess | None = None
        self.made_directory = False
        self.attached = False
        self.end_lsn = 0
        self.settings = pb.ControlSettings()
        self.entry = Entry("postgres", "postgres")

    async def lay(self, pages: AsyncPageClient, wal: WalService) -> None:
        """Steps 2 and 3."""
        spec = self.spec
        _make_private(spec.directory, self.owner)
        self.made_directory = True
        self.sockets = socket_directory(spec.directory, self.owner)
        with DataDirectory(self.data, self.owner) as directory:
            chunks = pages.base_backup(
                spec.tenant, spec.timeline, self.lsn, wait_ms=_BACKUP_WAIT_MS
            )
            checkpoint = await self._receive(directory, chunks, wal)
            self.clock.mark("base backup")
            directory.lay_unlogged(await self._init_pages(directory, pages))
            self.entry = await self._find_entry(directory, pages)
            await asyncio.to_thread(self._finish, directory, checkpoint)
            self.clock.mark("finish")

    async def _receive(
        self,
        directory: DataDirectory,
        chunks: AsyncIterator[pb.BaseBackupChunk],
        wal: WalService,
    ) -> StartCheckpoint:
        spec = self.spec
        directory.feed(await anext(chunks))
        self.settings = directory.settings
        checkpoint = synthesize(
            self.lsn,
            self.prev_record_lsn,
            directory.counters,
            directory.settings.system_id,
            full_page_writes=False,
        )
        self.end_lsn = checkpoint.end_lsn
        durable = asyncio.create_task(
            wal.append_wal(spec.tenant, spec.timeline, self.term, self.lsn, checkpoint.data)
        )
        try:
            async for chunk in chunks:
                if chunk.HasField("relations"):
                    await asyncio.to_thread(directory.feed, chunk)
                else:
                    directory.feed(chunk)
            await durable
        finally:
            durable.cancel()
            await asyncio.gather(durable, return_exceptions=True)
        return checkpoint

    async def _init_pages(
        self, directory: DataDirectory, pages: AsyncPageClient
    ) -> dict[Fork, list[bytes]]:
        found: dict[Fork, list[bytes]] = {}
        for fork in directory.unlogged_forks():
            length = directory.lengths[fork]
            found[fork] = await self._pages(pages, fork, length) if length else []
        return found

    async def _pages(self, pages: AsyncPageClient, fork: Fork, length: int) -> list[bytes]:
        spec = self.spec
        return await pages.get_pages(
            spec.tenant, spec.timeline, self.lsn, Rel(*fork), range(length)
        )

    async def _find_entry(self, directory: DataDirectory, pages: AsyncPageClient) -> Entry:
        """From the shared catalogs; their pages are read from the files where they are hot."""
        mapping = relmap.parse((self.data / "global" / relmap.FILE_NAME).read_bytes())
        heaps = []
        for oid in (catalog.PG_AUTHID, catalog.PG_DATABASE):
            fork = (*_SHARED, mapping[oid], 0)
            length = directory.lengths.get(fork, 0)
            local = set(directory.local.get(fork, ()))
            if local.issuperset(range(length)):
                raw = (self.data / "global" / str(mapping[oid])).read_bytes()
                size = layout.PAGE_SIZE
                heaps.append([raw[at : at + size] for at in range(0, len(raw), size)])
            else:
                heaps.append(await self._pages(pages, fork, length))
        return catalog.find_entry(heaps[0], heaps[1], self._committed)

    def _committed(self, xid: int) -> bool:
        path, offset = slru.page_position(slru.XACT, slru.page_of(slru.XACT, xid))
        position = offset + xid % slru.XACTS_PER_PAGE // 4
        try:
            status = (self.data / path).read_bytes()[position] >> xid % 4 * 2 & 3
        except (FileNotFoundError, IndexError):
            return False
        return status == 1

    def _finish(self, directory: DataDirectory, checkpoint: StartCheckpoint) -> None:
        """The files that are ours alone."""
        spec = self.spec
        directory.lay_missing_slru_pages()
        lay_segments(directory, checkpoint)
        lay_control_file(directory, checkpoint)
        directory.lay_remote_map()
        quorum = OF_SEVERAL if len(self.won.standbys) > 1 else {}
        settings = {**quorum, **spec.settings}
        directory.write("postgresql.conf", postgresql_conf(directory.settings, settings))
        rule = quorum_rule(self.won.needed, self.won.standbys)
        directory.write(SYNCHRONOUS_FILE, synchronous_conf(rule))
        directory.write("pg_hba.conf", hba(spec.host))
        directory.write("pg_ident.conf", b"")
        if spec.pgstat is not None:
            directory.write("pg_stat/pgstat.stat", spec.pgstat)
        if spec.auto_conf is not None:
            directory.write("postgresql.auto.conf", kept_auto_conf(spec.auto_conf))

    async def serve(self, wal: WalService) -> RunningCompute:
        """Steps 4 and 5."""
        spec = self.spec
        place = ServerPlace(
            spec.port,
            self.sockets,
            spec.page_server,
            spec.tenant,
            spec.timeline,
            self.lsn,
            spec.shim_library,
            spec.host,
        )
        argv = [str(spec.bindir / "postgres"), "-D", str(self.data)]
        for name, value in command_line(place).items():
            argv += ["-c", f"{name}={value}"]
        child = spawn(argv, log=spec.log_path, owner=self.owner)
        self.server = ServerProcess(child.pid, child)
        record = ComputeRecord.of_start(
            self.server.pid,
            tenant=spec.tenant,
            timeline=spec.timeline,
            term=self.term,
            start_lsn=self.end_lsn,
            system_id=self.settings.system_id,
            port=spec.port,
            socket_directory=str(self.sockets),
            log=str(spec.log_path),
            superuser=self.entry.superuser,
            database=self.entry.database,
            host=spec.host,
            wal_password=spec.wal_password,
        )
        record.save(spec.directory)
        await wait_accepting(self.server, self.data, spec.log_path, spec.start_timeout)
        self.clock.mark("accepting")
        if spec.host:
            await ensure_wal_role(record.conninfo(), spec.wal_password)
        self.attached = True
        await wal.attach_compute(
            spec.tenant, spec.timeline, self.term, record.wal_conninfo(), self.end_lsn
        )
        await self._wait_streaming(record.conninfo())
        self.clock.mark("streaming")
        record = record.now_ready()
        record.save(spec.directory)
        return RunningCompute(spec.directory, record, self.server, self.clock.phases)

    async def _wait_streaming(self, conninfo: str) -> None:
        """Until enough safekeepers are synchronous standbys."""
        assert self.server is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.spec.start_timeout
        query = (
            "SELECT count(*) FROM pg_stat_replication "
            "WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')"
        )
        try:
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as session:
                while True:
                    row = await (await session.execute(query)).fetchone()
                    if row is not None and row[0] >= self.won.needed:
                        return
                    if loop.time() > deadline:
                        raise DeadlineExceeded(
                            "COMPUTE_START_TIMEOUT",
                            "Postgres runs, but no safekeeper pulled its WAL within "
                            f"{self.spec.start_timeout:.0f} s. Its log {self.spec.log_path} "
                            f"ends:\n{log_tail(self.spec.log_path)}",
                            "Look at the safekeeper's log; `pagestore status` shows its state.",
                        )
                    await asyncio.sleep(POLL_SECONDS)
        except psycopg.OperationalError as error:
            raise failed(self.server, self.spec.log_path) from error

    async def undo(self, wal: WalService) -> None:
        if self.server is not None:
            await self.server.kill()
        if self.attached:
            with contextlib.suppress(Exception):
                await wal.detach_compute(self.spec.tenant, self.spec.timeline, self.term)
        if self.made_directory:
            await asyncio.to_thread(remove_directory, self.spec.directory, self.sockets)


def socket_directory(directory: Path, owner: Owner | None) -> Path:
    """A private directory for the Unix socket, whose path must fit into 107 bytes."""
    inside = directory / "run"
    if len(os.fsencode(inside)) + len(_SOCKET_NAME) <= _MAX_SOCKET_PATH:
        _make_private(inside, owner)
        return inside
    outside = Path(tempfile.mkdtemp(prefix="pagestore-run-", dir="/tmp"))
    if owner is not None:
        os.chown(outside, *owner)
    return outside


def spread_children(directory: Path) -> None:
    """Asks the file system to place each child directory far from the others.

    ext4 puts a directory's children into its own block group. Without a journal, creating a
    file there becomes slow (measured: 17 us became 20 to 600) while the group is full of
    lately deleted inodes, which is what computes that come and go leave behind. The attribute
    T ("top of hierarchies") gives each child a group of its own. Other file systems refuse
    it: no harm.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            flags = bytearray(8)
            fcntl.ioctl(fd, _GET_FLAGS, flags)
            (value,) = struct.unpack_from("=I", flags)
            if not value & _TOP_DIRECTORY:
                fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=Q", value | _TOP_DIRECTORY))
    finally:
        os.close(fd)


def check_reachable(directory: Path, owner: Owner | None) -> None:
    """Refuses a place that the server's user cannot enter."""
    if owner is None:
        return
    for parent in [directory, *directory.parents]:
        info = parent.stat()
        bit = 0o100 if info.st_uid == owner.uid else 0o010 if info.st_gid == owner.gid else 0o001
        if not info.st_mode & bit:
            raise FailedPrecondition(
                "DIRECTORY_UNREACHABLE",
                f"The user that Postgres runs as (uid {owner.uid}) cannot enter {parent}.",
                f"chmod o+x {parent}, or choose another directory for computes.",
            )


def _make_private(directory: Path, owner: Owner | None) -> None:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError as error:
        raise FailedPrecondition(
            "DIRECTORY_EXISTS", f"{directory} exists; every start takes a new directory."
        ) from error
    if owner is not None:
        os.chown(directory, *owner)
