"""Writing on a hydrating directory: what was written stays, what was not still arrives."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.integration.page_source import (
    SEGMENT_PAGES,
    HydratingPostgres,
    PageSource,
    adopt,
    fork_of,
    hydrating,
    plain_copy,
    serving,
)
from tests.plain_postgres import PlainPostgres, plain_postgres

SETUP = """
CREATE EXTENSION amcheck; CREATE EXTENSION pageinspect; CREATE EXTENSION pg_visibility;
CREATE TABLE docs (
    id int PRIMARY KEY, k int, words text[], area box, network inet, body text
);
INSERT INTO docs SELECT g, g * 7919 % 10007, ARRAY['w' || g % 50, 'w' || g % 7],
    box(point(g % 100, g % 90), point(g % 100 + 1, g % 90 + 2)),
    ('10.' || g % 250 || '.' || g % 240 || '.' || g % 230)::inet,
    repeat(md5(g::text), CASE WHEN g % 50 = 0 THEN 200 ELSE 3 END)
    FROM generate_series(1, 12000) g;
CREATE INDEX docs_btree ON docs (k);
CREATE INDEX docs_hash ON docs USING hash (id);
CREATE INDEX docs_gin ON docs USING gin (words);
CREATE INDEX docs_gist ON docs USING gist (area);
CREATE INDEX docs_spgist ON docs USING spgist (network);
CREATE INDEX docs_brin ON docs USING brin (id) WITH (pages_per_range = 8);
CREATE TABLE accounts AS SELECT g AS id, 100 AS balance, repeat('a', 200) AS pad
    FROM generate_series(1, 8000) g;
CREATE INDEX accounts_id ON accounts (id);
CREATE TABLE shrinking AS SELECT g AS id, repeat('s', 500) AS pad FROM generate_series(1, 6000) g;
CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 500) AS id;
CREATE SEQUENCE numbers;
SELECT nextval('numbers') FROM generate_series(1, 10);
"""
CHANGES = [
    "UPDATE docs SET k = k + 1, words = words || ARRAY['new'] WHERE id % 5 = 0",
    "DELETE FROM docs WHERE id % 11 = 0",
    "INSERT INTO docs SELECT id + 100000, k, words, area, network, body FROM docs WHERE id % 3 = 0",
    "UPDATE docs SET body = body || 'tail' WHERE id % 50 = 0",
    "CREATE INDEX docs_late ON docs USING gin (words)",
    "VACUUM docs",
    "CLUSTER docs USING docs_btree",
    "REINDEX TABLE docs",
    "UPDATE docs SET area = box(point(1, 1), point(2, 2)) WHERE id % 7 = 0",
    "VACUUM FULL docs",
    "ANALYZE docs",
]
ANSWERS = [
    "SELECT count(*), sum(id), sum(k), md5(string_agg(body, '' ORDER BY id)) FROM docs",
    "SELECT count(*) FROM docs WHERE words @> ARRAY['w7']",
    "SELECT count(*) FROM docs WHERE area && box(point(10, 10), point(30, 30))",
    "SELECT count(*) FROM docs WHERE network << '10.7.0.0/16'",
    "SELECT sum(k) FROM docs WHERE k BETWEEN 100 AND 900",
    "SELECT k FROM docs WHERE id = 4242",
    "SELECT count(*) FROM docs WHERE id BETWEEN 500 AND 900",
    "SELECT nextval('numbers'), (SELECT sum(id) FROM unlogged)",
]
HEAP_CHECK = "SELECT count(*) FROM verify_heapam('{}')"
BTREE_CHECK = """
SELECT bt_index_parent_check(indexrelid, true) FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
    WHERE amname = 'btree' AND relpersistence = 'p'
