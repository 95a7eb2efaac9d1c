"""What Postgres does not put into WAL as it is: unlogged tables, sequences, whole databases."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.integration.installation import Whole, whole_pagestore


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.json("create", "app")
        yield running


def test_an_unlogged_table_is_empty_after_a_stateless_start(whole: Whole) -> None:
    """Throwing the directory away equals a crash, and a crash empties unlogged tables."""
    whole.sql("app", "CREATE UNLOGGED TABLE u (id int PRIMARY KEY, t text)")
    whole.sql("app", "INSERT INTO u SELECT i, repeat('u', 3000) FROM generate_series(1, 2000) i")
    assert whole.sql("app", "SELECT count(*) FROM u") == [(2000,)]
    whole.json("branch", "app", "unlogged")
    whole.json("stop", "app")
    whole.json("start", "app")
    for name in ("app", "unlogged"):
        assert whole.sql(name, "SELECT count(*) FROM u") == [(0,)]
        whole.sql(name, "INSERT INTO u VALUES (1, 'again')")
        assert whole.sql(name, "SELECT id FROM u WHERE id = 1") == [(1,)]
    whole.sql("app", "ALTER TABLE u SET LOGGED")
    whole.json("stop", "app")
    whole.json("start", "app")
    assert whole.sql("app", "SELECT id, t FROM u") == [(1, "again")]


def test_a_sequence_never_repeats(whole: Whole) -> None:
    whole.sql("app", "CREATE SEQUENCE s")
    seen = [whole.sql("app", "SELECT nextval('s')")[0][0] for _ in range(40)]
    whole.json("branch", "app", "sequences")
    seen += [whole.sql("app", "SELECT nextval('s')")[0][0] for _ in range(5)]
    whole.json("stop", "app")
    whole.json("start", "app")
    seen += [whole.sql("app", "SELECT nextval('s')")[0][0] for _ in range(5)]
    assert seen == sorted(set(seen))
    assert whole.sql("sequences", "SELECT nextval('s')")[0][0] > seen[39]


@pytest.mark.parametrize("strategy", ["wal_log", "file_copy"])
def test_databases_come_and_go(whole: Whole, strategy: str) -> None:
    name = f"inner_{strategy}"
    whole.sql("app", f"CREATE DATABASE {name} STRATEGY {strategy}")
    with whole.connect("app", name) as inner:
        inner.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 5000) i")
    whole.json("branch", "app", f"with-{name}")
    whole.sql("app", f"DROP DATABASE {name}")
    whole.json("stop", "app")
    whole.json("start", "app")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        whole.connect("app", name)
    with whole.connect(f"with-{name}", name) as inner:
        assert inner.execute("SELECT count(*), sum(i) FROM t").fetchone() == (5000, 12502500)


def test_free_space_is_remembered_over_a_clean_stop(whole: Whole) -> None:
    """The free space map is in no WAL, and a table must not grow where it has room."""
    whole.sql("app", "CREATE TABLE fsm (id int, pad text) WITH (autovacuum_enabled = off)")
    rows = "SELECT i, repeat('f', 400) FROM generate_series(1, 8000) i"
    whole.sql("app", f"INSERT INTO fsm {rows}")
    whole.sql("app", "DELETE FROM fsm WHERE id % 2 = 0")
    whole.sql("app", "VACUUM fsm")
    before = whole.sql("app", "SELECT pg_relation_size('fsm')")[0][0]
    whole.json("stop", "app")
    whole.json("start", "app")
    whole.sql("app", f"INSERT INTO fsm SELECT * FROM ({rows}) r LIMIT 3000")
    assert whole.sql("app", "SELECT pg_relation_size('fsm')")[0][0] == before


def test_statistics_survive_a_clean_stop(whole: Whole) -> None:
    whole.sql("app", "CREATE TABLE counted AS SELECT i FROM generate_series(1, 1000) i")
    whole.sql("app", "SELECT pg_stat_force_next_flush()")
    whole.json("stop", "app")
    whole.json("start", "app")
    query = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'counted'"
    assert whole.sql("app", query) == [(1000,)]
