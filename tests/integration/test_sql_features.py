"""SQL that touches storage in a way of its own, on the whole system, against plain Postgres.

Each feature has a first and a second half. Both run on a database of pagestore and on plain
Postgres, with 16 MB of shared buffers. A branch is taken between the halves. Its queries must
answer what plain Postgres answered after the first half; the database's, what it answered
after the second: as it runs, after its compute's directory was thrown away, and after the
compute was killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.plain_postgres import PlainPostgres, plain_postgres

ROWS = 20_000


@dataclass(frozen=True)
class Feature:
    name: str
    first: str
    second: str
    query: str


FEATURES = [
    *(
        Feature(
            method,
            f"CREATE TABLE {method}_t AS SELECT g AS id, {value} AS v"
            f" FROM generate_series(1, {ROWS}) g;"
            f" CREATE INDEX {method}_i ON {method}_t USING {method} (v {opclass})",
            f"UPDATE {method}_t SET v = v WHERE id % 3 = 0;"
            f" DELETE FROM {method}_t WHERE id % 5 = 0;"
            f" INSERT INTO {method}_t SELECT g, {value} FROM generate_series(1, 3000) g",
            f"SET enable_seqscan = off; SELECT count(*), sum(id) FROM {method}_t WHERE {condition}",
        )
        for method, value, opclass, condition in (
            ("btree", "md5(g::text)", "", "v < '4'"),
            ("hash", "g % 700", "", "v = 33"),
            ("gin", "ARRAY[g % 50, g % 333]", "", "v @> ARRAY[7]"),
            ("gist", "point(g % 211, g % 97)", "", "v <@ box(point(5, 5), point(60, 60))"),
            ("spgist", "md5((g % 900)::text)", "", "v = md5('44')"),
            ("brin", "g / 10", "", "v BETWEEN 300 AND 500"),
        )
    ),
    Feature(
        "toast",
        "CREATE TABLE toast_t (id int, v text);"
        " ALTER TABLE toast_t ALTER v SET STORAGE EXTERNAL;"
        " INSERT INTO toast_t SELECT g, repeat(md5(g::text), 1000) FROM generate_series(1, 60) g",
        "UPDATE toast_t SET v = v || 'x' WHERE id % 2 = 0; DELETE FROM toast_t WHERE id % 7 = 0",
        "SELECT count(*), sum(length(v)), md5(string_agg(md5(v), '' ORDER BY id)) FROM toast_t",
    ),
    Feature(
        "vacuum_full",
        f"CREATE TABLE full_t AS SELECT g AS id FROM generate_series(1, {ROWS}) g;"
        " CREATE INDEX ON full_t (id); DELETE FROM full_t WHERE id % 2 = 0",
        "VACUUM FULL full_t",
        "SELECT count(*), sum(id), pg_relation_size('full_t') FROM full_t",
    ),
    Feature(
        "cluster",
        f"CREATE TABLE cluster_t AS SELECT g AS id, md5(g::text) AS v"
        f" FROM generate_series(1, {ROWS}) g; CREATE INDEX cluster_i ON cluster_t (v)",
        "CLUSTER cluster_t USING cluster_i",
        "SELECT count(*), (SELECT id FROM cluster_t LIMIT 1 OFFSET 77) IS NOT NULL FROM cluster_t",
    ),
    Feature(
        "sequence",
        "CREATE SEQUENCE seq_s; CREATE TABLE seq_t AS SELECT nextval('seq_s') AS a"
        " FROM generate_series(1, 100)",
        "INSERT INTO seq_t SELECT nextval('seq_s') FROM generate_series(1, 50)",
        "SELECT count(*), max(a) FROM seq_t",
    ),
    Feature(
        "truncate",
        f"CREATE TABLE cut_t AS SELECT g AS id FROM generate_series(1, {ROWS}) g;"
        f" DELETE FROM cut_t WHERE id > 100; VACUUM cut_t",
        f"INSERT INTO cut_t SELECT g FROM generate_series(1, {ROWS}) g; TRUNCATE cut_t;"
        " INSERT INTO cut_t SELECT g FROM generate_series(1, 5000) g",
        "SELECT count(*), sum(id), pg_relation_size('cut_t') FROM cut_t",
    ),
    Feature(
        "subtransactions",
        "CREATE TABLE sub_t (id int); DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN"
        " INSERT INTO sub_t VALUES (i); IF i % 3 = 0 THEN RAISE 'x'; END IF;"
        " EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
        "BEGIN; SAVEPOINT a; INSERT INTO sub_t VALUES (1000); ROLLBACK TO a;"
        " INSERT INTO sub_t VALUES (2000); COMMIT",
        "SELECT count(*), sum(id) FROM sub_t",
    ),
    Feature(
        "large_objects",
        "SELECT lo_from_bytea(77001, convert_to(repeat('abc', 30000), 'UTF8'))",
        "SELECT lo_put(77001, 5000, 'changed'); SELECT lo_from_bytea(77002, 'new')",
        "SELECT count(*), sum(length(lo_get(oid))), md5(lo_get(77001))"
        " FROM pg_largeobject_metadata WHERE oid > 77000 GROUP BY 3",
    ),
    Feature(
        "databases",
        "CREATE DATABASE other_d1",
        "CREATE DATABASE other_d2 TEMPLATE other_d1; DROP DATABASE other_d1",
        "SELECT array_agg(datname::text ORDER BY datname) FROM pg_database"
        " WHERE datname LIKE 'other%'",
    ),
    Feature(
        "file_copy",
        "SELECT 1",
        "CREATE DATABASE copied_d STRATEGY file_copy",
        "SELECT array_agg(datname::text ORDER BY datname) FROM pg_database"
        " WHERE datname LIKE 'copied%'",
    ),
    Feature(
        "copy",
        "CREATE TABLE copy_t (id int, v text)",
        "COPY copy_t FROM PROGRAM 'seq 1 9000 | sed s/$/,row/' (FORMAT csv)",
        "SELECT count(*), sum(id), max(v) FROM copy_t",
    ),
]


class Server:
    """A database reached by a conninfo: pagestore's or plain Postgres's."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.conninfo, autocommit=True)

    def run(self, statements: str) -> list[tuple[Any, ...]]:
        """Each statement on its own; the last one's rows."""
        rows: list[tuple[Any, ...]] = []
        with self.connect() as connection:
            for statement in _split(statements):
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows


def _split(statements: str) -> list[str]:
    if "$$" in statements:
        head, _, tail = statements.partition("DO $$")
        return [*_split(head), "DO $$" + tail]
    return [part for part in statements.split(";") if part.strip()]


@dataclass(frozen=True)
class Stage:
    whole: Whole
    database: Server
    branch: Server
    after_first: dict[str, Any]
    after_second: dict[str, Any]


@pytest.fixture(scope="module")
def plain() -> Iterator[PlainPostgres]:
    with plain_postgres(shared_buffers="16MB", max_prepared_transactions=5) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def stage(plain: PlainPostgres) -> Iterator[Stage]:
    with whole_pagestore({"shared_buffers": "16MB"}) as whole:
        database = Server(whole.json("create", "features")["url"])
        oracle = Server(plain.conninfo())
        after_first = _both(database, oracle, "first")
        branch = Server(whole.json("branch", "features", "midway")["url"])
        after_second = _both(database, oracle, "second")
        yield Stage(whole, database, branch, after_first, after_second)


def _both(database: Server, oracle: Server, half: str) -> dict[str, Any]:
    for feature in FEATURES:
        for server in (oracle, database):
            server.run(getattr(feature, half))
    return {feature.name: oracle.run(feature.query) for feature in FEATURES}


def check(server: Server, expected: dict[str, Any]) -> None:
    found = {feature.name: server.run(feature.query) for feature in FEATURES}
    assert found == expected


def test_the_database_answers_as_plain_postgres(stage: Stage) -> None:
    check(stage.database, stage.after_second)


def test_the_branch_is_the_database_of_midway(stage: Stage) -> None:
    check(stage.branch, stage.after_first)


def test_after_the_directory_was_thrown_away(stage: Stage) -> None:
    stage.whole.run("stop", "features", "midway")
    for name in ("features", "midway"):
        stage.whole.run("start", name)
    check(stage.database, stage.after_second)
    check(stage.branch, stage.after_first)


def test_after_the_compute_was_killed(stage: Stage) -> None:
    pid = stage.whole.json("show", "features")["compute_pid"]
    os.kill(pid, signal.SIGKILL)
    patiently(lambda: stage.database.run("SELECT 1"))
    check(stage.database, stage.after_second)