"""
FEW_BUFFERS = {"shared_buffers": "16MB"}


@pytest.fixture(scope="module")
def source() -> Iterator[PlainPostgres]:
    with plain_postgres("--wal-segsize=1", autovacuum="off", **FEW_BUFFERS) as cluster:
        cluster.sql(SETUP)
        cluster.sql("VACUUM ANALYZE")
        cluster.stop()
        yield cluster


def answers(cluster: PlainPostgres) -> list[object]:
    with cluster.connect() as connection:
        found: list[object] = []
        for scans in ("SET enable_seqscan = off", "SET enable_seqscan = on"):
            connection.execute(scans)
            found += [connection.execute(query).fetchall() for query in ANSWERS]
        return found


def check(cluster: PlainPostgres, *tables: str) -> None:
    cluster.sql(BTREE_CHECK)
    for table in tables:
        assert cluster.sql(HEAP_CHECK.format(table)) == [(0,)]


def test_every_access_method_ends_where_plain_postgres_does(
    source: PlainPostgres, pages: PageSource
) -> None:
    with hydrating(source, pages, autovacuum="off", **FEW_BUFFERS) as compute:
        for change in CHANGES:
            compute.sql(change)
        found = answers(compute)
        check(compute, "docs")
    with plain_copy(source) as plain:
        for change in CHANGES:
            plain.sql(change)
        assert found == answers(plain)


def test_backends_hydrate_one_table_together(source: PlainPostgres, pages: PageSource) -> None:
    with hydrating(source, pages, **FEW_BUFFERS) as compute, ThreadPoolExecutor(6) as pool:
        queries = [
            "SET max_parallel_workers_per_gather = 0; SELECT sum(id) FROM docs WHERE body <> ''",
            "SET enable_seqscan = off; SELECT sum(id) FROM docs WHERE id > 0",
            "SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0;"
            "SET parallel_tuple_cost = 0; SELECT sum(id) FROM docs WHERE body <> ''",
        ]
        results = [pool.submit(compute.sql, query) for query in queries * 2]
        assert {result.result()[0][0] for result in results} == {12000 * 12001 // 2}
        check(compute, "docs")


def transfer(compute: HydratingPostgres, seed: int, until: float) -> int:
    """Moves money between accounts; the number of transactions done."""
    done = 0
    with compute.connect() as connection:
        while time.monotonic() < until:
            a, b = (seed * 7919 + done * 4001) % 8000 + 1, (seed * 31 + done * 6007) % 8000 + 1
            low, high = min(a, b), max(a, b)
            with connection.transaction():
                update = "UPDATE accounts SET balance = balance + %s WHERE id = %s"
                connection.execute(update, [1, low])
                connection.execute(update, [-1, high])
            done += 1
    return done


def read_through(compute: HydratingPostgres, until: float) -> int:
    """Scans the accounts over and over; every sum must be that of a consistent state."""
    done = 0
    with compute.connect() as connection:
        while time.monotonic() < until or done == 0:
            row = connection.execute("SELECT sum(balance), count(*) FROM accounts").fetchone()
            assert row == (800000, 8000)
            done += 1
    return done


def test_reading_ahead_races_with_writes(source: PlainPostgres, pages: PageSource) -> None:
    """With 128 buffers, pages are evicted all the time while scans read ahead of writers."""
    for _ in range(2):
        tight = {"shared_buffers": "1MB", "max_parallel_workers_per_gather": 0}
        with hydrating(source, pages, **tight) as compute, ThreadPoolExecutor(5) as pool:
            until = time.monotonic() + 0.7
            writers = [pool.submit(transfer, compute, seed, until) for seed in range(3)]
            readers = [pool.submit(read_through, compute, until) for _ in range(2)]
            assert all(writer.result() > 0 for writer in writers)
            assert all(reader.result() > 0 for reader in readers)
            check(compute, "accounts")


def test_a_cut_tail_stays_cut_when_the_table_grows(
    source: PlainPostgres, pages: PageSource
) -> None:
    with hydrating(source, pages, autovacuum="off") as compute:
        [(before,)] = compute.sql("SELECT pg_relation_size('shrinking')")
        compute.sql("SET enable_seqscan = off; DELETE FROM shrinking WHERE ctid >= '(100,0)'")
        compute.sql("VACUUM shrinking")
        [(cut,)] = compute.sql("SELECT pg_relation_size('shrinking')")
        assert cut == 100 * 8192 < before
        compute.sql("INSERT INTO shrinking SELECT g, 'new' FROM generate_series(1, 60000) g")
        assert compute.sql("SELECT count(*) FROM shrinking WHERE pad = 'new'") == [(60000,)]
        check(compute, "shrinking")


def test_truncation_and_removal_forget_what_was_remote(
    source: PlainPostgres, pages: PageSource
) -> None:
    with hydrating(source, pages, autovacuum="off") as compute:
        before = compute.remote_blocks()
        [(blocks,)] = compute.sql("SELECT pg_relation_size('docs') / 8192")
        compute.sql("TRUNCATE docs; INSERT INTO docs (id) VALUES (1)")
        compute.sql("CHECKPOINT")
        assert compute.remote_blocks() < before - blocks
        assert compute.sql("SELECT count(*) FROM docs") == [(1,)]
        compute.sql("DROP TABLE accounts, shrinking")
        compute.sql("CREATE DATABASE other", "template1")
        compute.sql("DROP DATABASE other")
        assert fork_of(compute, "docs") not in {rel for rel, _ in pages.requests}


def test_an_open_cursor_keeps_its_rows(source: PlainPostgres, pages: PageSource) -> None:
    """What its transaction wrote has its combo cids in the local pages alone."""
    with hydrating(source, pages, shared_buffers="1MB") as compute, compute.connect() as connection:
        with connection.transaction():
            connection.execute("UPDATE accounts SET balance = 1 WHERE id <= 4000")
            connection.execute("DECLARE c CURSOR FOR SELECT id, balance FROM accounts ORDER BY id")
            connection.execute("UPDATE accounts SET balance = 2 WHERE id <= 6000")
            connection.execute("SELECT count(*) FROM docs WHERE body <> ''")
            rows = connection.execute("FETCH ALL FROM c").fetchall()
        assert rows == [(i, 1 if i <= 4000 else 100) for i in range(1, 8001)]
        assert connection.execute("SELECT sum(balance) FROM accounts").fetchall() == [
            (6000 * 2 + 2000 * 100,)
        ]


def test_the_map_survives_the_crash_of_a_backend(source: PlainPostgres, pages: PageSource) -> None:
    with hydrating(source, pages, autovacuum="off") as compute:
        compute.sql("UPDATE accounts SET balance = 7")
        compute.sql("CHECKPOINT")
        left = compute.remote_blocks()
        victim = compute.connect()
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            try:
                assert compute.sql("SELECT sum(balance) FROM accounts") == [(8000 * 7,)]
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert compute.remote_blocks() <= left
        assert compute.sql("SELECT count(*) FROM docs WHERE body <> ''") == [(12000,)]
        assert compute.sql("SELECT count(*) FROM unlogged") == [(0,)]
        check(compute, "accounts", "docs")


def fsm_images(compute: HydratingPostgres, since: str) -> set[tuple[int, int]]:
    """(file number, block) of the free space map pages logged as images after an LSN."""
    end = re.search(
        r"Latest checkpoint location: +(\S+)",
        compute.tool("pg_controldata", compute.data).stdout,
    )
    assert end is not None
    if end[1] == since:
        return set()
    wal = compute.data / "pg_wal"
    listing = compute.tool("pg_waldump", "-p", wal, "-s", since, "-e", end[1], "-r", "XLOG").stdout
    found = re.findall(r"FPI .*rel \d+/\d+/(\d+) fork fsm blk (\d+)", listing)
    return {(int(rel), int(block)) for rel, block in found}


def test_changed_free_space_maps_are_logged_at_a_clean_stop(
    source: PlainPostgres, pages: PageSource
) -> None:
    # What is looked at may lie in segments that the last checkpoint would remove.
    with hydrating(source, pages, autovacuum="off", wal_keep_size="64MB") as compute:
        compute.sql("DELETE FROM accounts WHERE id % 2 = 0")
        compute.sql("VACUUM accounts")
        compute.sql("DELETE FROM shrinking WHERE id % 2 = 0")
        compute.sql("VACUUM shrinking")
        compute.sql("DELETE FROM unlogged; CHECKPOINT")
        compute.sql("CREATE TABLE gone AS SELECT generate_series(1, 1000) AS id")
        compute.sql("VACUUM gone")
        compute.sql("DROP TABLE gone")
        free = "SELECT sum(avail) FROM pg_freespace('accounts')"
        compute.sql("CREATE EXTENSION pg_freespacemap")
        assert compute.sql(free)[0][0] > 0
        accounts, shrinking = (fork_of(compute, name)[2] for name in ("accounts", "shrinking"))
        untouched = fork_of(compute, "docs")[2]
        [(since,)] = compute.sql("SELECT pg_current_wal_insert_lsn()")
        compute.stop()
        images = fsm_images(compute, since)
        # Of accounts the leaf alone: from 16 on a table grows by some pages at once, so that its
        # root knew of whole free ones before.
        assert {(accounts, 2), *((shrinking, block) for block in (0, 1, 2))} <= images
        assert untouched not in {number for number, _ in images}


def test_a_stop_without_changes_logs_no_free_space_map(
    source: PlainPostgres, pages: PageSource
) -> None:
    with hydrating(source, pages, autovacuum="off") as compute:
        [(since,)] = compute.sql("SELECT pg_current_wal_insert_lsn()")
        compute.stop()
        assert fsm_images(compute, since) == set()


def test_blocks_beyond_the_first_segment() -> None:
    """A table of a bit more than 1 GiB, nearly all of it pages of zeros."""
    with plain_postgres("--wal-segsize=1", autovacuum="off") as source:
        source.sql("CREATE TABLE big AS SELECT g AS id FROM generate_series(1, 5) g")
        [(path,)] = source.sql("SELECT pg_relation_filepath('big')")
        source.stop()
        first = source.data / path
        page = first.read_bytes()[:8192]
        os.truncate(first, SEGMENT_PAGES * 8192)
        second = first.with_name(first.name + ".1")
        second.write_bytes(bytes(3 * 8192) + page)
        adopt(second, first)
        with serving(source) as pages, hydrating(source, pages, autovacuum="off") as compute:
            assert compute.sql("SELECT pg_relation_size('big') / 8192") == [(SEGMENT_PAGES + 4,)]
            row = f"ctid = '({SEGMENT_PAGES + 3},2)'"
            assert compute.sql(f"SELECT id FROM big WHERE {row}") == [(2,)]
            compute.sql(f"UPDATE big SET id = 20 WHERE {row}")
            assert compute.sql("SELECT id FROM big WHERE ctid = '(0,3)'") == [(3,)]
            compute.sql("CHECKPOINT")
            compute.stop(signal.SIGQUIT)
            compute.start()
            last = f"ctid >= '({SEGMENT_PAGES},0)'"
            rows = compute.sql(f"SELECT id FROM big WHERE {last} ORDER BY id")
            assert rows == [(1,), (3,), (4,), (5,), (20,)]
