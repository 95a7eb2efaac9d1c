"""Real clients, unchanged, at a database that is awake, asleep, or somewhere else than before."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from tests.clients import programs, with_asyncpg, with_dbapi, with_psql, with_psycopg
from tests.clients.client import CHANNEL, Client, Door
from tests.clients.conftest import IDLE_SECONDS
from tests.clients.disturbing import crash, put_to_sleep
from tests.integration.proxied import RunningProxy

QUICK: dict[str, Callable[[Door], Client]] = {
    "psql": with_psql.Psql,
    "psycopg": with_psycopg.OneSession,
    "psycopg-async": with_psycopg.Asynchronous,
    "psycopg-pool": with_psycopg.Pool,
    "asyncpg": with_asyncpg.Pool,
    "sqlalchemy": with_dbapi.SqlAlchemy,
    "pg8000": with_dbapi.Pg8000,
}
OTHERS: dict[str, Callable[[Door], Client]] = {
    "psql-17": lambda door: with_psql.Psql(door, 17),
    "psql-18": lambda door: with_psql.Psql(door, 18),
    "node": lambda door: programs.Program(door, programs.node),
    "go": lambda door: programs.Program(door, programs.go),
    "java": lambda door: programs.Program(door, programs.java),
}
BINDS = {"psql", "psycopg", "pg8000", "psql-17", "psql-18", "go", "java", "node"}
"""Those that can be told to bind their login to the certificate, or do so by themselves."""


@pytest.fixture(params=[*QUICK, *OTHERS])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[Door], Client]]:
    name = str(request.param)
    if name in OTHERS and request.config.getoption("--clients") != "all":
        pytest.skip("did NOT run: needs --clients=all")
    made: list[Client] = []

    def make(door: Door) -> Client:
        made.append({**QUICK, **OTHERS}[name](door))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def door(proxy: RunningProxy) -> Door:
    return Door(proxy.port)


def notify(door: Door, payload: str) -> None:
    with psycopg.connect(door.libpq(), autocommit=True) as session:
        session.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


def test_a_client_does_all_that_it_can(make: Callable[[Door], Client], door: Door) -> None:
    make(door).exercise()


def test_a_client_wakes_a_database_and_its_sessions_outlive_sleep_and_crash(
    make: Callable[[Door], Client], proxy: RunningProxy, door: Door
) -> None:
    put_to_sleep(proxy)
    client = make(door)
    client.settle()
    client.check()
    put_to_sleep(proxy)
    client.check()
    put_to_sleep(proxy)
    notify(door, "after sleep")
    assert client.heard() == ["after sleep"]
    client.check()
    crash(proxy)
    notify(door, "after a crash")
    assert client.heard() == ["after a crash"]
    client.check()


@pytest.mark.parametrize("direct", [False, True], ids=["asked", "direct"])
def test_a_client_over_tls_with_all_that_it_can_verify(
    make: Callable[[Door], Client],
    door: Door,
    certificate: tuple[Path, Path],
    direct: bool,
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.params["make"]
    if direct and name in {"psql", "pg8000", "node"}:
        pytest.skip("this client does not speak first")
    client = make(door.over_tls(certificate[0], direct=direct))
    client.settle()
    client.exercise()
    client.check()


def test_a_pipeline_that_is_filled_slowly_is_one(proxy: RunningProxy, door: Door) -> None:
    """What came before its Sync has run: to part the session there would lose the answers."""
    with psycopg.connect(door.libpq(), autocommit=True) as session:
        libpq = session.pgconn
        libpq.enter_pipeline_mode()
        for number in (b"1", b"2"):
            libpq.send_query_params(b"SELECT $1", [number])
            libpq.flush()
            time.sleep(3 * IDLE_SECONDS)
        libpq.pipeline_sync()
        libpq.flush()
        found = []
        while (result := next_result(libpq)) is None or result.status != ExecStatus.PIPELINE_SYNC:
            if result is not None:
                found.append(result.get_value(0, 0))
        assert found == [b"1", b"2"]
        put_to_sleep(proxy)


def next_result(libpq: PGconn) -> PGresult | None:
    """None between two statements of a pipeline."""
    while libpq.is_busy():
        assert select.select([libpq.socket], [], [], 30)[0], "no answer came"
        libpq.consume_input()
    return libpq.get_result()
