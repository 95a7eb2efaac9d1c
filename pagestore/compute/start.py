"""Starts a compute: Postgres on a data directory made for this start alone.

The sequence, and why in this order:

1. *Vote*: a new term at the WAL service. From here on no earlier compute of this timeline
   can commit; the log is cut at X, the end of its last complete record.
2. *Base backup* at X from the page server, laid as it arrives.
3. *Checkpoint*: one shutdown checkpoint record at X, made durable at the WAL service under
   the new term before anything can run behind it (beside 2, as soon as the header is known).
4. *Serve*: the directory is finished, Postgres starts on it. Meanwhile the safekeeper writes down
   from whom it will pull, and is told to once Postgres listens.
5. *Ready* when Postgres accepts connections and a safekeeper streams as its synchronous
   standby: before that every commit would only wait. Nobody comes if a rival has won a higher
   term since the vote, so that is asked meanwhile.

Postgres is executed before all that, perhaps before it was known for which timeline (parked.py),
and waits (parking.py): for its settings until the base backup's header has come, then, with its
shared memory made, for its files.

Whatever fails, the process is gone, the safekeeper detached and the directory removed; the
log stays, and the line of it that matters is in the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pagestore.client.page import AsyncPageClient, Rel
from pagestore.client.walservice import WalService, Won
from pagestore.compute import page_access
from pagestore.compute.clock import Clock
from pagestore.compute.hydrating import HydratingDirectory
from pagestore.compute.limits import Limits
from pagestore.compute.parked import Parked
from pagestore.compute.places import check_reachable, spread_children, write_readable
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
    SessionLibrary,
    auto_conf,
    hba,
    ident,
    line_settings,
    pages_settings,
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
_TURNS_OF_A_CALL = 3
"""Of the event loop, until a call that was begun is with the transport: whatever blocks the loop
afterwards delays its answer and not the call."""


@dataclass(frozen=True, slots=True)
class ComputeSpec:
    """What to start, and where.

    Args:
        directory: made by the start and removed by the stop; a new name each time.
        name: the compute's, where it is not the directory's.
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
    name: str = ""
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
    spec: ComputeSpec, pages: AsyncPageClient, wal: WalService, spare: Parked | None = None
) -> RunningCompute:
    """The whole sequence; returns when commits work.

    Args:
        spare: a server that waits already, executed for the like of `spec`, which takes over its
            user and its directory.

    Raises:
        Aborted: TERM_LOST, STALE_TERM; somebody else started this timeline meanwhile.
        ServerFailed: COMPUTE_FAILED; Postgres exited. The message has the line that matters.
        DeadlineExceeded: COMPUTE_START_TIMEOUT.
        PagestoreError: what the page server or the WAL service answered.
    """
    if spare is not None:
        name, there = spec.name or spec.directory.name, spare.spec
        spec = replace(spec, name=name, directory=there.directory, uid=there.uid)
    parked = spare or Parked(spec, owner_of(spec))
    start = _Start(spec, parked)
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


def owner_of(spec: ComputeSpec) -> Owner | None:
    """The user that its server runs as; None for our own.

    Raises:
        FailedPrecondition: as :func:`pagestore.postgres.process.account` does; POSTGRES_MISSING;
            DIRECTORY_UNREACHABLE.
    """
    owner = Owner(spec.uid, spec.uid) if spec.uid is not None else account(spec.run_as)
    majors.programs(spec.bindir, spec.major)
    if not spec.walls:
        check_reachable(spec.directory.parent, owner)
    spread_children(spec.directory.parent)
    return owner


