"""ComputeService: the agent of one host behind gRPC. See proto/pagestore/v1/compute.proto.

Serves as soon as it has taken up what an earlier agent left; other parts may come later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from pydantic import Field

from pagestore import durable, locks, tasks
from pagestore.agent import owner, upgrade
from pagestore.agent.agent import Agent, HostSettings, Wanted
from pagestore.agent.alter_system import after_restart, alter_system
from pagestore.agent.app_roles import Apps
from pagestore.agent.generations import Generations
from pagestore.agent.leases import ReadLeases
from pagestore.agent.place import make_compute_dir
from pagestore.agent.strangers import strangers
from pagestore.agent.template import Postgres, make_template
from pagestore.agent.users import DEFAULT_UIDS, range_of_uids
from pagestore.agent.watched import WatchedCompute
from pagestore.client.page import AsyncPageClient
from pagestore.compute import page_access, walls
from pagestore.compute.cgroups import Bounds, hierarchies
from pagestore.compute.limits import DEFAULT_PROCESSES, Limits, default_disk, default_memory
from pagestore.compute.running import CARRIED
from pagestore.compute.walls import BUBBLEWRAP
from pagestore.errors import FailedPrecondition, InvalidInput, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import versions
from pagestore.postgres import majors
from pagestore.postgres.listening import check_compute_host
from pagestore.postgres.operator_session import operator_session
from pagestore.postgres.server_log import ServerFailed
from pagestore.quorum.service import wal_service
from pagestore.services.guard import SigningKey
from pagestore.services.part_metrics import of_agent
from pagestore.services.progress import Followed
from pagestore.services.secured import Secured
from pagestore.services.server import GrpcServer, configure_logging
from pagestore.v1 import compute_pb2 as pb
from pagestore.walservice.messages import MAX_GENERATION

LOOK_SECONDS = 1.0
"""How often it is looked for complaints that have come or gone."""
FIRST_CONTACT_SECONDS = 120.0
WALLS_FILE = "walls.json"
MAX_GRANT = 1024

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class ComputeSettings(Secured):
    listen: str = "127.0.0.1:0"
    data_dir: Path
    page_server: str
    wal_services: dict[int, str]
    """The safekeepers' addresses by their numbers."""
    compute_dir: Path
    """Where computes' directories are made: reachable by `run_as`."""
    run_as: str | None = None
    postgres_bindir: Path = majors.BINDIR
    """With ``{major}`` in it, where each one's programs are; so `shim_library`."""
    shim_library: Path
    postgres_settings: dict[str, str] = Field(default_factory=dict)
    """For every compute's postgresql.conf, over the defaults."""
    compute_host: str = ""
    """An address of this machine at which other hosts reach the computes; empty for none."""
    walls: str = Field(BUBBLEWRAP, pattern="^(bubblewrap|none)$")
    uids: str | None = None
    """First and last of the users that computes run as under root, each as one of its own."""
    page_socket: Path | None = None
    """The page server's Unix socket: computes within walls use it, and have no network. Without
    it they have this machine's."""
    memory_bytes: int | None = Field(None, ge=256 << 20)
    """What each compute may take within its walls; by default a quarter of the machine's."""
    processes: int = Field(DEFAULT_PROCESSES, ge=64)
    cpus: float | None = Field(None, gt=0)
    """In cores; by default computes share them all, each as much as any other."""
    disk_bytes: int | None = Field(None, ge=64 << 20)
    """Of local disk; by default half of the file system that computes are on."""
    signing_key: Path | None = None
    """The file of the key that signs computes' tokens; the one in the environment if not given."""


