"""The client against a control plane of the test's own, over real gRPC."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest

from pagestore import sdk
from pagestore.client.errors import to_trailers
from pagestore.errors import InvalidInput, NotFound, PagestoreError, Unavailable
from pagestore.sdk import AsyncClient, Client
from pagestore.sdk.client import PAGE_SIZE
from pagestore.v1 import control_pb2 as pb
from pagestore.v1 import control_pb2_grpc, tenant_pb2, tenant_pb2_grpc


class Control(
    control_pb2_grpc.ControlServiceServicer,  # type: ignore[misc]
    tenant_pb2_grpc.TenantServiceServicer,  # type: ignore[misc]
):
    """What was asked stands in `asked`; the first `failures` answers are Unavailable."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.failures = 0
        self.names = ["app"]

    def _hear(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if self.failures:
            self.failures -= 1
            self._fail(Unavailable("STARTING", "It starts just now."), context)

    @staticmethod
    def _fail(error: PagestoreError, context: Any) -> None:
        context.set_trailing_metadata(to_trailers(error))
        context.abort(getattr(grpc.StatusCode, error.code), error.message)

    def CreateDatabase(self, request: Any, context: Any) -> pb.Database:  # noqa: N802
        self._hear(request, context)
        return pb.Database(name=request.name, url="postgresql://u:p@h/x", created=True)

    def BranchDatabase(self, request: Any, context: Any) -> pb.Database:  # noqa: N802
        self._hear(request, context)
        return pb.Database(name=request.name, parent=request.source, created=True)

    def GetDatabase(self, request: Any, context: Any) -> pb.Database:  # noqa: N802
        self._hear(request, context)
        if request.name not in self.names:
            self._fail(NotFound("DATABASE_NOT_FOUND", "There is none.", "Make one."), context)
        return pb.Database(name=request.name)

    def KeepDatabase(self, request: Any, context: Any) -> pb.Database:  # noqa: N802
        self._hear(request, context)
        return pb.Database(name=request.database)

    def ChangeRetention(self, request: Any, context: Any) -> pb.Database:  # noqa: N802
        self._hear(request, context)
        own = request.HasField("seconds")
        kept = pb.Retention(
            seconds=int(request.seconds) if own else 604_800,
            wal_bytes=request.wal_bytes,
            own=own,
            kept_from_lsn=0x1_0000_0028,
        )
        return pb.Database(name=request.database, retention=kept)

    def DeleteDatabase(self, request: Any, context: Any) -> pb.DeleteDatabaseResponse:  # noqa: N802
        self._hear(request, context)
        return pb.DeleteDatabaseResponse(deleted=True)

    def ListDatabases(self, request: Any, context: Any) -> pb.ListDatabasesResponse:  # noqa: N802
        self._hear(request, context)
        first = int(request.page_token or 0)
        page = [pb.Database(name=name) for name in self.names[first : first + request.page_size]]
        more = first + len(page) < len(self.names)
        token = str(first + len(page)) if more else ""
        return pb.ListDatabasesResponse(databases=page, next_page_token=token)

    def UndoDatabase(self, request: Any, context: Any) -> pb.RestoreResponse:  # noqa: N802
        self._hear(request, context)
        return pb.RestoreResponse(changed=True, summary="undone")

    def GetTenant(self, request: Any, context: Any) -> tenant_pb2.Tenant:  # noqa: N802
        self._hear(request, context)
        return tenant_pb2.Tenant(tenant_id=b"t" * 16, name=request.name)


@contextmanager
def serving() -> Iterator[tuple[Control, str]]:
    control = Control()
    server = grpc.server(ThreadPoolExecutor(4))
    adders: Any = (control_pb2_grpc, tenant_pb2_grpc)
    adders[0].add_ControlServiceServicer_to_server(control, server)
    adders[1].add_TenantServiceServicer_to_server(control, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield control, f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.fixture
def served() -> Iterator[tuple[Control, Client]]:
    with serving() as (control, address), sdk.connect(address, token="t") as client:
        yield control, client


def play(story: Callable[[Control, AsyncClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        with serving() as (control, address):
            async with sdk.aconnect(address, token="t") as client:
                await story(control, client)

    asyncio.run(whole())


def kinds(control: Control) -> list[str]:
    return [type(item).__name__.removesuffix("Request") for item in control.asked]


def test_a_branch_goes_at_the_end_of_its_context(served: tuple[Control, Client]) -> None:
    control, client = served
    with client.branch("app", at="before", ttl="1h") as database:
        assert kinds(control) == ["BranchDatabase"]
        asked = control.asked[0]
        assert asked.name.startswith("app-")
        assert (asked.at.checkpoint, asked.ttl) == ("before", 3600.0)
    assert control.asked[-1] == pb.DeleteDatabaseRequest(
        tenant_id=asked.tenant_id, name=database.name, if_exists=True
    )


def test_it_goes_too_when_its_body_raises(served: tuple[Control, Client]) -> None:
    control, client = served
    with pytest.raises(ZeroDivisionError), client.branch("app"):
        raise ZeroDivisionError
    assert kinds(control)[-1] == "DeleteDatabase"


def test_what_is_kept_or_made_without_a_context_stays(served: tuple[Control, Client]) -> None:
    control, client = served
    with client.create("made") as database:
        database.keep()
        assert database.url == "postgresql://u:p@h/x"
    client.branch("app", "stays")
    client.create("new", settings={"work_mem": "1MB"})
    assert "DeleteDatabase" not in kinds(control)


def test_history_is_kept_for_as_long_as_is_said(served: tuple[Control, Client]) -> None:
    control, client = served
    database = client.create("app")
    told = database.retention("14d", wal_bytes=5 << 30)
    assert (told.seconds, told.wal_bytes, told.own) == (14 * 86400, 5 << 30, True)
    assert told.kept_from == "1/28"
    assert client.retention("app", timedelta(hours=12)).seconds == 43_200
    assert client.retention("app", 0).seconds == 0
    assert not client.retention("app", "default").own
    assert kinds(control)[-1] == "ChangeRetention"
    assert client.retention("app").kept_from is None
    assert kinds(control)[-1] == "GetDatabase"
    with pytest.raises(InvalidInput, match="no time"):
        database.retention("a while")
    with pytest.raises(InvalidInput, match="bound a window"):
        client.retention("app", wal_bytes=5)


def test_the_asynchronous_one_is_awaited_or_entered() -> None:
    async def story(control: Control, client: AsyncClient) -> None:
        made = await client.create("new")
        assert (made.name, made.url) == ("new", "postgresql://u:p@h/x")
        async with client.branch("app", "twig") as twig:
            assert twig.facts.parent == "app"
        assert kinds(control) == ["CreateDatabase", "BranchDatabase", "DeleteDatabase"]

    play(story)


def test_what_may_be_repeated_is(served: tuple[Control, Client]) -> None:
    control, client = served
    control.failures = 2
    assert client.undo("app").changed
    assert len({request.request_id for request in control.asked}) == 1, "one move"
    assert len(control.asked) == 3
    control.failures = 1
    assert client.create("new", if_not_exists=True).facts.created


def test_what_might_happen_twice_is_not_repeated(served: tuple[Control, Client]) -> None:
    control, client = served
    control.failures = 1
    with pytest.raises(Unavailable) as error:
        client.create("new")
    assert error.value.reason == "STARTING"
    assert len(control.asked) == 1


def test_an_error_has_its_reason_and_its_hint(served: tuple[Control, Client]) -> None:
    _, client = served
    with pytest.raises(NotFound) as error:
        client.database("nothing")
    assert (error.value.reason, error.value.hint) == ("DATABASE_NOT_FOUND", "Make one.")


def test_a_long_list_is_put_together(served: tuple[Control, Client]) -> None:
    control, client = served
    control.names = [f"app-{number}" for number in range(2 * PAGE_SIZE + 1)]
    assert [facts.name for facts in client.databases()] == control.names


def test_a_tenant_is_named_and_asked_for_once() -> None:
    with serving() as (control, address):
        with sdk.connect(address, token="t", tenant="acme") as client:
            client.create("a")
            client.create("b")
        assert kinds(control) == ["GetTenant", "CreateDatabase", "CreateDatabase"]
        assert control.asked[-1].tenant_id == b"t" * 16


def test_threads_share_a_client(served: tuple[Control, Client]) -> None:
    control, client = served
    threads = [threading.Thread(target=client.create, args=(f"n{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {request.name for request in control.asked} == {f"n{i}" for i in range(8)}


def test_it_needs_no_native_part() -> None:
    code = (
        "import sys, pagestore; pagestore.connect('127.0.0.1:1', token='t').close(); "
        "sys.exit('pagestore._native' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert done.returncode == 0
