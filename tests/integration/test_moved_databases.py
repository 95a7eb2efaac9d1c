"""ALTER DATABASE ... SET TABLESPACE, and databases made in tablespaces: copied as files, past the
storage manager, whose blocks a compute has not read yet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import psycopg
import pytest

from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.process import account
from pagestore.transfer.export import export_pgdata
from tests.integration.stack import Compute, Stack, running_stack
from tests.plain_postgres import RUN_AS, PlainPostgres, plain_postgres, reachable_dir

SPACES = ("one", "two")
SETUP = [
    "CREATE TABLE rows AS SELECT i, repeat(md5(i::text), 9) AS t FROM generate_series(1, 4000) i",
    "CREATE INDEX ON rows (i); CREATE INDEX ON rows USING gin (to_tsvector('simple', t))",
    "CREATE TABLE wide AS SELECT string_agg(md5(i::text), '') t FROM generate_series(1, 9000) i",
    "CREATE TABLE emptied AS SELECT i FROM generate_series(1, 3000) i; TRUNCATE emptied",
    "CREATE UNLOGGED TABLE fleeting (i int PRIMARY KEY); INSERT INTO fleeting VALUES (1)",
    "CREATE SEQUENCE numbers; SELECT nextval('numbers')",
    "VACUUM FULL pg_class; VACUUM FULL pg_proc; REINDEX INDEX pg_type_oid_index",
    "DELETE FROM rows WHERE i % 5 = 0; VACUUM rows",
]
FACTS = """
    SELECT (SELECT md5(string_agg(r::text, ',' ORDER BY i)) FROM rows r),
        (SELECT md5(t) FROM wide), (SELECT count(*) FROM emptied), (SELECT count(*) FROM pg_class)
"""
WHERE_IT_IS = "SELECT pg_relation_filepath('rows'), pg_relation_filepath('pg_class')"
CHECKED = """
    SELECT count(bt_index_check(i.indexrelid, true)) FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE a.amname = 'btree' AND c.relpersistence = 'p'
"""
Server = Compute | PlainPostgres


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as made:
        yield made


@pytest.fixture(scope="module")
def template(stack: Stack) -> TimelineId:
    with plain_postgres() as cluster:
        with cluster.connect() as session:
            session.execute("SET allow_in_place_tablespaces = on")
            for space in SPACES:
                session.execute(f"CREATE TABLESPACE {space} LOCATION ''")
        cluster.sql("CREATE DATABASE moves")
        for statement in ["CREATE EXTENSION amcheck", *SETUP]:
            for single in statement.split("; "):
                cluster.sql(single, "moves")
        cluster.stop()
        return stack.import_cluster(cluster.data)


@pytest.fixture
def timeline(stack: Stack, template: TimelineId) -> TimelineId:
    """A branch of the imported cluster's beginning."""
    return stack.branch_of_beginning(template)


def facts(server: Server, database: str = "moves") -> object:
    """Its content, once Postgres itself finds every B-tree as it should be."""
    assert server.sql(CHECKED, database)[0][0] > 100
    return server.sql(FACTS, database)


def space_of(server: Server, database: str = "moves") -> str:
    """The tablespace's name; its files are there, and nowhere else."""
    [(name, oid)] = server.sql(
        "SELECT s.spcname, s.oid FROM pg_database d JOIN pg_tablespace s ON s.oid = d.dattablespace"
        f" WHERE datname = '{database}'"
    )
    place = "base/" if name == "pg_default" else f"pg_tblspc/{oid}/"
    assert all(path.startswith(place) for path in server.sql(WHERE_IT_IS, database)[0])
    return str(name)


def move(server: Server, space: str) -> None:
    server.sql(f"ALTER DATABASE moves SET TABLESPACE {space}")


def test_a_database_nobody_has_read_moves_and_stays(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline)
    before = facts(compute)
    origin = compute.lsn()
    compute.stop()
    compute = stack.start(timeline)
    move(compute, "one")
    assert (space_of(compute), facts(compute)) == ("one", before)
    moved = compute.lsn()
    compute.sql("UPDATE rows SET t = 'changed' WHERE i % 3 = 0", "moves")
    changed = facts(compute)
    assert changed != before
    compute.kill()
    compute = stack.start(timeline)
    assert (space_of(compute), facts(compute)) == ("one", changed)
    assert compute.stop().clean
    # Back to where its files were, in a life that has never seen them there.
    compute = stack.start(timeline)
    move(compute, "pg_default")
    compute.sql("DELETE FROM rows WHERE i % 7 = 0", "moves")
    last = facts(compute)
    assert space_of(compute) == "pg_default"
    assert compute.stop().clean
    for lsn, place, content in (
        (origin, "pg_default", before),
        (moved, "one", before),
        (compute.running.start_lsn, "one", changed),
    ):
        branch = stack.start(stack.branch(timeline, lsn))
        assert (space_of(branch), facts(branch)) == (place, content)
        branch.kill()
    compute = stack.start(timeline)
    assert (space_of(compute), facts(compute)) == ("pg_default", last)
    compute.kill()


