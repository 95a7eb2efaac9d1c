"""Computes over the real page server: what was committed is in every later start, on every
branch, and in every export."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import psycopg
import pytest

from pagestore.client import PageClient, Rel
from pagestore.client.credentials import Credentials
from pagestore.errors import FailedPrecondition
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.pgformat.wal import read_records
from pagestore.postgres.process import account
from pagestore.transfer.export import export_pgdata
from tests import access
from tests.integration.stack import Compute, Stack, running_stack
from tests.plain_postgres import RUN_AS, VERSION, PlainPostgres, plain_postgres, reachable_dir

SETUP = """
    CREATE TABLE items (id int PRIMARY KEY, body text);
    INSERT INTO items SELECT i, repeat(md5(i::text), 5) FROM generate_series(1, 5000) i;
    CREATE TABLE wide AS SELECT i, string_agg(md5((i * j)::text), '') AS t
      FROM generate_series(1, 20) i, generate_series(1, 400) j GROUP BY i;
    CREATE SEQUENCE numbers;
    SELECT nextval('numbers');
    CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY);
    INSERT INTO fleeting VALUES (1);
"""
WORK = [
    "INSERT INTO items SELECT i, 'more' FROM generate_series(5001, 8000) i",
    "UPDATE items SET body = 'changed' WHERE id % 7 = 0",
    "DELETE FROM items WHERE id % 11 = 0",
    "CREATE INDEX ON items USING gin (to_tsvector('simple', body))",
    "CREATE INDEX ON items (body, id)",
    "CREATE TABLE made AS SELECT * FROM items WHERE id < 1000",
    "VACUUM items",
    "CREATE UNLOGGED TABLE gone (id int PRIMARY KEY)",
    "INSERT INTO gone SELECT generate_series(1, 100)",
    "INSERT INTO fleeting VALUES (2)",
    "SELECT nextval('numbers') FROM generate_series(1, 50)",
    "CREATE DATABASE second",
    "SELECT lo_from_bytea(4711, 'large')",
    "TRUNCATE wide",
    "INSERT INTO wide VALUES (1, 'after')",
]
FACTS = {
    "items": "SELECT count(*), sum(hashtext(body)) FROM items",
    "made": "SELECT count(*), sum(hashtext(body)) FROM made",
    "wide": "SELECT * FROM wide",
    "large": "SELECT lo_get(4711)",
    "databases": "SELECT datname FROM pg_database ORDER BY 1",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as made:
        yield made


@pytest.fixture(scope="module")
def template(stack: Stack) -> TimelineId:
    with plain_postgres(max_prepared_transactions=10) as cluster:
        cluster.sql(SETUP)
        cluster.stop()
        return stack.import_cluster(cluster.data)


@pytest.fixture
def timeline(stack: Stack, template: TimelineId) -> TimelineId:
    """A branch of the imported cluster's beginning."""
    return stack.branch_of_beginning(template)


def facts(compute: Compute | PlainPostgres) -> dict[str, object]:
    return {name: compute.sql(query) for name, query in FACTS.items()}


def work(compute: Compute) -> None:
    for statement in WORK:
        compute.sql(statement)


def check_indexes(compute: Compute | PlainPostgres) -> None:
    compute.sql("CREATE EXTENSION IF NOT EXISTS amcheck")
    compute.sql(
        "SELECT bt_index_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c "
        "ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE a.amname = 'btree' AND c.relpersistence = 'p'"
    )


