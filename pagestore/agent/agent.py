"""The computes of one host: started, watched, stopped, and taken up again after a restart.

Neither the agent's death nor the control plane's ends a Postgres. Each compute's directory has a
record (:mod:`pagestore.compute.record`), by which the next agent finds it. One that has ended
stays in the list, with its directory, until the control plane has read what it left and discards
it: so an agent that dies between two words of a stop loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from pagestore import tasks
from pagestore.agent import owner, upgrade
from pagestore.agent.answering import AnswerWatch
from pagestore.agent.disk import DiskWatch
from pagestore.agent.generations import Generations
from pagestore.agent.place import (
    check_name,
    install,
    is_compute,
    log_of,
    spare_log_of,
    spare_name,
)
from pagestore.agent.ports import at_a_port
from pagestore.agent.spare import Spare
from pagestore.agent.users import Users
from pagestore.agent.watched import WatchedCompute
from pagestore.client.page import AsyncPageClient
from pagestore.client.walservice import WalService
from pagestore.compute import page_access, removal
from pagestore.compute.leftovers import adopt, clear, clear_version_1, ended, resume_removal
from pagestore.compute.limits import Limits
from pagestore.compute.record import ComputeRecord
from pagestore.compute.running import RunningCompute, StopResult
from pagestore.compute.start import ComputeSpec, start_compute
from pagestore.errors import AlreadyExists, NotFound
from pagestore.ids import TenantId, TimelineId
from pagestore.measures import Durations
from pagestore.oracle.scratch import remove_abandoned
from pagestore.pgformat import versions
from pagestore.postgres import majors
from pagestore.postgres.datadir import Owner
from pagestore.postgres.process import account
from pagestore.postgres.settings import SOCKET_PORT, SessionLibrary
from pagestore.tokens import Signer

NOBODYS_TENANT, NOBODYS_TIMELINE = TenantId(bytes(16)), TimelineId(bytes(16))
SESSION_LIBRARY = majors.library("session")
"""Lies beside the shim."""
MEASURE_SECONDS = 15.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What all computes of a host have in common.

    Args:
        directory: of their directories.
        bindir: where Postgres's programs are; with ``{major}`` in it, where each one's are.
        shim_library: likewise; the other modules lie beside it.
        run_as: the user that Postgres runs as; None for our own.
        settings: for each postgresql.conf.
        host: an address at which other hosts reach the computes; empty for none.
        signer: makes the tokens that open their timelines' pages to them.
        walls: whether computes run within walls.
        page_socket: where they read pages, without the machine's network; None where they have it.
        limits: what each may take there.
        uids: users of which each compute has one of its own there; None where we are not root.
    """

    directory: Path
    bindir: Path
    shim_library: Path
    run_as: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    signer: Signer | None = field(default=None, repr=False)
    walls: bool = False
    page_socket: Path | None = None
    limits: Limits | None = None
    uids: range | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A compute to start. See compute.proto."""

    name: str
    tenant: TenantId
    timeline: TimelineId
    owner: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    user_settings: Mapping[str, str] = field(default_factory=dict)
    wal_password: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    session_key: str = field(default="", repr=False)
    major: int = versions.OLDEST.major


class Agent:
    """Belongs to one event loop; :meth:`adopt` comes first."""

    def __init__(
        self,
        host: HostSettings,
        pages: AsyncPageClient,
        wal: WalService,
        generations: Generations | None = None,
    ) -> None:
        self.host = host
        self.computes: dict[str, WatchedCompute] = {}
        self.generations = generations or Generations()
        self._pages, self._wal = pages, wal
        self.phases: defaultdict[str, Durations] = defaultdict(Durations)
        """Of starts, by what took so long."""
        self._starting: set[str] = set()
        self._watching: list[asyncio.Task[None]] = []
        self._users = Users(host.uids, host.directory) if host.uids else None
        self._change = asyncio.Event()
        self._spare: Spare | None = None
        if not host.host:
            address = f"unix:{host.page_socket}" if host.page_socket else pages.address
            authority = page_access.authority_for(address, pages.credentials)
            self._spare = Spare(self._spec_of_spare, authority)
        (host.directory / "logs").mkdir(mode=0o700, exist_ok=True)

    @property
    def page_server(self) -> str:
        """Its address."""
        return self._pages.address

    async def adopt(self) -> None:
        """Takes up what an earlier agent has left: what runs, and what can still be read of what
        has ended; ends and removes the rest."""
        for directory in sorted(self.host.directory.iterdir()):
            if not is_compute(removal.original_name(directory)):
                continue
            if removal.is_aside(directory):
                resume_removal(directory)
            elif ComputeRecord.load(directory) is None:
                await clear_version_1(directory)
            elif found := self._found(directory):
                self._take(found)
            else:
                await clear(directory)
        await asyncio.to_thread(remove_abandoned, upgrade.KIND, self.host.directory, None)
        if (limits := self.host.limits) is not None:
            for hierarchy in limits.hierarchies:
                hierarchy.sweep()
            watch = DiskWatch(self.host.directory, limits.disk_bytes)
            self._watching.append(tasks.endless(watch.run(self.computes.values), "watch disk"))
        answering = AnswerWatch().run(self.computes.values)
        self._watching.append(tasks.endless(answering, "watch whether computes answer"))
        self._watching.append(tasks.endless(self._measure_for_ever(), "measure computes"))

    def _found(self, directory: Path) -> RunningCompute | None:
        found = adopt(directory, self.host.signer)
        if found is not None and not self._is_reached(found.record):
            found.release()
            return None
        return found or ended(directory)

    def _is_reached(self, record: ComputeRecord) -> bool:
        """Not, if safekeepers on other hosts would have to come in clear, as once they did."""
        return record.host == self.host.host and bool(record.certificate) == bool(record.host)

    async def start(self, wanted: Wanted) -> WatchedCompute:
        """Returns when commits work.

        Raises:
            AlreadyExists: COMPUTE_EXISTS.
            PagestoreError: as :func:`pagestore.compute.start.start_compute` does.
        """
        name = check_name(wanted.name)
        if name in self.computes or name in self._starting:
            raise AlreadyExists("COMPUTE_EXISTS", f"There is a compute {name} already.")
        self._starting.add(name)

        def begin(port: int) -> Awaitable[RunningCompute]:
            spec = self._spec(wanted, port)
            spare = self._spare.take(spec) if self._spare is not None else None
            return start_compute(spec, self._pages, self._wal, spare)

        try:
            compute = self._take(await at_a_port(self.host.host, begin))
        finally:
            self._starting.discard(name)
        for phase, seconds in compute.running.phases.items():
            self.phases[phase].add(seconds)
        if self._spare is not None:
            self._spare.prepare(wanted.major)
        if wanted.password:
            try:
                await owner.keep_password(compute.running.conninfo(), wanted.password)
            except BaseException:
                await asyncio.shield(self.discard(name))
                raise
        return compute

    async def stop(self, name: str) -> StopResult:
        """
        Raises:
            NotFound: COMPUTE_NOT_FOUND.
            PagestoreError: as :meth:`pagestore.compute.running.RunningCompute.shut_down` does.
        """
        compute = self.known(name)
        async with compute.lock:
            return await compute.shut_down()

    async def discard(self, name: str) -> None:
        """Ends one if it runs, and removes its directory; nothing where there is none."""
        compute = self.computes.get(name)
        if compute is None:
            return
        async with compute.lock:
            if self.computes.get(name) is not compute:
                return
            await compute.discard()
            del self.computes[name]
        self._tell()

    def known(self, name: str) -> WatchedCompute:
        """
        Raises:
            NotFound: COMPUTE_NOT_FOUND.
        """
        compute = self.computes.get(name)
        if compute is None:
            raise NotFound("COMPUTE_NOT_FOUND", f"There is no compute {name[:40]!r} here.")
        return compute

    async def upgrade(self, wanted: upgrade.Wanted, told: upgrade.Told) -> upgrade.Upgraded:
        """A timeline through pg_upgrade, to a new root at the page server.

        Raises:
            PagestoreError: as :func:`pagestore.agent.upgrade.upgrade_timeline` does;
                MODULES_MISSING.
        """
        host = self.host
        for library in (host.shim_library, host.shim_library.with_name(SESSION_LIBRARY)):
            majors.missing_library(library, wanted.to.major)
        uid = self._users.take() if self._users is not None else None
        place = upgrade.Place(
            parent=host.directory,
            before=majors.programs(host.bindir, wanted.version.major),
            programs=majors.programs(host.bindir, wanted.to.major),
            owner=Owner(uid, uid) if uid is not None else account(host.run_as),
            nameless=uid is not None,
            walls=host.walls,
            limits=host.limits,
        )
        return await upgrade.upgrade_timeline(self._pages, place, wanted, told)

    def forget(self, timeline: TimelineId) -> None:
        log_of(self.host.directory, timeline).unlink(missing_ok=True)

    async def changed(self, seconds: float) -> None:
        """Until something has changed, or for so long."""
        change = self._change
        try:
            async with asyncio.timeout(seconds):
                await change.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """Lets the computes go on."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self._spare is not None:
            await self._spare.close()
        await asyncio.gather(*(compute.close() for compute in self.computes.values()))
        if self.host.limits is not None:
            for hierarchy in self.host.limits.hierarchies:
                hierarchy.leave()

    async def _measure_for_ever(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            for compute in [*self.computes.values()]:
                await compute.measure()
            self._tell()

    def _take(self, running: RunningCompute) -> WatchedCompute:
        compute = WatchedCompute(running, self._pages, self._wal, self._tell)
        self.computes[compute.name] = compute
        self._tell()
        return compute

    def _tell(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    def _spec(self, wanted: Wanted, port: int) -> ComputeSpec:
        host, key = self.host, wanted.session_key
        socket = host.page_socket
        session = host.shim_library.with_name(SESSION_LIBRARY)
        return ComputeSpec(
            tenant=wanted.tenant,
            timeline=wanted.timeline,
            directory=host.directory / wanted.name,
            port=port,
            page_server=f"unix:{socket}" if socket is not None else self._pages.address,
            network=socket is None,
            run_as=host.run_as,
            bindir=host.bindir,
            major=wanted.major,
            shim_library=self._installed(host.shim_library, wanted.major),
            settings=host.settings,
            log=log_of(host.directory, wanted.timeline),
            files=wanted.files,
            user_settings=wanted.user_settings,
            owner=wanted.owner,
            host=host.host,
            wal_password=wanted.wal_password if host.host else "",
            session=SessionLibrary(self._installed(session, wanted.major), key) if key else None,
            signer=host.signer,
            walls=host.walls,
            limits=host.limits,
            uid=self._users.take() if self._users is not None else None,
        )

    def _spec_of_spare(self, major: int) -> ComputeSpec:
        nobody = Wanted(
            spare_name(), NOBODYS_TENANT, NOBODYS_TIMELINE, session_key="-", major=major
        )
        spec = self._spec(nobody, SOCKET_PORT)
        return replace(spec, log=spare_log_of(self.host.directory))

    def _installed(self, library: Path, major: int) -> Path:
        """
        Raises:
            FailedPrecondition: POSTGRES_MISSING, MODULES_MISSING.
        """
        majors.programs(self.host.bindir, major)
        majors.missing_library(library, major)
        return install(majors.place(library, major), self.host.directory / "lib")
