"""Starts a compute: Postgres on a data directory made for this start alone.

The sequence, and why in this order:

1. *Vote*: a new term at the WAL service. From here on no earlier compute of this timeline
   can commit; the log is cut at X, the end of its last complete record.
2. *Base backup* at X from the page server, laid as it arrives.
3. *Checkpoint*: one shutdown checkpoint record at X, made durable at the WAL service under
   the new term before anything can run behind it (beside 2, as soon as the header is known).
4. *Serve*: the directory is finished, Postgres starts on it, the safekeeper is told to pull.
5. *Ready* when Postgres accepts connections and a safekeeper streams as its synchronous
   standby: before that every commit would only wait. Nobody comes if a rival has won a higher
   term since the vote, so that is asked meanwhile.

Postgres is executed before all that, and waits (parking.py): for its settings until the base
backup's header has come, then, with its shared memory made, for its files.

Whatever fails, the process is gone, the safekeeper detached and the directory removed; the
log stays, and the line of it that matters is in the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pagestore.client.page import AsyncPageClient, Rel
from pagestore.client.walservice import WalService, Won
from pagestore.compute import page_access, shared_memory
from pagestore.compute.certificate import make_certificate
from pagestore.compute.clock import Clock
from pagestore.compute.execution import Execution, execute
from pagestore.compute.hydrating import HydratingDirectory
from pagestore.compute.limits import Limits
from pagestore.compute.parking import SETTINGS, Line
from pagestore.compute.places import (
    check_reachable,
    make_outer,
    socket_directory,
    spread_children,
    write_readable,
)
from pagestore.compute.record import ComputeRecord
from pagestore.compute.removal import remove
from pagestore.compute.running import RunningCompute
from pagestore.compute.slots import Log, words_on_slots, write_slots
from pagestore.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.pgformat import layout, relmap, slru, versions
from pagestore.postgres import majors
from pagestore.postgres import shared_catalogs as catalog
from pagestore.postgres.checkpoint import (
    StartCheckpoint,
    after_prologue,
    any_control_file,
    write_control_file,
    write_segments,
)
from pagestore.postgres.datadir import Owner
from pagestore.postgres.process import (
    ServerProcess,
    account,
    own_user,
    wait_accepting,
)
from pagestore.postgres.prologue import Prologue, enabled_subscriptions, write_prologue
from pagestore.postgres.remote_map import Fork
from pagestore.postgres.roles import find_roles, roles_to_enter_as
from pagestore.postgres.server_log import ServerFailed, ServerLog
from pagestore.postgres.settings import (
    AUTO_CONF,
    HBA_FILE,
    IDENT_FILE,
    OF_SEVERAL,
    SOCKET_PORT,
    SYNCHRONOUS_FILE,
    ServerPlace,
    SessionLibrary,
    auto_conf,
    command_line,
    hba,
    ident,
    line_settings,
    postgresql_conf,
    quorum_rule,
    synchronous_conf,
)
from pagestore.postgres.shared_catalogs import Entry
from pagestore.postgres.wal_role import ensure_wal_role
from pagestore.tokens import Signer
from pagestore.v1 import page_pb2 as pb

_SHARED = (layout.GLOBAL_TABLESPACE, 0)
_BACKUP_WAIT_MS = 60_000
_TERM_CHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ComputeSpec:
    """What to start, and where.

    Args:
        directory: made by the start and removed by the stop; a new name each time.
        port: in its socket's name; with `host`, of TCP.
        run_as: the user that the server runs as; None for our own.
        shim_library: for that major, readable by that user.
        major: of Postgres, which the timeline is of.
        bindir: where Postgres's programs are; with ``{major}`` in it where each one's are.
        settings: for postgresql.conf, over the defaults.
        log: the server's log; beside the directory unless given. Kept after a failure.
        files: what no WAL holds, by path (running.CARRIED), as the last clean stop returned it.
        user_settings: what ALTER SYSTEM has set, or would have; see postgres/user_settings.py.
        owner: what tells the database from others whose timelines it may stem from.
        host: an address of this machine at which safekeepers and clients on other hosts reach the
            server; empty for this machine alone.
        wal_password: by which safekeepers log in there.
        session: what lets sessions outlive the server; None where nobody needs that.
        signer: of the token that opens the timeline's pages, and of where safekeepers find it.
        walls: whether it runs within walls; see walls.py.
        network: whether it has the machine's there; else `page_server` is a Unix socket.
        limits: what it may take there; None for whatever there is.
        uid: the user of its own that it runs as there, instead of `run_as`; None for none.
    """

    tenant: TenantId
    timeline: TimelineId
    directory: Path
    page_server: str
    shim_library: Path
    port: int = SOCKET_PORT
    run_as: str | None = None
    major: int = versions.OLDEST.major
    bindir: Path = majors.BINDIR
    settings: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    user_settings: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    host: str = ""
    wal_password: str = field(default="", repr=False)
    session: SessionLibrary | None = None
    signer: Signer | None = field(default=None, repr=False)
    walls: bool = False
    network: bool = True
    limits: Limits | None = None
    uid: int | None = None
    start_timeout: float = 60.0

    @property
    def log_path(self) -> Path:
        return self.log or self.directory.with_name(self.directory.name + ".log")


async def start_compute(
    spec: ComputeSpec, pages: AsyncPageClient, wal: WalService
) -> RunningCompute:
    """The whole sequence; returns when commits work.

    Raises:
        Aborted: TERM_LOST, STALE_TERM; somebody else started this timeline meanwhile.
        ServerFailed: COMPUTE_FAILED; Postgres exited. The message has the line that matters.
        DeadlineExceeded: COMPUTE_START_TIMEOUT.
        PagestoreError: what the page server or the WAL service answered.
    """
    owner = Owner(spec.uid, spec.uid) if spec.uid is not None else account(spec.run_as)
    programs = majors.programs(spec.bindir, spec.major)
    if not spec.walls:
        check_reachable(spec.directory.parent, owner)
    spread_children(spec.directory.parent)
    authority = page_access.authority_for(spec.page_server, pages.credentials)
    start = _Start(spec, owner, authority, programs)
    try:
        return await start.run(pages, wal)
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


class _Start:
    """One start under way; `undo` takes back whatever it has come to."""

    def __init__(
        self, spec: ComputeSpec, owner: Owner | None, authority: Path | None, programs: Path
    ) -> None:
        self.spec = spec
        self.authority = authority
        self.programs = programs
        self.clock = Clock()
        self.owner = owner
        self.won = Won(0, 0, 0, 0, ())
        self.data = spec.directory / "data"
        self.log = ServerLog.from_now(spec.log_path)
        self.group = owner.gid if owner is not None else os.getegid()
        self.server: ServerProcess | None = None
        self.execution: Execution | None = None
        self.record: ComputeRecord | None = None
        self.made_directory = False
        self.attached = False
        self.end_lsn = 0
        self.settings = pb.ControlSettings()
        self.entry = Entry("postgres", "postgres")
        self.roles: list[str] = []
        self.remarks: tuple[str, ...] = ()

    async def run(self, pages: AsyncPageClient, wal: WalService) -> RunningCompute:
        """All steps. The vote is on its way while the server is executed."""
        spec = self.spec
        voting = asyncio.create_task(wal.win_term(spec.tenant, spec.timeline))
        await asyncio.sleep(0)
        try:
            with contextlib.closing(Line()) as line:
                with self._parked(line) as directory:
                    self.won = await voting
                    self.clock.mark("vote")
                    async with asyncio.timeout(spec.start_timeout):
                        await self._lay(directory, line, pages, wal)
                await self._enter()
                line.go()
                return await self._serve(line, wal)
        finally:
            voting.cancel()
            await asyncio.gather(voting, return_exceptions=True)

    @contextlib.contextmanager
    def _parked(self, line: Line) -> Iterator[HydratingDirectory]:
        """The directory to lay, and a server that waits for it."""
        spec = self.spec
        make_outer(spec.directory, self.owner)
        self.made_directory = True
        if spec.signer is not None:
            page_access.write_token(
                spec.directory, spec.tenant, spec.timeline, spec.signer, self.group
            )
        if self.authority is not None:
            page_access.write_authority(spec.directory, self.authority, self.group)
        sockets = socket_directory(spec.directory, self.owner)
        memory = None if spec.walls else shared_memory.make_directory(self.owner)
        self.record = self._first_record(sockets, memory)
        self.record.save(spec.directory)
        with HydratingDirectory(self.data, self.owner) as directory:
            version = versions.of_major(spec.major)
            directory.write("PG_VERSION", version.version_file)
            directory.write("global/pg_control", any_control_file(version))
            directory.write("postgresql.conf", b"")
            place = ServerPlace(
                spec.port,
                sockets,
                spec.page_server,
                spec.tenant,
                spec.timeline,
                spec.shim_library,
                spec.directory,
                spec.host,
                encrypted=self.authority is not None,
            )
            settings = command_line(place, version) | SETTINGS
            if memory is not None:
                directory.replace_by_link(shared_memory.DYNSHMEM, memory)
                settings |= shared_memory.SETTINGS
            elif spec.walls:
                settings |= shared_memory.WALLED_SETTINGS
            argv = [str(self.programs / "postgres"), "-D", str(self.data)]
            for name, value in settings.items():
                argv += ["-c", f"{name}={value}"]
            self.execution = execute(
                spec,
                argv,
                self.record,
                data=self.data,
                owner=self.owner,
                stdin=line.theirs.fileno(),
            )
            self.record = self.execution.record
            self.record.save(spec.directory)
            yield directory

    async def _enter(self) -> None:
        """Until the server is within its walls, if it has any."""
        assert self.execution is not None
        self.server = await self.execution.enter()
        if self.server is None:
            raise ServerFailed(self.log, None)
        if self.record != self.execution.record:
            self.record = self.execution.record
            self.record.save(self.spec.directory)

    def _first_record(self, sockets: Path, memory: Path | None) -> ComputeRecord:
        """What is known before the server is executed."""
        spec = self.spec
        inner = [sockets] if sockets.parent != spec.directory else []
        inner += [memory] if memory is not None else []
        place = (spec.directory, spec.host, self.group)
        return ComputeRecord(
            tenant=spec.tenant,
            timeline=spec.timeline,
            port=spec.port,
            socket_directory=str(sockets),
            log=str(spec.log_path),
            outside=tuple(str(directory.parent) for directory in inner),
            host=spec.host,
            wal_password=spec.wal_password,
            certificate=make_certificate(*place) if spec.host else "",
            uid=spec.uid or 0,
        )

    async def _lay(
        self, directory: HydratingDirectory, line: Line, pages: AsyncPageClient, wal: WalService
    ) -> None:
        """Steps 2 and 3."""
        spec = self.spec
        chunks = pages.base_backup(
            spec.tenant,
            spec.timeline,
            self.won.end_lsn,
            for_compute=True,
            wait_ms=_BACKUP_WAIT_MS,
        )
        first, known = await asyncio.gather(
            anext(chunks), pages.get_timeline(spec.tenant, spec.timeline)
        )
        directory.feed(first)
        self._check_whole(known.last_record_lsn)
        assert directory.header is not None
        self.settings = directory.settings
        self._check_major(directory)
        prologue = write_prologue(
            directory.header,
            spec.timeline,
            spec.owner,
            self.won.end_lsn,
            self.won.prev_record_lsn,
        )
        checkpoint = after_prologue(
            prologue, directory.counters, directory.settings, full_page_writes=False
        )
        self.end_lsn = checkpoint.end_lsn
        self._configure(directory, checkpoint)
        user = {**spec.settings, **spec.user_settings}
        line.settings(
            {"pagestore.lsn": format_lsn(self.won.end_lsn)}
            | line_settings(spec.shim_library, user, spec.session)
        )
        await self._receive(directory, chunks, checkpoint, wal)
        self.clock.mark("base backup")
        directory.write_unlogged(await self._init_pages(directory, pages))
        self.entry = await self._find_entry(directory, pages)
        self._say_who_enters()
        directory.write_missing_slru_pages()
        write_segments(directory, checkpoint)
        await self._write_slots(directory, prologue, pages, wal)
        for path, content in spec.files.items():
            directory.write(path, content)
        directory.write_remote_map()
        self.clock.mark("finish")

    async def _write_slots(
        self,
        directory: HydratingDirectory,
        prologue: Prologue,
        pages: AsyncPageClient,
        wal: WalService,
    ) -> None:
        """What of the past goes on, and what does not."""
        spec, header = self.spec, directory.header
        assert header is not None
        log = Log(spec.tenant, spec.timeline, header.branch_lsn, self.won.end_lsn)
        slots = await write_slots(directory, prologue.dropped_slots, log, pages, wal)
        disabled: list[str] = []
        if prologue.pages:
            directory.overlay(prologue.fork, prologue.pages)
            rows = catalog.live_rows(
                header.subscriptions.pages, lambda xid: _committed(directory, xid)
            )
            disabled = enabled_subscriptions(rows)
        self.remarks = words_on_slots(prologue.dropped_slots, slots.lost, disabled)
        if slots.wal_bytes:
            self.clock.mark("WAL of slots")

    def _check_major(self, directory: HydratingDirectory) -> None:
        """The server was executed before anybody asked the timeline."""
        if directory.version.major != self.spec.major:
            raise FailedPrecondition(
                "WRONG_POSTGRES_VERSION",
                f"Timeline {self.spec.timeline} is of Postgres {directory.version.major}, not "
                f"{self.spec.major}.",
            )

    def _check_whole(self, ingested_lsn: int) -> None:
        """What a page server has taken in was committed: a log that ends before it has lost WAL,
        and a compute would write another history over that."""
        end_lsn = self.won.end_lsn
        if ingested_lsn > end_lsn:
            raise DataLoss(
                "LOG_ROLLED_BACK",
                f"The log of timeline {self.spec.timeline} ends at {format_lsn(end_lsn)}, but the "
                f"page server has taken it in up to {format_lsn(ingested_lsn)}: the safekeeper's "
                "directory is an older copy.",
                "Restore the newest copy of it. Nothing was written.",
            )

    async def _receive(
        self,
        directory: HydratingDirectory,
        chunks: AsyncIterator[pb.BaseBackupChunk],
        checkpoint: StartCheckpoint,
        wal: WalService,
    ) -> None:
        spec = self.spec
        durable = asyncio.create_task(
            wal.append_wal(
                spec.tenant, spec.timeline, self.won.term, self.won.end_lsn, checkpoint.data
            )
        )
        try:
            async for chunk in chunks:
                directory.feed(chunk)
            await durable
        finally:
            durable.cancel()
            await asyncio.gather(durable, return_exceptions=True)

    async def _init_pages(
        self, directory: HydratingDirectory, pages: AsyncPageClient
    ) -> dict[Fork, list[bytes]]:
        found: dict[Fork, list[bytes]] = {}
        for fork in directory.unlogged_forks():
            found[fork] = directory.hot_pages(fork) or await self._pages(directory, pages, fork)
        return found

    async def _pages(
        self, directory: HydratingDirectory, pages: AsyncPageClient, fork: Fork
    ) -> list[bytes]:
        """All pages of a fork; none of one that there is not."""
        spec = self.spec
        blocks = range(directory.length(fork) or 0)
        if not blocks:
            return []
        rel = Rel(*fork)
        return await pages.get_pages(spec.tenant, spec.timeline, self.won.end_lsn, rel, blocks)

    async def _find_entry(self, directory: HydratingDirectory, pages: AsyncPageClient) -> Entry:
        """From the shared catalogs."""
        mapping = relmap.parse(directory.read(f"global/{relmap.FILE_NAME}") or b"")
        heaps = []
        for oid in (catalog.PG_AUTHID, catalog.PG_DATABASE):
            fork = (*_SHARED, mapping[oid], 0)
            hot = directory.hot_pages(fork)
            heaps.append(hot or await self._pages(directory, pages, fork))
        committed = partial(_committed, directory)
        entry = catalog.find_entry(heaps[0], heaps[1], committed)
        roles = find_roles(heaps[0], committed).values()
        self.roles = roles_to_enter_as(roles, entry.superuser)
        return entry

    def _say_who_enters(self) -> None:
        """The server reads it once its files are there."""
        superuser, directory = self.entry.superuser, self.spec.directory
        who = hba(superuser, self.spec.host, self.roles)
        write_readable(directory / HBA_FILE, who, self.group)
        whom = ident(superuser, [own_user()], self.roles)
        write_readable(directory / IDENT_FILE, whom, self.group)

    def _configure(self, directory: HydratingDirectory, checkpoint: StartCheckpoint) -> None:
        """What the server reads before it makes its shared memory. A slow one may not have read
        the first files yet: each state of the directory is one that it can go on from."""
        spec = self.spec
        write_control_file(directory, checkpoint)
        rule = quorum_rule(self.won.needed, self.won.standbys)
        write_readable(spec.directory / SYNCHRONOUS_FILE, synchronous_conf(rule), self.group)
        quorum = OF_SEVERAL if len(self.won.standbys) > 1 else {}
        settings = {**quorum, **spec.settings}
        directory.write(
            "postgresql.conf", postgresql_conf(directory.settings, settings, spec.directory)
        )
        directory.write(AUTO_CONF, auto_conf(spec.user_settings))

    async def _serve(self, line: Line, wal: WalService) -> RunningCompute:
        """Steps 4 and 5."""
        spec = self.spec
        assert self.server is not None
        assert self.record is not None
        self.record = record = replace(
            self.record,
            term=self.won.term,
            start_lsn=self.end_lsn,
            read_lsn=self.won.end_lsn,
            system_id=self.settings.system_id,
            superuser=self.entry.superuser,
            database=self.entry.database,
        )
        record.save(spec.directory)
        await wait_accepting(self.server, self.data, self.log, spec.start_timeout)
        self.clock.mark("accepting")
        if spec.host:
            await ensure_wal_role(record.conninfo(), spec.wal_password)
        self.attached = True
        address = record.signed_for_safekeepers(spec.signer)
        await wal.attach_compute(spec.tenant, spec.timeline, self.won.term, address, self.end_lsn)
        await self._wait_attached(line, wal)
        self.clock.mark("streaming")
        record = record.now_ready()
        record.save(spec.directory)
        return RunningCompute(
            spec.directory, record, self.server, self.clock.phases, self.remarks, spec.signer
        )

    async def _wait_attached(self, line: Line, wal: WalService) -> None:
        """Until enough safekeepers are synchronous standbys."""
        assert self.server is not None
        attached = asyncio.create_task(line.attached())
        superseded = asyncio.create_task(self._superseded(wal))
        waits = [attached, superseded, asyncio.create_task(self.server.wait())]
        try:
            await asyncio.wait(
                waits, timeout=self.spec.start_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if attached.done():
                return
            if superseded.done():
                await superseded
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if not self.server.alive:
            raise ServerFailed(self.log, self.server.exit_code)
        raise DeadlineExceeded(
            "COMPUTE_START_TIMEOUT",
            "Postgres runs, but no safekeeper pulled its WAL within "
            f"{self.spec.start_timeout:.0f} s.",
            f"{self.log.place} `pagestore status` shows the safekeepers' state, and where their"
            " logs are.",
        )

    async def _superseded(self, wal: WalService) -> None:
        """Ends by raising Aborted: no safekeeper will follow a compute whose term is over."""
        while True:
            await asyncio.sleep(_TERM_CHECK_SECONDS)
            with contextlib.suppress(Unavailable):
                await wal.check_term(self.spec.tenant, self.spec.timeline, self.won.term)

    async def undo(self, wal: WalService) -> None:
        if self.server is None and self.execution is not None:
            self.server = await self.execution.enter()
        if self.server is not None:
            await self.server.kill()
        if self.attached:
            with contextlib.suppress(Exception):
                await wal.detach_compute(self.spec.tenant, self.spec.timeline, self.won.term)
        if self.made_directory:
            await asyncio.to_thread(remove, self.spec.directory, self.record)


def _committed(directory: HydratingDirectory, xid: int) -> bool:
    path, offset = slru.page_position(slru.XACT, slru.page_of(slru.XACT, xid))
    position = offset + xid % slru.XACTS_PER_PAGE // 4
    status = (directory.read(path) or b"")[position : position + 1]
    return bool(status) and status[0] >> xid % 4 * 2 & 3 == 1