def test_commits_survive_clean_stops(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline)
    assert compute.sql("SELECT count(*) FROM items") == [(5000,)]
    assert compute.sql("SELECT count(*) FROM fleeting") == [(0,)]
    work(compute)
    before = facts(compute)
    for _ in range(3):
        stopped = compute.stop()
        assert stopped.clean
        assert not compute.running.directory.exists()
        compute = stack.start(timeline, files=stopped.files)
        assert facts(compute) == before
        assert compute.sql("SELECT count(*) FROM fleeting") == [(0,)]
        assert compute.sql("SELECT count(*) FROM gone") == [(0,)]
        compute.sql("INSERT INTO gone VALUES (1)")
    # A sequence logs 32 values ahead; what was not used of them is skipped, as after a crash.
    assert 52 <= compute.sql("SELECT nextval('numbers')")[0][0] <= 51 + 33 * 3
    assert compute.sql("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'items'") == [
        (8000,)
    ]
    check_indexes(compute)
    compute.stop()


def test_a_compute_reads_its_pages_over_a_unix_socket(stack: Stack, timeline: TimelineId) -> None:
    """Also when the page server is started anew, which makes its socket anew."""
    compute = stack.start(timeline, page_server=stack.page_socket)
    expected = compute.sql(FACTS["items"])
    compute.stop()
    again = stack.start(timeline, page_server=stack.page_socket)
    stack.page_server.kill()
    stack.page_server.start()
    assert again.sql(FACTS["items"]) == expected
    [[connected]] = again.sql("SHOW pagestore.page_server")
    assert connected.startswith("unix:/")
    again.stop()


def test_who_has_a_computes_token_names_his_end_of_the_socket(
    stack: Stack, timeline: TimelineId
) -> None:
    """Else one that takes no answers could not be ended alone."""
    token = access.signer().of_timeline(DEFAULT_TENANT, timeline, time.time(), 3600)
    nameless = PageClient(stack.page_socket, credentials=Credentials.of_token(token))
    with nameless, pytest.raises(FailedPrecondition) as refused:
        nameless.get_pages(DEFAULT_TENANT, timeline, 1, Rel(1664, 0, 1260), [0])
    assert refused.value.reason == "CONNECTION_NAMELESS"


def test_commits_survive_a_killed_compute(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline)
    work(compute)
    before = facts(compute)
    for round_number in range(3):
        compute.sql(f"INSERT INTO items VALUES ({100_000 + round_number}, 'last')")
        session = compute.connect()
        session.execute("BEGIN")
        session.execute("INSERT INTO items SELECT i, 'lost' FROM generate_series(-99, -1) i")
        compute.kill()
        session.close()
        compute = stack.start(timeline)
        assert compute.sql("SELECT count(*) FROM items WHERE id < 0") == [(0,)]
        assert compute.sql("SELECT count(*) FROM items WHERE id >= 100000") == [(round_number + 1,)]
    compute.sql("DELETE FROM items WHERE id >= 100000")
    assert facts(compute) == before
    check_indexes(compute)
    compute.kill()


def test_nobody_inside_changes_whom_commits_wait_for(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline)
    for statement in (
        "ALTER SYSTEM SET synchronous_standby_names = ''",
        'ALTER SYSTEM SET "Synchronous_Standby_Names" = DEFAULT',
        "ALTER SYSTEM RESET synchronous_standby_names",
    ):
        with pytest.raises(psycopg.errors.CantChangeRuntimeParam, match="safekeepers"):
            compute.sql(statement)
    compute.sql("ALTER SYSTEM RESET ALL")
    assert compute.sql("SHOW synchronous_standby_names") == [("ANY 1 (sk1)",)]
    compute.stop()


def test_a_tablespace_whose_files_are_not_made_is_not_empty(
    stack: Stack, timeline: TimelineId
) -> None:
    compute = stack.start(timeline)
    with compute.connect() as session:
        session.execute("SET allow_in_place_tablespaces = on")
        session.execute("CREATE TABLESPACE inside LOCATION ''")
        session.execute("CREATE TABLE within TABLESPACE inside AS SELECT generate_series(1, 9) i")
    assert compute.stop().clean
    compute = stack.start(timeline)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not empty"):
        compute.sql("DROP TABLESPACE inside")
    assert compute.sql("SELECT sum(i) FROM within") == [(45,)]
    compute.sql("DROP TABLE within")
    compute.sql("CHECKPOINT")
    compute.sql("DROP TABLESPACE inside")
    compute.stop()