class ComputeService:
    """The methods of ComputeService, in snake_case, over an Agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def start_compute(
        self, request: pb.StartComputeRequest, _: Any
    ) -> pb.StartComputeResponse:
        if strange := request.carried.files.keys() - set(CARRIED):
            raise InvalidInput("INVALID_FILE", f"{min(strange)[:80]!r} is nothing that is kept.")
        wanted = Wanted(
            name=request.name,
            tenant=TenantId(request.tenant_id),
            timeline=TimelineId(request.timeline_id),
            owner=request.owner,
            files=dict(request.carried.files),
            user_settings=dict(request.carried.settings),
            wal_password=request.wal_password,
            password=request.password,
            session_key=request.session_key,
            major=request.postgres_major or versions.OLDEST.major,
        )
        try:
            compute = await _reaching(self._agent.start(wanted))
        except ServerFailed as error:
            return pb.StartComputeResponse(failure=_failure(error))
        return pb.StartComputeResponse(compute=_described(compute))

    async def stop_compute(self, request: pb.StopComputeRequest, _: Any) -> pb.StopComputeResponse:
        result = await self._agent.stop(request.name)
        known = result.user_settings is not None
        carried = pb.CarriedFiles(
            files=result.files, settings=result.user_settings or {}, settings_known=known
        )
        cost = _measured(self._agent.known(request.name))
        return pb.StopComputeResponse(carried=carried, measured=cost)

    async def discard_compute(
        self, request: pb.DiscardComputeRequest, _: Any
    ) -> pb.DiscardComputeResponse:
        await asyncio.shield(self._agent.discard(request.name))
        return pb.DiscardComputeResponse()

    async def watch_computes(
        self, request: pb.WatchComputesRequest, _: Any
    ) -> AsyncIterator[pb.ComputesUpdate]:
        told: dict[str, pb.Compute] = {}
        wants, whole = 0, True
        while True:
            now = {name: _described(item) for name, item in self._agent.computes.items()}
            changed = [item for name, item in now.items() if told.get(name) != item]
            changed += [pb.Compute(name=name, gone=True) for name in told.keys() - now.keys()]
            numbers = self._agent.generations
            if whole or changed or numbers.wants != wants:
                above = numbers.wanted_above
                yield pb.ComputesUpdate(whole=whole, computes=changed, generations_above=above)
            told, wants, whole = now, numbers.wants, False
            await self._agent.changed(LOOK_SECONDS)

    async def measure_computes(
        self, request: pb.MeasureComputesRequest, _: Any
    ) -> pb.ComputesUpdate:
        computes = [*self._agent.computes.values()]
        for compute in computes:
            await compute.measure()
        return pb.ComputesUpdate(computes=[_described(item) for item in computes if item.alive])

    async def get_compute_settings(
        self, request: pb.GetComputeSettingsRequest, _: Any
    ) -> pb.ComputeSettings:
        return await _settings(self._agent.known(request.name))

    async def change_compute_settings(
        self, request: pb.ChangeComputeSettingsRequest, _: Any
    ) -> pb.ComputeSettings:
        """Without any change: what takes effect only at the next start, besides the settings."""
        compute = self._agent.known(request.name)
        async with await _reaching(compute.entering.reached(operator_session)) as session:
            if request.set or request.reset:
                await alter_system(session, request.set, request.reset)
            answer = await _settings(compute)
            answer.after_restart.extend(await after_restart(session))
        return answer

    async def set_owner(self, request: pb.SetOwnerRequest, _: Any) -> pb.SetOwnerResponse:
        conninfo = await self._conninfo(request.name)
        if request.rename_spare:
            await _reaching(owner.make_ready(conninfo, request.password, request.database))
            return pb.SetOwnerResponse(database=request.database)
        taking = owner.take_over(
            conninfo, request.password, request.database, strictly=request.strictly
        )
        return pb.SetOwnerResponse(database=await _reaching(taking))

    async def get_entry(self, request: pb.GetEntryRequest, _: Any) -> pb.Entry:
        compute = self._agent.known(request.name)
        try:
            async with await compute.entering.reached(operator_session) as session:
                fault = await owner.url_fault(
                    session, request.database_name, request.password, request.database
                )
                names = await owner.databases(session, templates=True)
        except psycopg.Error as error:
            fault = f"pagestore itself cannot log in: {str(error).strip()}"
            return pb.Entry(url_fault=fault, conninfo=compute.running.conninfo())
        conninfo = compute.running.conninfo()
        inner = request.database if request.database in names else names[0]
        return pb.Entry(url_fault=fault, conninfo=make_conninfo(conninfo, dbname=inner))

    async def count_strangers(
        self, request: pb.CountStrangersRequest, _: Any
    ) -> pb.CountStrangersResponse:
        counting = strangers(await self._conninfo(request.name))
        return pb.CountStrangersResponse(sessions=await _reaching(counting))

    async def add_app_role(self, request: pb.AppRoleRequest, _: Any) -> pb.AppRolesResponse:
        await (await self._apps(request)).add(request.role, request.password)
        return pb.AppRolesResponse(changed=True)

    async def reset_app_role(self, request: pb.AppRoleRequest, _: Any) -> pb.AppRolesResponse:
        await (await self._apps(request)).reset(request.role, request.password)
        return pb.AppRolesResponse(changed=True)

    async def list_app_roles(self, request: pb.AppRoleRequest, _: Any) -> pb.AppRolesResponse:
        answer = pb.AppRolesResponse()
        for name, owns_schema, may_log_in, tables in await (await self._apps(request)).listed():
            answer.roles.add(
                name=name, owns_schema=owns_schema, may_log_in=may_log_in, tables=tables
            )
        return answer

    async def remove_app_role(self, request: pb.AppRoleRequest, _: Any) -> pb.AppRolesResponse:
        changed = await (await self._apps(request)).remove(
            request.role, with_data=request.with_data, if_exists=request.if_exists
        )
        return pb.AppRolesResponse(changed=changed)

    async def _apps(self, request: pb.AppRoleRequest) -> Apps:
        conninfo = await self._conninfo(request.name)
        return Apps(conninfo, request.database_name, request.database)

    async def _conninfo(self, name: str) -> str:
        return await _reaching(self._agent.known(name).entering.conninfo())

    async def make_template(
        self, request: pb.MakeTemplateRequest, _: Any
    ) -> pb.MakeTemplateResponse:
        host = self._agent.host
        version = versions.of_major(request.postgres_major or versions.OLDEST.major)
        programs = majors.programs(host.bindir, version.major)
        majors.missing_library(host.shim_library, version.major)
        postgres = Postgres(programs, host.run_as, host.directory, host.walls)
        tenant, timeline = TenantId(request.tenant_id), TimelineId(request.timeline_id)
        address = self._agent.page_server
        async with AsyncPageClient(address, timeout=FIRST_CONTACT_SECONDS) as pages:
            made = await make_template(pages, postgres, tenant, timeline, version)
        return pb.MakeTemplateResponse(
            lsn=made.lsn, prev_record_lsn=made.prev_record_lsn, system_id=made.system_id
        )

    async def upgrade_timeline(
        self, request: pb.UpgradeTimelineRequest, _: Any
    ) -> AsyncIterator[pb.UpgradeTimelineUpdate]:
        new = request.new_timeline_id
        wanted = upgrade.Wanted(
            TenantId(request.tenant_id),
            TimelineId(request.timeline_id),
            request.lsn,
            request.prev_record_lsn,
            versions.of_major(request.postgres_major),
            versions.of_major(request.to_major),
            TimelineId(new) if new else None,
        )
        followed: Followed[upgrade.Upgraded] = Followed()
        work = self._agent.upgrade(wanted, followed.told)
        async for step in followed.steps(work):
            yield pb.UpgradeTimelineUpdate(step=step.words, done=step.done, total=step.total)
        done = followed.result()
        made = done.imported
        upgraded = pb.UpgradedTimeline(
            lsn=made.lsn,
            prev_record_lsn=made.prev_record_lsn,
            system_id=made.system_id,
            remarks=done.remarks,
        )
        yield pb.UpgradeTimelineUpdate(upgraded=upgraded)

    async def forget_timeline(
        self, request: pb.ForgetTimelineRequest, _: Any
    ) -> pb.ForgetTimelineResponse:
        self._agent.forget(TimelineId(request.timeline_id))
        return pb.ForgetTimelineResponse()

    async def grant_generations(
        self, request: pb.GrantGenerationsRequest, _: Any
    ) -> pb.GrantGenerationsResponse:
        first, count = request.first, request.count
        if not (0 < first < MAX_GENERATION and 0 < count <= MAX_GRANT):
            raise InvalidInput("INVALID_GENERATION", f"{count} numbers from {first} on are none.")
        self._agent.generations.grant(first, count)
        return pb.GrantGenerationsResponse()


async def _reaching(work: Awaitable[_T]) -> _T:
    """
    Raises:
        Unavailable: COMPUTE_UNREACHABLE.
    """
    try:
        return await work
    except psycopg.Error as error:
        raise Unavailable(
            "COMPUTE_UNREACHABLE",
            f"pagestore cannot log in to a Postgres of its own: {str(error).strip()}",
            "A new start looks for a superuser anew: `pagestore stop NAME`, then "
            "`pagestore start NAME`.",
        ) from error


async def _settings(compute: WatchedCompute) -> pb.ComputeSettings:
    found = await asyncio.to_thread(compute.user_settings)
    return pb.ComputeSettings(settings=found or {}, known=found is not None)


def _described(compute: WatchedCompute) -> pb.Compute:
    running = compute.running
    record = running.record
    return pb.Compute(
        name=compute.name,
        tenant_id=record.tenant.raw,
        timeline_id=record.timeline.raw,
        port=record.port,
        host=record.host,
        alive=compute.alive,
        why=compute.why,
        fenced=compute.fenced,
        complaint=compute.complaint,
        remarks=running.remarks,
        socket_directory=record.socket_directory,
        directory=str(running.directory),
        pid=record.pid,
        measured=_measured(compute),
    )


def _measured(compute: WatchedCompute) -> pb.Measured:
    found = compute.measured
    return pb.Measured(
        started_unix_micros=found.started, until_unix_micros=found.until, cpu_micros=found.cpu
    )


def _failure(error: ServerFailed) -> pb.StartFailure:
    return pb.StartFailure(
        message=error.message,
        hint=error.hint or "",
        complaint=error.complaint,
        status=error.status or 0,
        status_known=error.status is not None,
    )


def _limits(settings: ComputeSettings) -> Limits:
    bounds = Bounds(
        settings.memory_bytes or default_memory(), settings.processes, settings.cpus or 0.0
    )
    disk = settings.disk_bytes or default_disk(settings.compute_dir)
    return Limits(bounds, disk, tuple(hierarchies(settings.compute_dir)))


def _tell_walls(path: Path, host: HostSettings) -> None:
    """What stands around computes, for `pagestore status`."""
    names = (
        walls.names(own_user=host.uids is not None, network=host.page_socket is None)
        if host.walls
        else []
    )
    names += host.limits.names() if host.limits is not None else []
    with contextlib.suppress(OSError):  # a full disk hinders no compute
        durable.replace(path, json.dumps({"walls": names}).encode())


async def serve(settings: ComputeSettings) -> None:
    """Runs the agent until SIGTERM; computes stay.

    Raises:
        FailedPrecondition: DATA_DIR_IN_USE, COMPUTE_DIR_NOT_OURS, COMPUTE_HOST_NOT_OURS,
            WALLS_FORBIDDEN.
        InvalidInput: INVALID_UIDS.
    """
    configure_logging()
    guard, identity = settings.secure()
    signer = SigningKey.of_setting(settings.signing_key)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if locks.take(settings.data_dir / "lock") is None:
        raise FailedPrecondition("DATA_DIR_IN_USE", f"Another agent runs on {settings.data_dir}.")
    make_compute_dir(settings.compute_dir, settings.run_as)
    if settings.listen.startswith("unix:"):
        socket = Path(unquote(settings.listen.removeprefix("unix:")))
        socket.parent.mkdir(mode=0o700, exist_ok=True)
    if settings.compute_host:
        check_compute_host(settings.compute_host)
    uids = range_of_uids(settings.uids or DEFAULT_UIDS)
    limits = None
    if is_walled := settings.walls == BUBBLEWRAP:
        walls.check(uids[0], network=settings.page_socket is None)
        limits = _limits(settings)
    host = HostSettings(
        directory=settings.compute_dir,
        bindir=settings.postgres_bindir,
        shim_library=settings.shim_library,
        run_as=settings.run_as,
        settings=settings.postgres_settings,
        host=settings.compute_host,
        signer=signer,
        walls=is_walled,
        limits=limits,
        page_socket=settings.page_socket if is_walled else None,
        uids=uids if is_walled and os.geteuid() == 0 else None,
    )
    pages = AsyncPageClient(settings.page_server)
    generations = Generations()
    wal = wal_service(settings.wal_services, generations.take)
    _tell_walls(settings.data_dir / WALLS_FILE, host)
    async with pages, wal:
        agent = Agent(host, pages, wal, generations)
        await agent.adopt()
        server = GrpcServer(guard, identity)
        server.metrics.add(of_agent(agent))
        server.add_service(pb.DESCRIPTOR.services_by_name["ComputeService"], ComputeService(agent))
        renewing = page_access.renew_for_ever(settings.compute_dir, signer)
        leases = ReadLeases(pages, agent.computes.values)
        background = [
            tasks.endless(renewing, "renew tokens"),
            tasks.endless(leases.run(), "lease what computes read"),
        ]
        try:
            await server.start(settings.listen, settings.data_dir)
            await server.run_until_signal()
        finally:
            for task in background:
                task.cancel()
            await agent.close()
