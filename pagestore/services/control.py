"""The methods of the control plane's gRPC service. Its process is control_process.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pagestore.client.page import AsyncPageClient
from pagestore.control import credentials
from pagestore.control.archive import Archive
from pagestore.control.compute import Place
from pagestore.control.computes import ComputeState
from pagestore.control.membership import Progress
from pagestore.control.moves import Moved
from pagestore.control.operator_key import OperatorKey
from pagestore.control.places import idle_of
from pagestore.control.plane import ControlPlane
from pagestore.control.records import DatabaseRecord
from pagestore.control.retention import checked
from pagestore.control.watching import Gone, Seen, Whole, watch_databases
from pagestore.errors import InvalidInput
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.postgres import majors
from pagestore.services import control_messages as messages
from pagestore.services import paging
from pagestore.services.progress import Followed
from pagestore.services.secured import Secured
from pagestore.services.sizes import SizesOfPages
from pagestore.v1 import control_pb2 as pb

_STATES = {
    ComputeState.STOPPED: pb.COMPUTE_STATE_STOPPED,
    ComputeState.STARTING: pb.COMPUTE_STATE_STARTING,
    ComputeState.RUNNING: pb.COMPUTE_STATE_RUNNING,
    ComputeState.STOPPING: pb.COMPUTE_STATE_STOPPING,
    ComputeState.FAILED: pb.COMPUTE_STATE_FAILED,
}


class ControlSettings(Secured):
    listen: str = "127.0.0.1:0"
    data_dir: Path
    operator_key: Path | None = None
    """The file that holds it; None for one in `data_dir`."""
    objects: str | None = None
    """URL of the object store; None without one."""
    page_server: str
    wal_services: dict[int, str]
    """The safekeepers' addresses by their numbers."""
    compute_agent: str
    """The address of the agent that runs computes."""
    postgres_bindir: Path = majors.BINDIR
    """Beside each major's programs are the libraries that settings may name."""
    address: str = ""
    """Where clients connect: the proxy's, as URLs say it; empty where there is none."""
    proxy: str = ""
    """Where the proxy is told what is about to happen to a database; empty for none."""
    signing_key: Path | None = None
    """The file of the key that signs tenants' tokens; the one in the environment if not given."""