def test_a_prepared_transaction_crosses_a_restart_and_a_branch(
    stack: Stack, timeline: TimelineId
) -> None:
    compute = stack.start(timeline)
    with compute.connect() as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO items VALUES (-1, 'prepared')")
        session.execute("SELECT * FROM items WHERE id = 1 FOR UPDATE")
        session.execute("PREPARE TRANSACTION 'waiting'")
    branch = stack.branch(timeline, compute.lsn())
    compute.kill()
    for where, verb in ((timeline, "COMMIT"), (branch, "ROLLBACK")):
        again = stack.start(where)
        assert again.sql("SELECT gid FROM pg_prepared_xacts") == [("waiting",)]
        assert again.sql("SELECT count(*) FROM items WHERE id = -1") == [(0,)]
        again.sql(f"{verb} PREPARED 'waiting'")
        again.stop()
        again = stack.start(where)
        expected = 1 if verb == "COMMIT" else 0
        assert again.sql("SELECT count(*) FROM items WHERE id = -1") == [(expected,)]
        assert again.sql("SELECT gid FROM pg_prepared_xacts") == []
        again.stop()


def test_branches_in_mid_work_see_that_moment(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline)
    moments = []
    for number in range(4):
        first = 10_000 + number * 500
        compute.sql(
            f"INSERT INTO items SELECT i, 'b' FROM generate_series({first}, {first + 499}) i"
        )
        compute.sql("UPDATE items SET body = body || '.' WHERE id % 97 = 3")
        moments.append((compute.lsn(), compute.sql(FACTS["items"])))
    for lsn, expected in moments:
        branch = stack.start(stack.branch(timeline, lsn))
        assert branch.sql(FACTS["items"]) == expected
        branch.sql("DELETE FROM items WHERE id % 2 = 0")
        check_indexes(branch)
        branch.stop()
    assert compute.sql(FACTS["items"]) == moments[-1][1]
    compute.stop()


def test_an_export_equals_the_compute(stack: Stack, timeline: TimelineId) -> None:
    compute = stack.start(timeline)
    work(compute)
    lsn, before = compute.lsn(), facts(compute)
    compute.sql("DROP TABLE items")
    aligned, previous = stack.wait(stack.wal.align_lsn(DEFAULT_TENANT, timeline, lsn))
    root = reachable_dir()
    exported = PlainPostgres(root)

    async def export() -> None:
        await export_pgdata(
            stack.pages,
            DEFAULT_TENANT,
            timeline,
            aligned,
            exported.data,
            owner=account(RUN_AS),
            prev_record_lsn=previous,
        )

    try:
        stack.wait(export())
        exported.start()
        assert facts(exported) == before
        check_indexes(exported)
        # And back in: what was exported can be imported.
        exported.stop()
        again = stack.start(stack.import_cluster(exported.data))
        assert facts(again) == before
        again.stop()
    finally:
        exported.stop()
        shutil.rmtree(root)
    compute.stop()


def test_a_cluster_with_checksums_keeps_them(stack: Stack) -> None:
    with plain_postgres("--data-checksums") as cluster:
        cluster.sql(SETUP)
        cluster.stop()
        timeline = stack.import_cluster(cluster.data)
    compute = stack.start(timeline, settings={"shared_buffers": "1MB"})
    assert compute.sql("SHOW data_checksums") == [("on",)]
    work(compute)
    compute.kill()
    compute = stack.start(timeline, settings={"shared_buffers": "1MB"})
    before, lsn = facts(compute), compute.lsn()
    check_indexes(compute)
    compute.stop()
    root = reachable_dir()
    exported = PlainPostgres(root)
    try:
        stack.wait(
            export_pgdata(
                stack.pages, DEFAULT_TENANT, timeline, lsn, exported.data, owner=account(RUN_AS)
            )
        )
        exported.tool("pg_checksums", "--check", "-D", exported.data)
        exported.start()
        assert facts(exported) == before
    finally:
        exported.stop()
        shutil.rmtree(root)


