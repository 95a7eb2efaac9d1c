"""Relation files are made when they are first written to or asked of, and nobody notices."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.integration.page_source import (
    HydratingPostgres,
    PageSource,
    hydrating,
    relation_files,
)
from tests.plain_postgres import PlainPostgres, plain_postgres

SETUP = """
CREATE TABLE big AS SELECT g AS id, repeat('x', 300) AS pad FROM generate_series(1, 20000) g;
CREATE INDEX big_id ON big (id);
CREATE TABLE toasted AS SELECT string_agg(md5(g::text), '') AS v FROM generate_series(1, 900) g;
CREATE TABLE empty (id int PRIMARY KEY, note text);
CREATE TABLE doomed AS SELECT * FROM big;
"""
RELATION_SIZES = """
    SELECT relname, pg_relation_size(oid), pg_relation_size(oid, 'fsm'), pg_table_size(oid),
           pg_indexes_size(oid), pg_total_relation_size(oid)
    FROM pg_class WHERE relkind IN ('r', 't', 'i', 'S') AND relname !~ '^pg_toast' ORDER BY relname
"""
DATABASE_SIZES = """
    SELECT datname, pg_database_size(datname) = pg_database_size(oid),
           pg_database_size(oid) > 6000000 FROM pg_database ORDER BY datname
"""


@pytest.fixture(scope="module")
def source() -> Iterator[PlainPostgres]:
    with plain_postgres(autovacuum="off") as cluster:
        cluster.sql(SETUP)
        cluster.sql("CREATE DATABASE other")
        cluster.sql("CREATE TABLE o AS SELECT generate_series(1, 1000) AS id", "other")
        # Now its number is no row's oid: only the file system knows that it is taken.
        cluster.sql("VACUUM FULL doomed")
        cluster.sql("VACUUM ANALYZE")
        cluster.stop()
        yield cluster


@pytest.fixture
def compute(source: PlainPostgres, pages: PageSource) -> Iterator[HydratingPostgres]:
    with hydrating(source, pages, autovacuum="off") as cluster:
        yield cluster


def files(cluster: PlainPostgres) -> int:
    return len(relation_files(cluster.data))


def test_a_session_makes_the_files_that_it_reads_and_no_others(
    source: PlainPostgres, compute: HydratingPostgres
) -> None:
    assert compute.sql("SELECT count(*) FROM big") == [(20000,)]
    assert 0 < files(compute) < files(source) / 4


def test_sizes_are_those_of_the_source(source: PlainPostgres, pages: PageSource) -> None:
    source.start()
    expected = source.sql(RELATION_SIZES)
    source.stop()
    with hydrating(source, pages, autovacuum="off") as compute:
        assert compute.sql(RELATION_SIZES) == expected
        made = files(compute)
        assert {row[1:] for row in compute.sql(DATABASE_SIZES)} == {(True, True)}
        assert files(compute) > made
        assert compute.sql("SELECT pg_tablespace_size('pg_default') > 25000000") == [(True,)]


def test_every_table_can_be_written_first(compute: HydratingPostgres) -> None:
    compute.sql("INSERT INTO empty VALUES (1, 'a'); INSERT INTO toasted VALUES (repeat('y', 9999))")
    compute.sql("UPDATE big SET pad = '' WHERE id % 100 = 0; TRUNCATE doomed")
    compute.sql("INSERT INTO doomed VALUES (1, 'z'); CHECKPOINT")
    assert compute.sql("SELECT count(*) FROM big WHERE pad = ''") == [(200,)]
    assert compute.sql("SELECT * FROM empty") == [(1, "a")]
    assert compute.sql("SELECT * FROM doomed") == [(1, "z")]
    assert compute.sql("SELECT max(length(v)) FROM toasted") == [(28800,)]


def test_what_was_never_made_can_be_dropped(compute: HydratingPostgres) -> None:
    compute.sql("DROP TABLE doomed, toasted")
    compute.sql("VACUUM big")
    compute.sql("CHECKPOINT")
    assert compute.sql("SELECT count(*) FROM big") == [(20000,)]
    compute.sql("CREATE TABLE doomed (id int); INSERT INTO doomed VALUES (3)")
    assert compute.sql("SELECT id FROM doomed") == [(3,)]


def test_a_database_is_brought_to_be_moved_and_for_no_refusal(
    compute: HydratingPostgres,
) -> None:
    [(number,)] = compute.sql("SELECT oid FROM pg_database WHERE datname = 'other'")
    place = compute.data / f"base/{number}"
    before = {path.name for path in place.iterdir()}
    with pytest.raises(psycopg.errors.UndefinedObject):
        compute.sql("ALTER DATABASE other SET TABLESPACE nowhere")
    assert {path.name for path in place.iterdir()} == before
    with compute.connect() as session:
        session.execute("SET allow_in_place_tablespaces = on")
        session.execute("CREATE TABLESPACE aside LOCATION ''")
    compute.sql("ALTER DATABASE other SET TABLESPACE aside")
    assert not place.exists()
    assert compute.sql("SELECT sum(id) FROM o", "other") == [(500500,)]
    [(path,)] = compute.sql("SELECT pg_relation_filepath('o')", "other")
    assert path.startswith("pg_tblspc/")


def test_a_file_number_that_is_taken_is_not_given_twice(compute: HydratingPostgres) -> None:
    """A file that is not made yet is no free number: the statement fails, and nothing is lost."""
    [(number,)] = compute.sql("SELECT relfilenode FROM pg_class WHERE relname = 'doomed'")
    compute.stop()
    compute.tool("pg_resetwal", "--force", "--next-oid", number, compute.data)
    compute.start()
    with pytest.raises(psycopg.errors.DuplicateFile, match="File exists"):
        compute.sql("CREATE TABLE fresh (id int)")
    assert compute.sql("SELECT count(*) FROM doomed") == [(20000,)]


def test_databases_are_dropped_and_copied(compute: HydratingPostgres) -> None:
    compute.sql("CREATE DATABASE copied TEMPLATE other STRATEGY file_copy")
    compute.sql("CREATE DATABASE logged TEMPLATE other STRATEGY wal_log")
    for name in ("copied", "logged"):
        assert compute.sql("SELECT count(*) FROM o", name) == [(1000,)]
    [(oid,)] = compute.sql("SELECT oid FROM pg_database WHERE datname = 'other'")
    compute.sql("DROP DATABASE other")
    assert not (compute.data / f"base/{oid}").exists()
    assert compute.sql("SELECT pg_database_size('copied') > 0") == [(True,)]
    assert not (compute.data / f"base/{oid}").exists()
