"""The client for an event loop; the blocking one (blocking.py) is made from it.

Calls that may be repeated without harm wait for a control plane that is away, and are repeated:
those that only ask, those that say what is to be there (``if_not_exists``, ``if_exists``), and the
moves, each of which has a request id by which the control plane knows it again. The others reach it
once, or fail.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Generator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from pagestore.client.closing import Closing
from pagestore.client.credentials import Credentials
from pagestore.client.errors import from_rpc_error
from pagestore.client.points import lasting
from pagestore.client.retrying import DEFAULT_TIMEOUT, RetryingClient
from pagestore.errors import InvalidInput, NotFound
from pagestore.ids import DEFAULT_TENANT, DEFAULT_TENANT_NAME, TenantId
from pagestore.sdk.values import (
    Checkpoint,
    Event,
    Facts,
    Move,
    Retention,
    Settings,
    Ttl,
    entry_of,
    point_of,
    seconds_of,
    sqlalchemy_url,
)
from pagestore.v1 import control_pb2 as pb
from pagestore.v1 import control_pb2_grpc, tenant_pb2, tenant_pb2_grpc

if TYPE_CHECKING:
    from pagestore.difference.databases import Difference
    from pagestore.sdk.difference import Told

VERB_SECONDS = 180.0
"""For one verb: a start may wait for the page server to read much WAL."""
PAGE_SIZE = 500

_T = TypeVar("_T")


class AsyncDatabase(Closing):
    """A database at a client's hand. As a context manager it is removed at the end, unless it is
    kept: so it is made for branches that nobody needs afterwards."""

    def __init__(self, client: AsyncClient, facts: Facts) -> None:
        self.facts = facts
        self._client = client
        self._goes = True

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def url(self) -> str:
        """Where programs connect, with the password."""
        return self.facts.url

    async def keep(self, ttl: Ttl = None) -> None:
        """It stays when the context ends: for good, or for so long from now."""
        kept = await self._client.keep(self.name, ttl)
        # Only what makes a database, or asks for it by name, tells its password.
        self.facts = replace(kept, url=self.url)
        self._goes = False

    async def retention(self, window: Ttl = None, *, wal_bytes: int | None = None) -> Retention:
        """As :meth:`AsyncClient.retention`."""
        return await self._client.retention(self.name, window, wal_bytes=wal_bytes)

    async def remove(self) -> None:
        """Repeatable."""
        await self._client.remove(self.name, if_exists=True)

    async def psycopg(self, **options: Any) -> Any:
        """A ``psycopg.AsyncConnection``; `options` go to its `connect`."""
        from psycopg import AsyncConnection

        return await AsyncConnection.connect(self.url, **options)

    def sqlalchemy(self, driver: str = "psycopg", **options: Any) -> Any:
        """An ``AsyncEngine``; `options` go to `create_async_engine`."""
        from sqlalchemy.ext.asyncio import create_async_engine

        return create_async_engine(sqlalchemy_url(self.url, driver), **options)

    async def close(self) -> None:
        """The end of its context: it is removed, unless it is kept."""
        if self._goes:
            await self.remove()

    def __repr__(self) -> str:
        return f"<database {self.name!r}>"


class Coming:
    """A database that is being made: to be awaited, or entered by ``async with``."""

    def __init__(self, making: Any) -> None:
        self._making = making
        self._made: AsyncDatabase | None = None

    def __await__(self) -> Generator[Any, Any, AsyncDatabase]:
        made: AsyncDatabase = yield from self._making.__await__()
        return made

    async def __aenter__(self) -> AsyncDatabase:
        self._made = await self
        return self._made

    async def __aexit__(self, *what: Any) -> None:
        assert self._made is not None, "it was entered"
        await self._made.close()


class AsyncClient(RetryingClient):
    """Of the control plane at `address` ("host:port"). Use it from one event loop.

    Args:
        tenant: whose databases, by name.
        timeout: seconds for which a control plane that is away is waited for.
        credentials: what is shown to it; the operator's of this machine by default.
    """

    answer_timeout = VERB_SECONDS

    def __init__(
        self,
        address: str,
        *,
        tenant: str = DEFAULT_TENANT_NAME,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: Credentials | None = None,
    ) -> None:
        super().__init__(address, timeout=timeout, credentials=credentials)
        stubs: Any = control_pb2_grpc
        self._stub = stubs.ControlServiceStub(self._channel)
        self._tenant_name = tenant
        self._tenant: TenantId | None = None

    # Databases

    async def databases(self) -> list[Facts]:
        """All of them, by name; URLs without passwords."""
        request = pb.ListDatabasesRequest(tenant_id=await self._whose(), page_size=PAGE_SIZE)
        found: list[Facts] = []
        while True:
            answer = await self._call(self._stub.ListDatabases, request, pb.ListDatabasesResponse)
            found += map(Facts.of, answer.databases)
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def watch(self) -> AsyncIterator[Facts | str | None]:
        """All databases, then None, then what changes as it does: facts, or the name of one that
        is gone. Without an end.

        Raises:
            Unavailable: the control plane went away.
        """
        call = self._stub.WatchDatabases(pb.WatchDatabasesRequest(tenant_id=await self._whose()))
        try:
            async for change in call:
                kind = change.WhichOneof("change")
                if kind == "whole":
                    yield None
                else:
                    yield change.gone if kind == "gone" else Facts.of(change.database)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        finally:
            call.cancel()

    async def database(self, name: str) -> AsyncDatabase:
        """
        Raises:
            NotFound: DATABASE_NOT_FOUND.
        """
        return self._at_hand(await self._told(name))

    async def facts(self, name: str) -> pb.Database:
        """All that the control plane says of it, without the password.

        Raises:
            NotFound: DATABASE_NOT_FOUND.
        """
        request = pb.GetDatabaseRequest(tenant_id=await self._whose(), name=name)
        return await self._call(self._stub.GetDatabase, request, pb.Database)

    async def _told_at(self, name: str) -> Told:
        """A database, and what NAME@POINT means there. Names of before ``@`` was reserved go
        first."""
        from pagestore.sdk.difference import Told

        try:
            return Told(await self._told(name))
        except (NotFound, InvalidInput):  # an LSN has a slash, which no name has
            bare, at, point = name.partition("@")
            if not at:
                raise
        found = await self.resolve(bare, point)
        return Told(await self._told(bare), found, lasting(point, found.lsn))

    async def _told(self, name: str) -> pb.Database:
        request = pb.GetDatabaseRequest(tenant_id=await self._whose(), name=name, reveal=True)
        return await self._call(self._stub.GetDatabase, request, pb.Database)

    def create(
        self,
        name: str,
        *,
        ttl: Ttl = None,
        if_not_exists: bool = False,
        settings: Settings | None = None,
        postgres: int = 0,
    ) -> Coming:
        """An empty database.

        Args:
            ttl: it is removed by itself after so long.
            settings: its Postgres starts with these, or nothing is made.
            postgres: the major version; the newest that is installed by default.
        """
        return Coming(self._create(name, ttl, if_not_exists, settings, postgres))

    async def _create(
        self,
        name: str,
        ttl: Ttl,
        if_not_exists: bool,
        settings: Settings | None,
        postgres: int,
    ) -> AsyncDatabase:
        request = pb.CreateDatabaseRequest(
            tenant_id=await self._whose(),
            name=name,
            if_not_exists=if_not_exists,
            settings=settings,
            postgres_major=postgres,
            ttl=seconds_of(ttl),
        )
        method = self._stub.CreateDatabase
        return self._at_hand(await self._carried(method, request, pb.Database, if_not_exists))

    def branch(
        self,
        source: str,
        name: str | None = None,
        *,
        at: str | datetime | None = None,
        ttl: Ttl = None,
        if_not_exists: bool = False,
    ) -> Coming:
        """A database that begins as `source` was; whatever its size, in milliseconds.

        Args:
            name: made up where it is not given.
            at: a checkpoint's name, an LSN or a time, as ``--at`` takes them; the last commit
                of now by default.
            ttl: as of `create`.
        """
        return Coming(self._branch(source, name, at, ttl, if_not_exists))

    async def _branch(
        self,
        source: str,
        name: str | None,
        at: str | datetime | None,
        ttl: Ttl,
        if_not_exists: bool,
    ) -> AsyncDatabase:
        request = pb.BranchDatabaseRequest(
            tenant_id=await self._whose(),
            source=source,
            name=name if name is not None else f"{source}-{secrets.token_hex(4)}",
            at=point_of(at),
            if_not_exists=if_not_exists,
            ttl=seconds_of(ttl),
        )
        method = self._stub.BranchDatabase
        return self._at_hand(await self._carried(method, request, pb.Database, if_not_exists))

    async def start(self, name: str) -> None:
        """Wakes it, so that who connects next need not wait; nobody has to."""
        request = pb.WakeDatabaseRequest(tenant_id=await self._whose(), name=name, brief=True)
        await self._call(self._stub.WakeDatabase, request, pb.Database)

    async def keep(self, name: str, ttl: Ttl = None) -> Facts:
        """It stays for good, or for so long from now."""
        request = pb.KeepDatabaseRequest(
            tenant_id=await self._whose(), database=name, ttl=seconds_of(ttl)
        )
        return Facts.of(await self._call(self._stub.KeepDatabase, request, pb.Database))

    async def retention(
        self, name: str, window: Ttl = None, *, wal_bytes: int | None = None
    ) -> Retention:
        """How much of a database's history is kept, once it is as was asked for.

        Args:
            window: "14d", seconds, a timedelta; "default" for the installation's own; None to
                leave all as it is and be told.
            wal_bytes: of WAL, at most, beside a window; None for as many as there are in it.

        Raises:
            InvalidInput: INVALID_TTL: that is no time; INVALID_RETENTION.
        """
        whose = await self._whose()
        if window is None:
            if wal_bytes is not None:
                raise InvalidInput(
                    "INVALID_RETENTION", "Bytes of history bound a window: give one, too."
                )
            asked = pb.GetDatabaseRequest(tenant_id=whose, name=name)
            return Retention.of(await self._call(self._stub.GetDatabase, asked, pb.Database))
        request = pb.ChangeRetentionRequest(
            tenant_id=whose,
            database=name,
            seconds=None if window == "default" else seconds_of(window),
            wal_bytes=wal_bytes or 0,
        )
        return Retention.of(await self._call(self._stub.ChangeRetention, request, pb.Database))

    async def rename(self, name: str, new_name: str) -> Facts:
        request = pb.RenameDatabaseRequest(
            tenant_id=await self._whose(), name=name, new_name=new_name
        )
        method = self._stub.RenameDatabase
        answer = await self._carried(method, request, pb.RenameDatabaseResponse, False)
        return Facts.of(answer.database)

    async def remove(self, name: str, *, if_exists: bool = False) -> bool:
        """With its checkpoints; branches of it stay whole. Whether there was one."""
        request = pb.DeleteDatabaseRequest(
            tenant_id=await self._whose(), name=name, if_exists=if_exists
        )
        method = self._stub.DeleteDatabase
        answer = await self._carried(method, request, pb.DeleteDatabaseResponse, if_exists)
        return bool(answer.deleted)

    async def diff(
        self,
        name: str,
        other: str,
        rows: int = 10,
        *,
        whole: bool = False,
        pg_dump: Path | None = None,
    ) -> Difference:
        """What differs, as a way from one to the other: schema, and rows of each table.

        Args:
            name: a database, or NAME@POINT for a moment of its past; `other` likewise.
            rows: of a table, that are told one by one.
            whole: all of both is read, not only what was changed since they parted.
            pg_dump: the program; that of the newest Postgres here by default.
        """
        from pagestore.sdk.difference import difference_of

        ours, theirs = await self._told_at(name), await self._told_at(other)
        return await difference_of(self, ours, theirs, rows, whole=whole, pg_dump=pg_dump)

    # The past

    async def resolve(self, name: str, at: str | datetime | None = None) -> pb.ResolvePointResponse:
        """The timeline and the LSN of a point of a database's past; of its head by default."""
        request = pb.ResolvePointRequest(
            tenant_id=await self._whose(), database=name, at=point_of(at)
        )
        return await self._call(self._stub.ResolvePoint, request, pb.ResolvePointResponse)

    async def checkpoint(
        self,
        name: str,
        checkpoint: str,
        git_commit: str = "",
        *,
        dirty_patch: str = "",
        run_id: str = "",
        notes: Mapping[str, str] | None = None,
        keep: Ttl = None,
    ) -> Checkpoint:
        """Names the state of now: every commit that has returned is in it.

        Args:
            git_commit: of the code that belongs to it, and `dirty_patch` on top of that one.
            run_id: of what made it.
            notes: what else is to be known of it; a move that goes there tells all of these.
            keep: it is forgotten by itself after so long.
        """
        request = pb.CreateCheckpointRequest(
            tenant_id=await self._whose(),
            database=name,
            name=checkpoint,
            git_commit=git_commit,
            dirty_patch=dirty_patch,
            run_id=run_id,
            notes=notes,
            keep=seconds_of(keep),
        )
        method = self._stub.CreateCheckpoint
        return Checkpoint.of(await self._carried(method, request, pb.Checkpoint, False))

    async def remove_checkpoint(
        self, name: str, checkpoint: str, *, if_exists: bool = False
    ) -> bool:
        """Whether there was one."""
        request = pb.DeleteCheckpointRequest(
            tenant_id=await self._whose(), database=name, name=checkpoint, if_exists=if_exists
        )
        method = self._stub.DeleteCheckpoint
        answer = await self._carried(method, request, pb.DeleteCheckpointResponse, if_exists)
        return bool(answer.deleted)

    async def checkpoints(self, name: str) -> list[Checkpoint]:
        """Newest first, those that moves have made among them."""
        return [entry for entry in await self.log(name) if isinstance(entry, Checkpoint)]

    async def log(self, name: str) -> list[Checkpoint | Event]:
        """Checkpoints and what happened to the name, newest first."""
        request = pb.ListLogRequest(
            tenant_id=await self._whose(), database=name, page_size=PAGE_SIZE
        )
        found: list[Checkpoint | Event] = []
        while True:
            answer = await self._call(self._stub.ListLog, request, pb.ListLogResponse)
            found += map(entry_of, answer.entries)
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def restore(self, name: str, at: str | datetime) -> Move:
        """Puts the database to a checkpoint, an LSN or a time; name and URL stay."""
        request = pb.RestoreDatabaseRequest(
            tenant_id=await self._whose(), database=name, at=point_of(at)
        )
        return await self._moved(self._stub.RestoreDatabase, request)

    async def reset(self, name: str) -> Move:
        """Puts a branch to the head of the database that it was branched from."""
        request = pb.ResetDatabaseRequest(tenant_id=await self._whose(), database=name)
        return await self._moved(self._stub.ResetDatabase, request)

    async def promote(self, name: str, source: str) -> Move:
        """Puts a database to the head of a branch of it, which stays what it is."""
        request = pb.PromoteDatabaseRequest(
            tenant_id=await self._whose(), database=name, source=source
        )
        return await self._moved(self._stub.PromoteDatabase, request)

    async def undo(self, name: str, *, to: str = "") -> Move:
        """Undoes what was committed since the last checkpoint or move, or that move.

        Args:
            to: the checkpoint to be at afterwards; refused where a newer one would be passed.
        """
        request = pb.UndoDatabaseRequest(
            tenant_id=await self._whose(), database=name, to_checkpoint=to
        )
        return await self._moved(self._stub.UndoDatabase, request)

    async def redo(self, name: str) -> Move:
        """Takes an undo back, unless something was committed since."""
        request = pb.RedoDatabaseRequest(tenant_id=await self._whose(), database=name)
        return await self._moved(self._stub.RedoDatabase, request)

    # How

    async def system_status(self) -> pb.SystemStatus:
        method = self._stub.GetSystemStatus
        return await self._call(method, pb.GetSystemStatusRequest(), pb.SystemStatus)

    async def _moved(self, method: Any, request: Any) -> Move:
        request.request_id = secrets.token_hex(8)
        return Move.of(await self._call(method, request, pb.RestoreResponse))

    async def _carried(self, method: Any, request: Any, answer: type[_T], repeatable: bool) -> _T:
        patience = None if repeatable else 0.0
        return await self._call(method, request, answer, patience=patience)

    def _at_hand(self, said: pb.Database) -> AsyncDatabase:
        return AsyncDatabase(self, Facts.of(said))

    async def tenant(self) -> TenantId:
        """Whose databases they are."""
        return TenantId(await self._whose())

    async def _whose(self) -> bytes:
        """The tenant's id."""
        if self._tenant_name == DEFAULT_TENANT_NAME:
            return DEFAULT_TENANT.raw
        if self._tenant is None:
            stubs: Any = tenant_pb2_grpc
            request = tenant_pb2.GetTenantRequest(name=self._tenant_name)
            method = stubs.TenantServiceStub(self._channel).GetTenant
            answer = await self._call(method, request, tenant_pb2.Tenant)
            self._tenant = TenantId(answer.tenant_id)
        return self._tenant.raw