def test_counters_at_the_ends_of_their_pages(stack: Stack) -> None:
    """Transaction ids and multixacts that begin new pages, across a crash in between."""
    with plain_postgres() as cluster:
        cluster.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (0)")
        cluster.stop()
        cluster.tool("pg_resetwal", "-D", cluster.data, "-x", 32760, "-m", "2044,2044", "-O", 1630)
        for path, pages in {"pg_xact/0000": 1, "pg_multixact/offsets/0000": 1}.items():
            data = (cluster.data / path).read_bytes()
            (cluster.data / path).write_bytes(data.ljust(pages * 8192, b"\0"))
        timeline = stack.import_cluster(cluster.data)
    rows = 1
    for _ in range(3):
        compute = stack.start(timeline)
        assert compute.sql("SELECT count(*) FROM t") == [(rows,)]
        for _ in range(6):
            compute.sql(f"INSERT INTO t VALUES ({rows})")
            rows += 1
            with compute.connect() as one, compute.connect() as other:
                for session in (one, other):
                    session.execute("BEGIN")
                    session.execute("SELECT * FROM t WHERE id = 0 FOR SHARE")
                one.execute("SAVEPOINT s")
                one.execute(f"INSERT INTO t VALUES ({rows})")
                one.execute("ROLLBACK TO s")
                one.execute("COMMIT")
                other.execute("COMMIT")
        compute.kill()
    compute = stack.start(timeline)
    assert compute.sql("SELECT count(*), max(id) FROM t") == [(rows, rows - 1)]
    next_xid = compute.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")[0][0]
    assert next_xid > 32768
    compute.sql("VACUUM FREEZE t")
    compute.stop()


ODD_SETTINGS: dict[str, dict[str, object]] = {
    "minimal": {"wal_level": "minimal", "max_wal_senders": 0, "max_connections": 20},
    "logical": {
        "wal_level": "logical",
        "track_commit_timestamp": "on",
        "wal_log_hints": "on",
        "max_connections": 250,
        "max_prepared_transactions": 200,
        "max_locks_per_transaction": 100,
    },
}


@pytest.mark.parametrize("case", ODD_SETTINGS)
def test_settings_of_the_imported_cluster(case: str, stack: Stack) -> None:
    with plain_postgres(**ODD_SETTINGS[case]) as cluster:
        cluster.sql("CREATE TABLE t AS SELECT 1 AS x")
        cluster.stop()
        timeline = stack.import_cluster(cluster.data)
    compute = stack.start(timeline)
    for name, value in ODD_SETTINGS[case].items():
        if case == "logical":
            assert compute.sql(f"SHOW {name}") == [(str(value),)]
    compute.sql("INSERT INTO t VALUES (2)")
    query = "SELECT pg_xact_commit_timestamp(xmin) FROM t"
    stamps = compute.sql(query) if case == "logical" else []
    compute.kill()
    compute = stack.start(timeline)
    assert compute.sql("SELECT x FROM t ORDER BY 1") == [(1,), (2,)]
    if stamps:
        assert stamps[1][0] is not None
        assert compute.sql(query) == stamps
    assert compute.stop().clean
    # A second start changes no setting any more, so it logs no record of a change.
    start_lsn = stack.start(timeline).running.start_lsn
    wal = stack.wait(read_wal(stack, timeline, start_lsn))
    records = read_records(wal, start_lsn, version=VERSION)
    assert [r for r in records if (r.rmgr, r.info) == (0, 0x60)] == []  # PARAMETER_CHANGE


async def read_wal(stack: Stack, timeline: TimelineId, start: int) -> bytes:
    parts = [chunk.data async for chunk in stack.wal.read_wal(DEFAULT_TENANT, timeline, start)]
    return b"".join(parts)