class ControlService:
    """The methods of ControlService, over a ControlPlane."""

    def __init__(
        self,
        plane: ControlPlane,
        pages: AsyncPageClient,
        settings: ControlSettings,
        members: Progress,
        key: OperatorKey,
        archive: Archive | None = None,
    ) -> None:
        self._plane = plane
        self._pages = pages
        self._settings = settings
        self._members = members
        self._key = key
        self._archive = archive
        self._sizes = SizesOfPages(pages)

    async def create_database(self, request: pb.CreateDatabaseRequest, _: Any) -> pb.Database:
        record, created = await self._plane.databases.create(
            self.tenant(request),
            request.name,
            if_not_exists=request.if_not_exists,
            settings=self._plane.own_settings.checked(request.settings, request.postgres_major),
            major=request.postgres_major,
            expires_micros=messages.expiry(request),
        )
        return await self._database(record, created=created, reveal=True)

    async def branch_database(self, request: pb.BranchDatabaseRequest, _: Any) -> pb.Database:
        record, created = await self._plane.databases.branch(
            self.tenant(request),
            request.source,
            request.name,
            messages.point(request),
            if_not_exists=request.if_not_exists,
            expires_micros=messages.expiry(request),
        )
        if created and not self._plane.computes.runs((record.tenant, record.name)):
            return self._new_branch(record)
        return await self._database(record, created=created, reveal=True)

    async def get_database(self, request: pb.GetDatabaseRequest, _: Any) -> pb.Database:
        record = self._known(request, request.name)
        reveal = request.reveal or request.check_url
        if request.brief:
            answer = self._described(record, reveal=reveal)
        else:
            answer = await self._database(record, reveal=reveal)
        if request.check_url:
            entry = await self._plane.own_settings.entry(record)
            answer.url_fault, answer.operator_conninfo = entry.url_fault, entry.conninfo
            if not entry.conninfo:
                secret = credentials.password(self._key, record)
                answer.url_fault = await self._plane.places.url_fault(record, secret)
        return answer

    async def list_databases(
        self, request: pb.ListDatabasesRequest, _: Any
    ) -> pb.ListDatabasesResponse:
        tenant = self.tenant(request)
        size = min(request.page_size, paging.MAX_PAGE) if request.page_size else paging.ALL
        after = paging.name_of(request.page_token)
        # One more, to know whether there is another page.
        records = self._plane.state.view().databases_after(tenant, after, size + 1)
        sizes = await self._sizes.of(tenant, first=not after)
        answer = pb.ListDatabasesResponse()
        if request.unlisted:
            unlisted = await self._plane.tenants.unlisted(tenant)
            answer.unlisted.left_bytes, answer.unlisted.deleted_bytes = unlisted
        for record in records[:size]:
            database = self._described(record)
            info = sizes.get(record.timeline.raw)
            if info is not None:
                database.lsn = info.last_record_lsn
                database.physical_bytes = info.physical_bytes
            answer.databases.append(database)
        if len(records) > size:
            answer.next_page_token = paging.token_of(records[size - 1].name)
            self._sizes.hold(tenant, sizes)
        return answer

    async def watch_databases(
        self, request: pb.WatchDatabasesRequest, _: Any
    ) -> AsyncIterator[pb.DatabaseChange]:
        tenant = self.tenant(request)
        plane = self._plane
        async for change in watch_databases(plane.state, plane.computes, tenant):
            match change:
                case Seen(record):
                    yield pb.DatabaseChange(database=self._described(record))
                case Gone(name):
                    yield pb.DatabaseChange(gone=name)
                case Whole():
                    yield pb.DatabaseChange(whole=True)

    async def delete_database(
        self, request: pb.DeleteDatabaseRequest, _: Any
    ) -> pb.DeleteDatabaseResponse:
        deleted = await self._plane.databases.remove(
            self.tenant(request), request.name, if_exists=request.if_exists
        )
        return pb.DeleteDatabaseResponse(deleted=deleted)

    async def rename_database(
        self, request: pb.RenameDatabaseRequest, _: Any
    ) -> pb.RenameDatabaseResponse:
        record, changed = await self._plane.databases.rename(
            self.tenant(request), request.name, request.new_name, if_exists=request.if_exists
        )
        answer = pb.RenameDatabaseResponse(changed=changed)
        if record is not None:
            answer.database.CopyFrom(self._described(record))
        return answer

    async def delete_checkpoint(
        self, request: pb.DeleteCheckpointRequest, _: Any
    ) -> pb.DeleteCheckpointResponse:
        deleted = await self._plane.past.delete_checkpoint(
            self.tenant(request), request.database, request.name, if_exists=request.if_exists
        )
        return pb.DeleteCheckpointResponse(deleted=deleted)

    async def create_checkpoint(self, request: pb.CreateCheckpointRequest, _: Any) -> pb.Checkpoint:
        made = await self._plane.past.checkpoint(
            self.tenant(request),
            request.database,
            request.name,
            messages.companions(request),
            messages.kept_until(request),
        )
        return messages.checkpoint(made)

    async def restore_database(
        self, request: pb.RestoreDatabaseRequest, _: Any
    ) -> pb.RestoreResponse:
        if request.at.WhichOneof("at") is None:
            raise InvalidInput(
                "POINT_REQUIRED",
                "A restore needs a point to go to.",
                "Name a checkpoint, an LSN or a time; `pagestore log NAME` lists checkpoints.",
            )
        return await self._moved(
            await self._plane.past.restore(
                self.tenant(request),
                request.database,
                messages.point(request),
                messages.asked(request),
            )
        )

    async def reset_database(self, request: pb.ResetDatabaseRequest, _: Any) -> pb.RestoreResponse:
        past = self._plane.past
        return await self._moved(
            await past.reset(self.tenant(request), request.database, messages.asked(request))
        )

    async def promote_database(
        self, request: pb.PromoteDatabaseRequest, _: Any
    ) -> pb.RestoreResponse:
        return await self._moved(
            await self._plane.past.promote(
                self.tenant(request), request.database, request.source, messages.asked(request)
            )
        )

    async def undo_database(self, request: pb.UndoDatabaseRequest, _: Any) -> pb.RestoreResponse:
        return await self._moved(
            await self._plane.past.undo(
                self.tenant(request),
                request.database,
                request.to_checkpoint,
                messages.asked(request),
            )
        )

    async def redo_database(self, request: pb.RedoDatabaseRequest, _: Any) -> pb.RestoreResponse:
        past = self._plane.past
        return await self._moved(
            await past.redo(self.tenant(request), request.database, messages.asked(request))
        )

    async def upgrade_database(
        self, request: pb.UpgradeDatabaseRequest, _: Any
    ) -> AsyncIterator[pb.UpgradeProgress]:
        assert self._plane.upgrades is not None, "a service has an agent"
        followed: Followed[Moved] = Followed()
        work = self._plane.upgrades.upgrade(
            self.tenant(request),
            request.database,
            request.postgres_major,
            messages.asked(request),
            followed.told,
        )
        async for step in followed.steps(work):
            yield pb.UpgradeProgress(step=step.words, done=step.done, total=step.total)
        done = followed.result()
        yield pb.UpgradeProgress(moved=await self._moved(done), remarks=done.remarks)

    async def list_log(self, request: pb.ListLogRequest, _: Any) -> pb.ListLogResponse:
        entries = self._plane.past.log(self.tenant(request), request.database)
        page, token = paging.newest_first(entries, request.page_size, request.page_token)
        return pb.ListLogResponse(entries=map(messages.log_entry, page), next_page_token=token)

    async def wake_database(self, request: pb.WakeDatabaseRequest, _: Any) -> pb.Database:
        record = await self._plane.databases.wake(self.tenant(request), request.name)
        if request.brief:
            return self._described(record, reveal=request.reveal)
        return await self._database(record, reveal=request.reveal)

    async def stop_database(self, request: pb.StopDatabaseRequest, _: Any) -> pb.Database:
        return await self._database(
            await self._plane.databases.stop(self.tenant(request), request.name)
        )

    async def get_settings(self, request: pb.GetSettingsRequest, _: Any) -> pb.DatabaseSettings:
        shown = await self._plane.own_settings.shown(self.tenant(request), request.database)
        return messages.settings(shown)

    async def change_settings(
        self, request: pb.ChangeSettingsRequest, _: Any
    ) -> pb.DatabaseSettings:
        shown = await self._plane.own_settings.change(
            self.tenant(request), request.database, request.set, request.reset
        )
        return messages.settings(shown)

    async def keep_database(self, request: pb.KeepDatabaseRequest, _: Any) -> pb.Database:
        tenant, expires = self.tenant(request), messages.expiry(request)
        record = await self._plane.databases.keep(tenant, request.database, expires)
        return self._described(record)

    async def detach_database(self, request: pb.DetachDatabaseRequest, _: Any) -> Any:
        done = await self._plane.detaching.detach(self.tenant(request), request.name)
        database = self._described(done.record)
        return pb.DetachDatabaseResponse(database=database, done=done.done, changed=done.changed)

    async def change_retention(self, request: pb.ChangeRetentionRequest, _: Any) -> pb.Database:
        has_window = request.HasField("seconds")
        window = checked(request.seconds, request.wal_bytes) if has_window else None
        retention = self._plane.retention
        return await self._database(
            await retention.change(self.tenant(request), request.database, window)
        )

    async def change_idle(self, request: pb.ChangeIdleRequest, _: Any) -> pb.Database:
        idle = request.idle if request.HasField("idle") else None
        return self._described(
            await self._plane.own_settings.change_idle(self.tenant(request), request.database, idle)
        )

    async def reset_password(self, request: pb.ResetPasswordRequest, _: Any) -> pb.Database:
        record = await self._plane.own_settings.reset_password(
            self.tenant(request), request.database
        )
        return await self._database(record, reveal=True)

    async def stop_computes(
        self, request: pb.StopComputesRequest, _: Any
    ) -> pb.StopComputesResponse:
        stopped = await self._plane.databases.stop_all(carry_sessions=request.carry_sessions)
        return pb.StopComputesResponse(stopped=stopped)

    async def begin_import(self, request: pb.BeginImportRequest, _: Any) -> pb.BeginImportResponse:
        timeline = await self._plane.databases.begin_import(self.tenant(request), request.name)
        return pb.BeginImportResponse(timeline_id=timeline.raw)

    async def register_database(self, request: pb.RegisterDatabaseRequest, _: Any) -> pb.Database:
        record = await self._plane.databases.register(
            self.tenant(request),
            request.name,
            TimelineId(request.timeline_id),
            prev_record_lsn=request.prev_record_lsn,
            system_id=request.system_id,
            postgres_database=request.postgres_database,
            settings=request.settings,
        )
        return await self._database(record, created=True, reveal=True)

    async def resolve_point(
        self, request: pb.ResolvePointRequest, _: Any
    ) -> pb.ResolvePointResponse:
        record = self._known(request, request.database)
        found = await self._plane.history.resolve(record, messages.point(request))
        return pb.ResolvePointResponse(
            timeline_id=found.timeline.timeline.raw,
            lsn=found.lsn,
            prev_record_lsn=found.prev_record_lsn,
        )

    async def get_members_status(
        self, request: pb.GetMembersStatusRequest, _: Any
    ) -> pb.MembersStatus:
        return pb.MembersStatus(
            safekeepers=sorted(self._settings.wal_services),
            settled=self._members.settled,
            timelines_left=self._members.left,
            error=self._members.error,
        )

    async def get_system_status(
        self, request: pb.GetSystemStatusRequest, _: Any
    ) -> pb.SystemStatus:
        databases = self._plane.state.view().databases()
        infos = await self._pages.list_timelines(None)
        troubles = [
            f"timeline {info.timeline_id.hex()}: {error}"
            for info in infos
            for error in (info.ingest_error, info.flush_error)
            if error
        ]
        place, safekeepers = self._settings.page_server, self._safekeepers()
        waiting = self._plane.computes.complaints()
        return pb.SystemStatus(
            data_dir=str(self._settings.data_dir),
            databases=len(databases),
            computes_running=self._plane.computes.running(),
            store_bytes=sum(info.physical_bytes for info in infos),
            upkeep=await self._pages.upkeep(),
            parts=[
                *messages.amiss("pageserver", place, troubles),
                *messages.amiss("safekeeper", safekeepers, waiting),
            ],
            version=version("pagestore"),
            page_server_address=place,
            wal_service_address=safekeepers,
            postgres=majors.exact_versions(self._settings.postgres_bindir),
            objects=self._archive.status() if self._archive is not None else None,
        )

    def tenant(self, request: Any) -> TenantId:
        """
        Raises:
            NotFound: TENANT_NOT_FOUND.
        """
        named = TenantId(request.tenant_id) if request.tenant_id else DEFAULT_TENANT
        return self._plane.tenants.known(named).tenant

    def _safekeepers(self) -> str:
        return ",".join(self._settings.wal_services.values())

    def _known(self, request: Any, name: str) -> DatabaseRecord:
        return self._plane.databases.known(self.tenant(request), name)

    def bare_url(self, record: DatabaseRecord) -> str:
        """Without a password."""
        return self._described(record).url

    def _described(
        self, record: DatabaseRecord, *, created: bool = False, reveal: bool = False
    ) -> pb.Database:
        """`reveal`: with the password in the URL."""
        secret = credentials.password(self._key, record) if reveal else ""
        tenant = self._plane.tenants.known(record.tenant)
        compute = self._plane.computes.status((record.tenant, record.name))
        return pb.Database(
            name=record.name,
            tenant_id=record.tenant.raw,
            timeline_id=record.timeline.raw,
            url=self._url(record, tenant.name, compute.place, secret),
            compute=_STATES[compute.state],
            parent=record.parent,
            branch_lsn=record.branch_lsn,
            created_unix_micros=record.created_micros,
            postgres_database=record.postgres_database,
            created=created,
            compute_error=compute.error,
            compute_pid=compute.place.pid,
            compute_dir=compute.place.directory,
            remarks=compute.remarks,
            set_aside=record.settings.set_aside,
            set_aside_complaint=record.settings.complaint,
            postgres_major=self._plane.state.view().known_timeline(record.timeline).major,
            idle=idle_of(record),
            expires_unix_micros=record.expires_micros,
            retention=messages.retention(
                self._plane.state.view().retention(record.tenant, record.name),
                self._plane.retention.default,
            ),
        )

    def _url(self, record: DatabaseRecord, tenant: str, place: Place, secret: str) -> str:
        address = self._settings.address
        if address:
            return credentials.url(record, tenant, address, secret)
        return credentials.direct_url(record, place, secret)

    def _new_branch(self, record: DatabaseRecord) -> pb.Database:
        """Nobody need be asked: it is where it left its parent, and has nothing of its own."""
        answer = self._described(record, created=True, reveal=True)
        answer.lsn = record.branch_lsn
        return answer

    async def _database(
        self, record: DatabaseRecord, *, created: bool = False, reveal: bool = False
    ) -> pb.Database:
        answer = self._described(record, created=created, reveal=reveal)
        log, pages = await asyncio.gather(
            self._plane.logs.end(record.timeline),
            self._pages.get_timeline(record.tenant, record.timeline, slots=True, sizes=True),
        )
        answer.retention.kept_from_lsn = pages.kept_from_lsn
        answer.sizes.CopyFrom(messages.sizes(pages.sizes))
        answer.slots.extend(messages.slot(slot, log.commit_lsn) for slot in pages.slots)
        answer.slot_wal_limit = pages.slot_wal_limit
        answer.lsn = log.commit_lsn
        answer.wal_bytes = log.wal_bytes
        answer.physical_bytes = pages.physical_bytes
        return answer

    async def _moved(self, done: Moved) -> pb.RestoreResponse:
        answer = pb.RestoreResponse(
            database=await self._database(done.database),
            summary=done.summary,
            changed=done.changed,
        )
        if done.kept is not None:
            answer.kept.CopyFrom(messages.checkpoint(done.kept))
        if done.point is not None:
            answer.to.timeline_id = done.point.timeline.timeline.raw
            answer.to.lsn = done.point.lsn
        if done.went_to is not None:
            answer.went_to.CopyFrom(messages.checkpoint(done.went_to))
        return answer
