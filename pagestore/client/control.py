"""A client of the control plane: names, checkpoints, and the computes behind them.

Synchronous, for programs and the command line::

    with ControlClient("127.0.0.1:7430") as control:
        database = control.create("app")
        print(database.url)

Messages are those of pagestore.v1 (control.proto). Every call raises the PagestoreError
that the control plane answered with, with its stable reason and its hint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from pagestore.client.channels import open_blocking_channel
from pagestore.client.closing import BlockingClosing
from pagestore.client.companions import Companions
from pagestore.client.credentials import Credentials, default
from pagestore.client.errors import from_rpc_error
from pagestore.errors import Unavailable
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.v1 import control_pb2 as pb

_T = TypeVar("_T")

DEFAULT_TIMEOUT = 180.0
"""Seconds for one verb: a start may wait for the page server to read much WAL."""


PAGE_SIZE = 500
"""Entries of a list in one answer."""


class ControlClient(BlockingClosing):
    def __init__(
        self,
        address: str,
        *,
        tenant: TenantId = DEFAULT_TENANT,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: Credentials | None = None,
    ) -> None:
        self.address = address
        self.tenant = tenant
        self.timeout = timeout
        self.page_size = PAGE_SIZE
        self._channel = open_blocking_channel(address, credentials or default())

    def close(self) -> None:
        self._channel.close()

    def create(
        self,
        name: str,
        *,
        if_not_exists: bool = False,
        settings: Mapping[str, str] | None = None,
        major: int = 0,
        ttl: float | None = None,
    ) -> pb.Database:
        """An empty database, running; of the newest Postgres unless another major is named.

        Args:
            ttl: seconds until it is removed by itself, if it is new; None for never.
        """
        return self.call(
            "CreateDatabase",
            pb.CreateDatabaseRequest(
                tenant_id=self.tenant.raw,
                name=name,
                if_not_exists=if_not_exists,
                settings=settings,
                postgres_major=major,
                ttl=ttl,
            ),
            pb.Database,
        )

    def branch(
        self,
        source: str,
        name: str,
        at: pb.Point | None = None,
        *,
        if_not_exists: bool = False,
        ttl: float | None = None,
    ) -> pb.Database:
        """A branch of `source` at a point, asleep; at its head by default.

        Args:
            ttl: as of `create`.
        """
        return self.call(
            "BranchDatabase",
            pb.BranchDatabaseRequest(
                tenant_id=self.tenant.raw,
                source=source,
                name=name,
                at=at,
                if_not_exists=if_not_exists,
                ttl=ttl,
            ),
            pb.Database,
        )

    def get(
        self, name: str, *, brief: bool = False, check_url: bool = False, reveal: bool = False
    ) -> pb.Database:
        """`brief`: without LSN and bytes, and so without the parts that know them; `check_url`:
        with `url_fault`, if its compute runs; `reveal`: with the password in the URL."""
        request = pb.GetDatabaseRequest(
            tenant_id=self.tenant.raw, name=name, brief=brief, check_url=check_url, reveal=reveal
        )
        return self.call("GetDatabase", request, pb.Database)

    def databases(self) -> list[pb.Database]:
        """All of them, by name; page by page."""
        request = pb.ListDatabasesRequest(tenant_id=self.tenant.raw, page_size=self.page_size)
        found: list[pb.Database] = []
        while True:
            answer = self.call("ListDatabases", request, pb.ListDatabasesResponse)
            found += answer.databases
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    def unlisted(self) -> pb.UnlistedBytes:
        """What the tenant has at the page server that is no database's own."""
        request = pb.ListDatabasesRequest(tenant_id=self.tenant.raw, page_size=1, unlisted=True)
        return self.call("ListDatabases", request, pb.ListDatabasesResponse).unlisted

    def watch(self) -> Iterator[pb.DatabaseChange]:
        """All databases, then what changes, as it does; without an end, until it is closed."""
        request = pb.WatchDatabasesRequest(tenant_id=self.tenant.raw)
        call: Any = None
        try:
            stream = self._channel.unary_stream(
                "/pagestore.v1.ControlService/WatchDatabases",
                request_serializer=pb.WatchDatabasesRequest.SerializeToString,
                response_deserializer=pb.DatabaseChange.FromString,
            )
            call = stream(request)
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        finally:
            if call is not None:
                call.cancel()

    def delete(self, name: str, *, if_exists: bool = False) -> bool:
        """Whether there was such a database."""
        request = pb.DeleteDatabaseRequest(
            tenant_id=self.tenant.raw, name=name, if_exists=if_exists
        )
        return self.call("DeleteDatabase", request, pb.DeleteDatabaseResponse).deleted

    def checkpoint(
        self,
        database: str,
        name: str,
        companions: Companions | None = None,
        keep: float | None = None,
    ) -> pb.Checkpoint:
        """`keep`: seconds until it is forgotten by itself; None for never."""
        beside = companions or Companions()
        return self.call(
            "CreateCheckpoint",
            pb.CreateCheckpointRequest(
                tenant_id=self.tenant.raw,
                database=database,
                name=name,
                git_commit=beside.git_commit,
                dirty_patch=beside.dirty_patch,
                run_id=beside.run_id,
                notes=beside.notes,
                keep=keep,
            ),
            pb.Checkpoint,
        )

    def delete_checkpoint(self, database: str, name: str, *, if_exists: bool = False) -> bool:
        """Whether there was such a checkpoint."""
        request = pb.DeleteCheckpointRequest(
            tenant_id=self.tenant.raw, database=database, name=name, if_exists=if_exists
        )
        return self.call("DeleteCheckpoint", request, pb.DeleteCheckpointResponse).deleted

    def rename(
        self, name: str, new_name: str, *, if_exists: bool = False
    ) -> pb.RenameDatabaseResponse:
        """The URL stays."""
        request = pb.RenameDatabaseRequest(
            tenant_id=self.tenant.raw, name=name, new_name=new_name, if_exists=if_exists
        )
        return self.call("RenameDatabase", request, pb.RenameDatabaseResponse)

    # Moves. One that is sent again under the same request_id is the same move, with the same
    # answer; dry_run tells where it would go.

    def restore(
        self, database: str, at: pb.Point, *, request_id: str = "", dry_run: bool = False
    ) -> pb.RestoreResponse:
        """To a point of the past. Ends every session, also where it is there already."""
        request = pb.RestoreDatabaseRequest(
            tenant_id=self.tenant.raw,
            database=database,
            at=at,
            request_id=request_id,
            dry_run=dry_run,
        )
        return self.call("RestoreDatabase", request, pb.RestoreResponse)

    def reset(
        self, database: str, *, request_id: str = "", dry_run: bool = False
    ) -> pb.RestoreResponse:
        """A branch to the head of its parent."""
        request = pb.ResetDatabaseRequest(
            tenant_id=self.tenant.raw, database=database, request_id=request_id, dry_run=dry_run
        )
        return self.call("ResetDatabase", request, pb.RestoreResponse)

    def promote(
        self, database: str, source: str, *, request_id: str = "", dry_run: bool = False
    ) -> pb.RestoreResponse:
        """A database to the head of a branch of it."""
        request = pb.PromoteDatabaseRequest(
            tenant_id=self.tenant.raw,
            database=database,
            source=source,
            request_id=request_id,
            dry_run=dry_run,
        )
        return self.call("PromoteDatabase", request, pb.RestoreResponse)

    def undo(
        self, database: str, *, to: str = "", request_id: str = "", dry_run: bool = False
    ) -> pb.RestoreResponse:
        """Undoes what was done since the latest mark; `to` names the checkpoint to be at."""
        request = pb.UndoDatabaseRequest(
            tenant_id=self.tenant.raw,
            database=database,
            to_checkpoint=to,
            request_id=request_id,
            dry_run=dry_run,
        )
        return self.call("UndoDatabase", request, pb.RestoreResponse)

    def redo(
        self, database: str, *, request_id: str = "", dry_run: bool = False
    ) -> pb.RestoreResponse:
        """Takes an undo back, unless something was committed since."""
        request = pb.RedoDatabaseRequest(
            tenant_id=self.tenant.raw, database=database, request_id=request_id, dry_run=dry_run
        )
        return self.call("RedoDatabase", request, pb.RestoreResponse)

    def upgrade(
        self,
        database: str,
        major: int,
        *,
        request_id: str = "",
        dry_run: bool = False,
        told: Callable[[str, int, int], None] = lambda step, done, total: None,
    ) -> tuple[pb.RestoreResponse, list[str]]:
        """To another major of Postgres, which takes as long as the database is large; and what the
        user should know besides.

        Args:
            told: of each step; the bytes of it that are done, and all, 0 where not known.
        """
        request = pb.UpgradeDatabaseRequest(
            tenant_id=self.tenant.raw,
            database=database,
            postgres_major=major,
            request_id=request_id,
            dry_run=dry_run,
        )
        stream = self._channel.unary_stream(
            "/pagestore.v1.ControlService/UpgradeDatabase",
            request_serializer=pb.UpgradeDatabaseRequest.SerializeToString,
            response_deserializer=pb.UpgradeProgress.FromString,
        )
        try:
            for progress in stream(request):
                if progress.HasField("moved"):
                    return progress.moved, list(progress.remarks)
                told(progress.step, progress.done, progress.total)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        raise Unavailable("STREAM_ENDED", f"{self.address} ended the upgrade without an answer.")

    def log(self, database: str) -> list[pb.LogEntry]:
        """Checkpoints and events, newest first."""
        request = pb.ListLogRequest(
            tenant_id=self.tenant.raw, database=database, page_size=self.page_size
        )
        found: list[pb.LogEntry] = []
        while True:
            answer = self.call("ListLog", request, pb.ListLogResponse)
            found += answer.entries
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    def wake(self, name: str, *, reveal: bool = False) -> pb.Database:
        """`reveal`: with the password in the URL."""
        request = pb.WakeDatabaseRequest(tenant_id=self.tenant.raw, name=name, reveal=reveal)
        return self.call("WakeDatabase", request, pb.Database)

    def settings(self, database: str) -> pb.DatabaseSettings:
        request = pb.GetSettingsRequest(tenant_id=self.tenant.raw, database=database)
        return self.call("GetSettings", request, pb.DatabaseSettings)

    def change_settings(
        self, database: str, values: Mapping[str, str], reset: Sequence[str] = ()
    ) -> pb.DatabaseSettings:
        """Sets and resets; what is set here outlives the compute."""
        request = pb.ChangeSettingsRequest(
            tenant_id=self.tenant.raw, database=database, set=values, reset=reset
        )
        return self.call("ChangeSettings", request, pb.DatabaseSettings)

    def change_idle(self, database: str, seconds: float | None) -> pb.Database:
        """`seconds` without activity until it sleeps: infinity for never, None for as long as the
        proxy lets any."""
        request = pb.ChangeIdleRequest(tenant_id=self.tenant.raw, database=database, idle=seconds)
        return self.call("ChangeIdle", request, pb.Database)

    def keep(self, database: str, ttl: float | None = None) -> pb.Database:
        """Seconds from now until it is removed by itself; None for never."""
        request = pb.KeepDatabaseRequest(tenant_id=self.tenant.raw, database=database, ttl=ttl)
        return self.call("KeepDatabase", request, pb.Database)

    def detach(self, name: str) -> pb.DetachDatabaseResponse:
        """Makes a branch independent. It goes on if it is not `done`: ask again."""
        request = pb.DetachDatabaseRequest(tenant_id=self.tenant.raw, name=name)
        return self.call("DetachDatabase", request, pb.DetachDatabaseResponse)

    def change_retention(
        self, database: str, seconds: float | None, wal_bytes: int = 0
    ) -> pb.Database:
        """How much of its history is kept; None for as much as of all."""
        request = pb.ChangeRetentionRequest(
            tenant_id=self.tenant.raw, database=database, seconds=seconds, wal_bytes=wal_bytes
        )
        return self.call("ChangeRetention", request, pb.Database)

    def reset_password(self, database: str) -> pb.Database:
        request = pb.ResetPasswordRequest(tenant_id=self.tenant.raw, database=database)
        return self.call("ResetPassword", request, pb.Database)

    def stop(self, name: str) -> pb.Database:
        return self.call(
            "StopDatabase",
            pb.StopDatabaseRequest(tenant_id=self.tenant.raw, name=name),
            pb.Database,
        )

    def stop_computes(self, *, carry_sessions: bool = False) -> int:
        request = pb.StopComputesRequest(carry_sessions=carry_sessions)
        return self.call("StopComputes", request, pb.StopComputesResponse).stopped

    def begin_import(self, name: str) -> TimelineId:
        request = pb.BeginImportRequest(tenant_id=self.tenant.raw, name=name)
        return TimelineId(self.call("BeginImport", request, pb.BeginImportResponse).timeline_id)

    def register(
        self,
        name: str,
        timeline: TimelineId,
        *,
        prev_record_lsn: int,
        system_id: int,
        postgres_database: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> pb.Database:
        return self.call(
            "RegisterDatabase",
            pb.RegisterDatabaseRequest(
                tenant_id=self.tenant.raw,
                name=name,
                timeline_id=timeline.raw,
                prev_record_lsn=prev_record_lsn,
                system_id=system_id,
                postgres_database=postgres_database,
                settings=settings,
            ),
            pb.Database,
        )

    def resolve(self, database: str, at: pb.Point) -> pb.ResolvePointResponse:
        request = pb.ResolvePointRequest(tenant_id=self.tenant.raw, database=database, at=at)
        return self.call("ResolvePoint", request, pb.ResolvePointResponse)

    def members_status(self) -> pb.MembersStatus:
        return self.call("GetMembersStatus", pb.GetMembersStatusRequest(), pb.MembersStatus)

    def system_status(self) -> pb.SystemStatus:
        return self.call("GetSystemStatus", pb.GetSystemStatusRequest(), pb.SystemStatus)

    def call(
        self, method: str, request: Any, answer: type[_T], service: str = "ControlService"
    ) -> _T:
        """One call of a service of the control plane."""
        try:
            call = self._channel.unary_unary(
                f"/pagestore.v1.{service}/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=getattr(answer, "FromString"),  # noqa: B009
            )
            response = call(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        assert isinstance(response, answer)
        return response
