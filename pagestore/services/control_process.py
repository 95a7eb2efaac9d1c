"""The control plane's process.

Serves once the template exists, so that "serving" means that ``create`` works. Computes go on
running when this process ends, however it ends; the next one adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import structlog

from pagestore import tasks
from pagestore.client.computes import ComputeClient
from pagestore.client.naming import NameClient
from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.control import operator_key
from pagestore.control.archive import Archive
from pagestore.control.computes import Computes
from pagestore.control.keeping import Keeping
from pagestore.control.launcher import GENERATIONS, AgentLauncher
from pagestore.control.logs import Logs, doubt_unmade
from pagestore.control.membership import Membership, Progress, generations
from pagestore.control.metering import Metering, note_costs
from pagestore.control.naming import Naming
from pagestore.control.operator_key import OperatorKey
from pagestore.control.plane import ControlPlane
from pagestore.control.session_keys import SessionKeys
from pagestore.control.sessions import Sessions, proxied
from pagestore.control.state import ControlState
from pagestore.control.template import Templates
from pagestore.control.tenants import Tenants
from pagestore.control.timelines import Timelines
from pagestore.control.turns import Turns
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.majors import Installed
from pagestore.quorum.client import QuorumClient
from pagestore.quorum.service import wal_service
from pagestore.services.app_roles import RoleService
from pagestore.services.census import take_census_in_time
from pagestore.services.control import ControlService, ControlSettings
from pagestore.services.guard import SigningKey
from pagestore.services.part_metrics import of_control, of_objects
from pagestore.services.places import PlaceService
from pagestore.services.server import GrpcServer, configure_logging
from pagestore.services.tenants import TenantService
from pagestore.services.usage import UsageService
from pagestore.tokens import Signer
from pagestore.v1 import control_pb2 as pb
from pagestore.v1 import proxy_pb2, role_pb2, tenant_pb2, usage_pb2

COLLECT_SECONDS = 60.0
FIRST_CONTACT_SECONDS = 120.0

_log = structlog.get_logger(__name__)


async def _collect_for_ever(plane: ControlPlane) -> None:
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        try:
            await plane.collect()
        except (PagestoreError, OSError) as error:
            _log.warning("timelines are left to delete", error=str(error))


async def serve(settings: ControlSettings) -> None:
    """Runs the service until SIGTERM; computes stay."""
    configure_logging()
    guard, identity = settings.secure()
    signer = SigningKey.of_setting(settings.signing_key)
    with ControlState(settings.data_dir) as state:
        key_file = settings.operator_key or settings.data_dir / "operator-key"
        key = operator_key.settle(state, key_file)
        if state.accepted:
            doubt_unmade(state)
        pages = AsyncPageClient(settings.page_server)
        wal = wal_service(settings.wal_services, generations(state))
        agent = ComputeClient(settings.compute_agent)
        async with pages, wal, agent, proxied(settings.proxy) as sessions:
            archive = await _archive(settings, state)
            await take_census_in_time(settings.page_server, state, key)
            await _ensure_template(settings, state)
            server = GrpcServer(guard, identity)
            await _serve(settings, state, pages, wal, agent, key, server, signer, sessions, archive)


async def _archive(settings: ControlSettings, state: ControlState) -> Archive | None:
    if settings.objects is None:
        return None
    archive = Archive(state, settings.objects, os.environ)
    await archive.begin()
    return archive


async def _ensure_template(settings: ControlSettings, state: ControlState) -> None:
    """Patiently: the other parts may start after this one."""
    pages = AsyncPageClient(settings.page_server, timeout=FIRST_CONTACT_SECONDS)
    agent = ComputeClient(settings.compute_agent, timeout=FIRST_CONTACT_SECONDS)
    safekeepers = settings.wal_services
    wal = wal_service(safekeepers, generations(state), timeout=FIRST_CONTACT_SECONDS)
    async with pages, agent, wal:
        turns = Turns()
        timelines = Timelines(state, pages, Logs(state, wal), turns)
        try:
            templates = Templates(state, timelines, agent, wal, Installed(settings.postgres_bindir))
            await templates.of(DEFAULT_TENANT, 0)
        finally:
            await turns.close()


def _major(state: ControlState, timeline: TimelineId) -> int:
    return state.view().known_timeline(timeline).major


async def _serve(
    settings: ControlSettings,
    state: ControlState,
    pages: AsyncPageClient,
    wal: WalClient | QuorumClient,
    agent: ComputeClient,
    key: OperatorKey,
    server: GrpcServer,
    signer: Signer,
    sessions: Sessions,
    archive: Archive | None,
) -> None:
    session_keys = SessionKeys.of_directory(settings.data_dir)
    launcher = AgentLauncher(
        agent, generations(state, GENERATIONS), key, session_keys, lambda t: _major(state, t)
    )
    tenants = Tenants(state, pages)
    metering = Metering(state)
    computes = Computes(launcher, Keeping(state), tenants, metering)
    plane = ControlPlane(
        *(state, pages, wal, computes, key, tenants),
        agent=agent,
        installed=Installed(settings.postgres_bindir),
        sessions=sessions,
        on_delete=launcher.forget,
    )

    async def refresh() -> None:
        with contextlib.suppress(PagestoreError):  # what was told last holds
            await launcher.measure()
        computes.note_costs()

    server.metrics.add(of_control(plane))
    server.metrics.add(of_objects(lambda: archive.status() if archive is not None else None))
    parts = (settings.page_server, settings.compute_agent, *settings.wal_services.values())
    name_clients = [NameClient(address) for address in parts]
    naming = Naming(state, name_clients)
    await plane.recover()
    descriptor = pb.DESCRIPTOR.services_by_name["ControlService"]
    members, numbers = Progress(settled=True), frozenset(settings.wal_services)
    background: list[asyncio.Task[None]] = [
        tasks.endless(_collect_for_ever(plane), "collect"),
        tasks.endless(note_costs(computes, metering), "note costs"),
        tasks.endless(naming.run(), "tell names"),
    ]
    if archive is not None:
        background.append(tasks.endless(archive.run(), "archive the state"))
    if isinstance(wal, QuorumClient):
        membership = Membership(state, wal, computes, numbers, plane.logs)
        members = membership.progress
        background.append(tasks.errand(membership.run(), "membership"))
    service = ControlService(plane, pages, settings, members, key, archive)
    server.add_service(descriptor, service)
    places = proxy_pb2.DESCRIPTOR.services_by_name["PlaceService"]
    server.add_service(places, PlaceService(plane.places, metering))
    usage = usage_pb2.DESCRIPTOR.services_by_name["UsageService"]
    server.add_service(usage, UsageService(state, metering.usage, refresh))
    tenant_service = tenant_pb2.DESCRIPTOR.services_by_name["TenantService"]
    server.add_service(tenant_service, TenantService(plane, signer.of_tenant))
    role_service = role_pb2.DESCRIPTOR.services_by_name["RoleService"]
    roles = RoleService(plane.app_roles, service.tenant, service.bare_url)
    server.add_service(role_service, roles)
    try:
        await server.start(settings.listen, settings.data_dir)
        await server.run_until_signal()
    finally:
        for task in background:
            task.cancel()
        await plane.close()
        await launcher.close()
        for client in name_clients:
            await client.close()
        if archive is not None:
            await archive.finish()
