"""pagestore_session on a plain Postgres: what a session is made of, and who may set it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.proxied import MODULE
from tests.plain_postgres import PlainPostgres, plain_postgres

Connect = Callable[[], psycopg.Connection[Any]]
SHOW = "SHOW pagestore_session.state"


@pytest.fixture(scope="module")
def server() -> Iterator[PlainPostgres]:
    with plain_postgres(max_connections=50) as server:
        shutil.copy(MODULE, server.root)
        server.configure(shared_preload_libraries=server.root / MODULE.name)
        server.configure(**{"pagestore_session.key": "a secret"})
        server.stop()
        server.start()
        server.sql("CREATE ROLE ann LOGIN; CREATE ROLE web; GRANT web TO ann")
        server.sql("GRANT CREATE ON SCHEMA public TO ann, web")
        yield server


@pytest.fixture
def connect(server: PlainPostgres) -> Iterator[Connect]:
    opened: list[psycopg.Connection[Any]] = []

    def make() -> psycopg.Connection[Any]:
        conninfo = f"host={server.root} port={server.port} user=ann dbname=postgres"
        opened.append(psycopg.connect(conninfo, autocommit=True, prepare_threshold=None))
        return opened[-1]

    server.sql("DROP TABLE IF EXISTS t; CREATE TABLE t (a int, b text); GRANT ALL ON t TO web, ann")
    server.sql("INSERT INTO t VALUES (1, 'z')")
    yield make
    for session in opened:
        session.close()


def shown(session: psycopg.Connection[Any]) -> str:
    row = session.execute(SHOW).fetchone()
    assert row is not None
    return str(row[0])


def take_up(session: psycopg.Connection[Any], text: str) -> None:
    session.execute(f"SET pagestore_session.state = '{text}'")


def dressed(connect: Connect) -> psycopg.Connection[Any]:
    """A session with some of everything that is carried."""
    session = connect()
    for setting in ("work_mem = '7MB'", "seq_page_cost = 1.2345678901234567", "my.own = 'x ''y'"):
        session.execute(f"SET {setting}")
    session.execute("SET search_path = public, pg_catalog")
    session.execute("SET client_encoding = 'LATIN1'")
    session.execute("SET ROLE web")
    session.execute("LISTEN news")
    session.execute(
        "SET jit = off; PREPARE p1(int) AS SELECT a + $1 FROM t; PREPARE p2 AS SELECT 'ü'"
    )
    session.pgconn.prepare(b"proto", b"SELECT $1::text || b, $2 FROM t", [0, 23])
    return session


QUESTIONS = [
    *(f"SHOW {name}" for name in ("work_mem", "seq_page_cost", "my.own", "search_path", "jit")),
    "SHOW client_encoding",
    "SELECT current_user, session_user",
    "SELECT pg_listening_channels()",
    "SELECT name, parameter_types::text, from_sql FROM pg_prepared_statements ORDER BY name",
    "EXECUTE p1(5)",
    "EXECUTE p2",
]


def test_a_session_taken_up_is_what_it_was(connect: Connect) -> None:
    before, after = dressed(connect), connect()
    text = shown(before)
    assert text[0] == "*", "it listens"
    take_up(after, text[1:])
    for question in QUESTIONS:
        assert before.execute(question).fetchall() == after.execute(question).fetchall(), question
    result = after.pgconn.exec_prepared(b"proto", [b"q", b"3"])
    assert (result.get_value(0, 0), result.get_value(0, 1)) == (b"qz", b"3")
    assert shown(after) == text


def test_a_notification_reaches_who_listens_again(connect: Connect, server: PlainPostgres) -> None:
    before, after = dressed(connect), connect()
    take_up(after, shown(before)[1:])
    server.sql("NOTIFY news, 'it works'")
    (notification,) = after.notifies(timeout=20, stop_after=1)
    assert notification.payload == "it works"


def test_statements_whose_table_is_gone_say_so_when_they_run_and_no_sooner(
    connect: Connect, server: PlainPostgres
) -> None:
    text = shown(dressed(connect))[1:]
    server.sql("DROP TABLE t")
    after = connect()
    take_up(after, text)
    with pytest.raises(psycopg.errors.UndefinedTable):
        after.execute("EXECUTE p1(5)")
    server.sql("CREATE TABLE t (a int, b text); GRANT ALL ON t TO web")
    assert not after.pgconn.exec_prepared(b"proto", [b"q", b"3"]).error_message


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["CREATE TEMP TABLE x (a int)"], "temporary tables"),
        (["SELECT pg_advisory_lock(1)"], "advisory locks"),
        (["BEGIN"], "a transaction"),
        (["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"], "cursors WITH HOLD"),
        (["CREATE SEQUENCE IF NOT EXISTS s", "SELECT nextval('s')"], "a sequence that was read"),
    ],
)
def test_what_cannot_be_carried_is_named(
    connect: Connect, statements: list[str], words: str
) -> None:
    session = connect()
    for statement in statements:
        session.execute(statement)
    assert shown(session) == f"-{words}"
    session.execute("ROLLBACK")
    session.execute("DISCARD ALL")
    assert shown(session)[0] == "+"


def test_nobody_sets_what_was_not_shown(connect: Connect, server: PlainPostgres) -> None:
    text = shown(dressed(connect))[1:]
    forged = text[:-2] + ("00" if text[-2:] != "00" else "01")
    for bad in ("", "00", text[:-2], text[2:], forged, "zz" * 100):
        with pytest.raises(psycopg.Error):
            take_up(connect(), bad)
    with server.connect() as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
        take_up(other, text)
    session = connect()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SHOW pagestore_session.key")