class _Start:
    """One start under way; `undo` takes back whatever it has come to."""

    def __init__(self, spec: ComputeSpec, parked: Parked) -> None:
        self.spec = spec
        self.parked = parked
        self.clock = Clock()
        self.won = Won(0, 0, 0, 0, ())
        self.data = spec.directory / "data"
        self.log = ServerLog.from_now(spec.log_path)
        self.attached = False
        self.end_lsn = 0
        self.settings = pb.ControlSettings()
        self.entry = Entry("postgres", "postgres")
        self.roles: list[str] = []
        self.remarks: tuple[str, ...] = ()

    async def run(self, pages: AsyncPageClient, wal: WalService) -> RunningCompute:
        """All steps. The vote is on its way while the server is executed."""
        spec, parked = self.spec, self.parked
        voting = asyncio.create_task(wal.win_term(spec.tenant, spec.timeline))
        for _ in range(_TURNS_OF_A_CALL):
            await asyncio.sleep(0)
        try:
            with contextlib.closing(parked):
                if not parked.begun:
                    parked.begin(page_access.authority_for(spec.page_server, pages.credentials))
                parked.dedicate(spec)
                self.won = await voting
                self.clock.mark("vote")
                async with asyncio.timeout(spec.start_timeout):
                    await self._lay(parked.tree, pages, wal)
                await self._enter()
                parked.line.go()
                return await self._serve(wal)
        finally:
            voting.cancel()
            await asyncio.gather(voting, return_exceptions=True)

    async def _enter(self) -> None:
        """Until the server is within its walls, if it has any."""
        if await self.parked.enter() is None:
            raise ServerFailed(self.log, await self.parked.exit_code())
        record = replace(
            self.parked.record,
            term=self.won.term,
            start_lsn=self.end_lsn,
            read_lsn=self.won.end_lsn,
            system_id=self.settings.system_id,
            superuser=self.entry.superuser,
            database=self.entry.database,
        )
        self.parked.keep(record)

    async def _lay(
        self, directory: HydratingDirectory, pages: AsyncPageClient, wal: WalService
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
        directory.feed(await anext(chunks))
        assert directory.header is not None
        ingested_lsn = directory.header.last_record_lsn
        if not ingested_lsn:  # a page server of before does not tell
            ingested_lsn = (await pages.get_timeline(spec.tenant, spec.timeline)).last_record_lsn
        self._check_whole(ingested_lsn)
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
        self.parked.settings(
            pages_settings(spec.tenant, spec.timeline, self.won.end_lsn)
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
        superuser, directory, group = self.entry.superuser, self.spec.directory, self.parked.group
        who = hba(superuser, self.spec.host, self.roles)
        write_readable(directory / HBA_FILE, who, group)
        whom = ident(superuser, [own_user()], self.roles)
        write_readable(directory / IDENT_FILE, whom, group)

    def _configure(self, directory: HydratingDirectory, checkpoint: StartCheckpoint) -> None:
        """What the server reads before it makes its shared memory. A slow one may not have read
        the first files yet: each state of the directory is one that it can go on from."""
        spec = self.spec
        write_control_file(directory, checkpoint)
        rule = quorum_rule(self.won.needed, self.won.standbys)
        write_readable(spec.directory / SYNCHRONOUS_FILE, synchronous_conf(rule), self.parked.group)
        quorum = OF_SEVERAL if len(self.won.standbys) > 1 else {}
        settings = {**quorum, **spec.settings}
        directory.write(
            "postgresql.conf", postgresql_conf(directory.settings, settings, spec.directory)
        )
        directory.write(AUTO_CONF, auto_conf(spec.user_settings))

    async def _serve(self, wal: WalService) -> RunningCompute:
        """Steps 4 and 5."""
        spec, parked = self.spec, self.parked
        record, server = parked.record, self._server
        self.attached = True
        address = record.signed_for_safekeepers(spec.signer)
        attached = (spec.tenant, spec.timeline, self.won.term, address, self.end_lsn)
        early = asyncio.create_task(wal.attach_compute(*attached, hold=True))
        try:
            await wait_accepting(server, self.data, self.log, spec.start_timeout)
            self.clock.mark("accepting")
            if spec.host:
                await ensure_wal_role(record.conninfo(), spec.wal_password)
        except BaseException:
            early.cancel()
            raise
        finally:
            # One that failed is tried again; it must not come behind the one that lets go.
            await asyncio.gather(early, return_exceptions=True)
        await wal.attach_compute(*attached)
        await self._wait_attached(wal)
        self.clock.mark("streaming")
        record = record.now_ready()
        parked.keep(record)
        return RunningCompute(
            spec.directory, record, server, self.clock.phases, self.remarks, spec.signer
        )

    @property
    def _server(self) -> ServerProcess:
        assert self.parked.server is not None, "it is within its walls"
        return self.parked.server

    async def _wait_attached(self, wal: WalService) -> None:
        """Until enough safekeepers are synchronous standbys."""
        server = self._server
        attached = asyncio.create_task(self.parked.line.attached())
        superseded = asyncio.create_task(self._superseded(wal))
        waits = [attached, superseded, asyncio.create_task(server.wait())]
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
        if not server.alive:
            raise ServerFailed(self.log, server.exit_code)
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
        await self.parked.end()
        if self.attached:
            with contextlib.suppress(Exception):
                await wal.detach_compute(self.spec.tenant, self.spec.timeline, self.won.term)
        await asyncio.to_thread(self.parked.remove)


def _committed(directory: HydratingDirectory, xid: int) -> bool:
    path, offset = slru.page_position(slru.XACT, slru.page_of(slru.XACT, xid))
    position = offset + xid % slru.XACTS_PER_PAGE // 4
    status = (directory.read(path) or b"")[position : position + 1]
    return bool(status) and status[0] >> xid % 4 * 2 & 3 == 1