def test_indexes_agree_with_their_tables(stage: Stage) -> None:
    stage.database.run("CREATE EXTENSION IF NOT EXISTS amcheck")
    rows = stage.database.run(
        "SELECT count(bt_index_check(c.oid, true)) FROM pg_index i"
        " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
        " WHERE a.amname = 'btree' AND c.relpersistence = 'p'"
    )
    assert rows[0][0] > 100


def test_unlogged_tables_are_empty_after_a_start_and_usable(stage: Stage) -> None:
    stage.database.run("CREATE UNLOGGED TABLE fast AS SELECT g AS id FROM generate_series(1, 9) g")
    stage.database.run("CREATE INDEX ON fast (id)")
    assert stage.database.run("SELECT count(*) FROM fast") == [(9,)]
    stage.whole.run("stop", "features")
    stage.whole.run("start", "features")
    assert stage.database.run("SELECT count(*) FROM fast") == [(0,)]
    stage.database.run("INSERT INTO fast VALUES (1)")
    assert stage.database.run("SET enable_seqscan = off; SELECT id FROM fast WHERE id = 1") == [
        (1,)
    ]


def test_temporary_tables_live_as_long_as_their_session(stage: Stage) -> None:
    with stage.database.connect() as session:
        session.execute("CREATE TEMP TABLE mine AS SELECT g FROM generate_series(1, 50000) g")
        row = session.execute("SELECT count(*), sum(g) FROM mine").fetchone()
        assert row == (50_000, 1_250_025_000)
    assert stage.database.run("SELECT to_regclass('mine')") == [(None,)]


def test_an_open_cursor_keeps_its_view_while_pages_are_evicted(stage: Stage) -> None:
    rows = 60_000
    stage.database.run(
        "CREATE TABLE wide AS SELECT g AS id, repeat('w', 400) AS v"
        f" FROM generate_series(1, {rows}) g"
    )
    with stage.database.connect() as session, session.transaction():
        session.execute("DECLARE slow CURSOR FOR SELECT id FROM wide")
        first = session.execute("FETCH 10 FROM slow").fetchall()
        session.execute("UPDATE wide SET v = 'changed' WHERE id % 2 = 0")
        session.execute("INSERT INTO wide SELECT id + 1000000, v FROM wide")
        rest = session.execute("FETCH ALL FROM slow").fetchall()
        assert sorted(row[0] for row in first + rest) == list(range(1, rows + 1))
    assert stage.database.run("SELECT count(*) FROM wide") == [(2 * rows,)]


def test_multixacts_outlive_a_start(stage: Stage) -> None:
    stage.database.run("CREATE TABLE shared_rows AS SELECT g AS id FROM generate_series(1, 500) g")
    with stage.database.connect() as one, stage.database.connect() as two:
        with one.transaction(), two.transaction():
            for session in (one, two):
                session.execute("SELECT id FROM shared_rows FOR SHARE")
        with one.transaction():
            one.execute("UPDATE shared_rows SET id = -id WHERE id <= 100")
    expected = stage.database.run("SELECT count(*), sum(id) FROM shared_rows")
    stage.whole.run("stop", "features")
    stage.whole.run("start", "features")
    assert stage.database.run("SELECT count(*), sum(id) FROM shared_rows") == expected
    stage.database.run("UPDATE shared_rows SET id = id + 1")


def test_prepared_transactions_cross_a_restart_and_a_branch(stage: Stage) -> None:
    stage.database.run("CREATE TABLE promised (id int)")
    for number in (1, 2):
        with stage.database.connect() as session:
            for statement in (
                "BEGIN",
                f"INSERT INTO promised VALUES ({number})",
                f"PREPARE TRANSACTION 'promise-{number}'",
            ):
                session.execute(statement.encode())
    branch = Server(stage.whole.json("branch", "features", "promises")["url"])
    stage.whole.run("stop", "features")
    stage.whole.run("start", "features")
    stage.database.run("COMMIT PREPARED 'promise-1'; ROLLBACK PREPARED 'promise-2'")
    branch.run("ROLLBACK PREPARED 'promise-1'; COMMIT PREPARED 'promise-2'")
    assert stage.database.run("SELECT id FROM promised") == [(1,)]
    assert branch.run("SELECT id FROM promised") == [(2,)]
    assert branch.run("SELECT count(*) FROM pg_prepared_xacts") == [(0,)]