def test_there_and_back_in_one_life(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline)
    before = facts(compute)
    for space in ("one", "two", "pg_default", "one", "pg_default"):
        move(compute, space)
        assert (space_of(compute), facts(compute)) == (space, before)
        compute.sql("INSERT INTO emptied VALUES (1)", "moves")
        compute.sql("TRUNCATE emptied", "moves")
    compute.kill()
    compute = stack.start(timeline)
    assert (space_of(compute), facts(compute)) == ("pg_default", before)
    for space in SPACES:
        compute.sql(f"DROP TABLESPACE {space}")
    compute.sql("DROP DATABASE moves")
    compute.kill()
    compute = stack.start(timeline)
    assert compute.sql("SELECT count(*) FROM pg_database WHERE datname = 'moves'") == [(0,)]
    assert compute.sql("SELECT count(*) FROM pg_tablespace") == [(2,)]
    compute.kill()


def test_a_moved_database_is_exported_and_imported(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline)
    move(compute, "two")
    before, lsn = facts(compute), compute.lsn()
    compute.kill()
    root = reachable_dir()
    exported = PlainPostgres(root)
    try:
        stack.wait(
            export_pgdata(
                stack.pages, DEFAULT_TENANT, timeline, lsn, exported.data, owner=account(RUN_AS)
            )
        )
        exported.start()
        assert (space_of(exported), facts(exported)) == ("two", before)
        exported.stop()
        again = stack.start(stack.import_cluster(exported.data))
        assert (space_of(again), facts(again)) == ("two", before)
        move(again, "pg_default")
        assert (space_of(again), facts(again)) == ("pg_default", before)
        again.kill()
    finally:
        exported.stop()
        shutil.rmtree(root)


@pytest.mark.parametrize("strategy", ["wal_log", "file_copy"])
def test_a_database_is_made_in_a_tablespace(
    stack: Stack, timeline: TimelineId, strategy: str
) -> None:
    compute = stack.start(timeline)
    compute.sql(f"CREATE DATABASE copy TEMPLATE moves TABLESPACE one STRATEGY {strategy}")
    # One whose template lies in a tablespace lies there too.
    compute.sql(f"CREATE DATABASE third TEMPLATE copy STRATEGY {strategy}")
    before = facts(compute)
    for name in ("copy", "third"):
        assert (space_of(compute, name), facts(compute, name)) == ("one", before)
    compute.sql("DROP DATABASE moves")
    compute.kill()
    compute = stack.start(timeline)
    for name in ("copy", "third"):
        assert (space_of(compute, name), facts(compute, name)) == ("one", before)
    compute.sql("DROP DATABASE third")
    compute.kill()
    compute = stack.start(timeline)
    assert facts(compute, "copy") == before
    compute.kill()


def test_relations_whose_files_are_not_made_are_in_the_way(
    stack: Stack, timeline: TimelineId
) -> None:
    """Postgres looks by files whether a database has something in the tablespace already."""
    compute = stack.start(timeline)
    compute.sql("ALTER TABLE wide SET TABLESPACE one", "moves")
    before = facts(compute)
    refused = {
        "ALTER DATABASE moves SET TABLESPACE one": "already in tablespace",
        "CREATE DATABASE copy TEMPLATE moves TABLESPACE one": "new default tablespace",
        "CREATE DATABASE copy TEMPLATE moves TABLESPACE one STRATEGY file_copy": "new default",
        "ALTER DATABASE moves SET TABLESPACE nowhere": "does not exist",
        "ALTER DATABASE nothing SET TABLESPACE one": "does not exist",
        "ALTER DATABASE moves SET TABLESPACE pg_global": "pg_global",
        "ALTER DATABASE postgres SET TABLESPACE one": "currently open",
    }
    for statement, words in refused.items():
        compute.kill()
        compute = stack.start(timeline)
        with pytest.raises(psycopg.Error, match=words):
            compute.sql(statement)
    # Elsewhere it may go, and what is in "one" stays there.
    move(compute, "two")
    compute.kill()
    compute = stack.start(timeline)
    assert (space_of(compute), facts(compute)) == ("two", before)
    compute.sql("ALTER TABLE wide SET TABLESPACE pg_default", "moves")
    move(compute, "one")
    compute.kill()
    compute = stack.start(timeline)
    assert (space_of(compute), facts(compute)) == ("one", before)
    compute.kill()
