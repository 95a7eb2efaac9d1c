"""The page server follows WAL: waits, restarts, damage, branches, time, and limits.

WAL comes from a plain cluster's own pg_wal (tests/integration/wal_files.py), so that a test can
say when it arrives and what is wrong with it.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagestore import errors
from pagestore.client import PageClient, Rel
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId, parse_lsn
from pagestore.v1 import page_pb2 as pb
from tests.integration.imported import Imported, imported, listed, local_blocks
from tests.integration.page_process import PageProcess
from tests.plain_postgres import MAJOR, PlainPostgres

TENANT = DEFAULT_TENANT
PG_DATABASE = Rel(1664, 0, 1262)


def lsn_now(cluster: PlainPostgres) -> int:
    """The end of a record, behind all that was committed, and in the files."""
    [[text]] = cluster.sql("SELECT pg_logical_emit_message(true, 'test', 'here')")
    return int(parse_lsn(text))


def publish(store: Imported, lsn: int, timeline: TimelineId | None = None) -> None:
    directory = store.cluster.data / "pg_wal"
    store.wal.publish(TENANT, timeline or store.timeline, directory, lsn)


def sizes_equal_files(store: Imported, client: PageClient, lsn: int) -> None:
    """Every relation has its length; VM forks may differ by a page (POSTGRES.md §6). From 16 on a
    server lays several pages at a time, and WAL knows of one when something is put there."""
    relations, _, _ = listed(client, store.timeline, lsn)
    for rel, blocks in local_blocks(store.cluster.data):
        if rel.fork == 0:
            laid = itertools.takewhile(lambda page: not any(page), reversed(blocks))
            least = len(blocks) - (sum(1 for _ in laid) if MAJOR > 15 else 0)
            assert least <= relations[rel] <= len(blocks), rel


def refused(call: object, *args: object, **kwargs: object) -> PagestoreError:
    with pytest.raises(PagestoreError) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    return caught.value


def info(client: PageClient, timeline: TimelineId) -> pb.TimelineInfo:
    return client.get_timeline(TENANT, timeline)


def test_a_reader_of_the_future_is_woken_when_it_arrives(tmp_path: Path) -> None:
    with imported(tmp_path) as store, store.pages.client() as client, ThreadPoolExecutor() as pool:
        store.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 5000) i")
        end = lsn_now(store.cluster)
        waiting = [
            pool.submit(client.get_pages, TENANT, store.timeline, end, PG_DATABASE, [0])
            for _ in range(8)
        ]
        leased = pool.submit(client.lease, TENANT, store.timeline, end, 10)
        too_short = refused(
            client.get_pages, TENANT, store.timeline, end, PG_DATABASE, [0], wait_ms=50
        )
        assert too_short.reason == "LSN_NOT_REACHED"
        publish(store, end)
        assert {len(done.result(30)) for done in waiting} == {1}
        assert leased.result(30) > 0
        assert info(client, store.timeline).last_record_lsn == end
        # A second helping, after the first stream has gone idle or not.
        store.cluster.sql("DROP TABLE t")
        end = store.stop_and_publish()
        store.wait(client, end)
        sizes_equal_files(store, client, end)


def test_a_killed_page_server_resumes(tmp_path: Path) -> None:
    with imported(tmp_path) as store, store.pages.client() as client:
        store.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 20000) i")
        first = lsn_now(store.cluster)
        publish(store, first)
        store.wait(client, first)
        flushed = client.flush(TENANT, store.timeline)
        assert flushed.disk_consistent_lsn == flushed.last_record_lsn == first
        store.cluster.sql("INSERT INTO t SELECT generate_series(1, 20000) i")
        second = lsn_now(store.cluster)
        publish(store, second)
        store.wait(client, second)
        before = listed(client, store.timeline, second)
        store.pages.kill()
        store.pages.start()
        store.wait(client, second)
        assert listed(client, store.timeline, second) == before
        # And after a clean stop nothing need be taken in again.
        assert store.pages.stop() == 0
        reads = store.wal.reads
        store.pages.start()
        assert info(client, store.timeline).disk_consistent_lsn == second
        assert listed(client, store.timeline, second) == before
        assert store.wal.reads == reads


def test_broken_streams_are_taken_up_again(tmp_path: Path) -> None:
    with imported(tmp_path) as store, store.pages.client() as client:
        for number in range(4):
            store.cluster.sql(f"CREATE TABLE t{number} AS SELECT generate_series(1, 9000) i")
            store.wal.break_streams()
            end = lsn_now(store.cluster)
            publish(store, end)
            store.wait(client, end)


def test_damaged_wal_stops_its_timeline_by_name_and_no_other(tmp_path: Path) -> None:
    with imported(tmp_path) as store, store.pages.client() as client:
        other = TimelineId.generate()
        at = store.import_lsn
        client.create_timeline(TENANT, other, store.timeline, at)
        store.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 5000) i")
        good = lsn_now(store.cluster)
        publish(store, good)
        publish(store, good, other)
        store.wait(client, good)
        store.cluster.sql("CREATE TABLE u AS SELECT generate_series(1, 50000) i")
        end = lsn_now(store.cluster)
        store.wal.flip(TENANT, store.timeline, good + 300_000)
        publish(store, end)
        publish(store, end, other)
        error = refused(client.get_pages, TENANT, store.timeline, end, PG_DATABASE, [0])
        assert (error.reason, type(error)) == ("INGEST_STOPPED", errors.FailedPrecondition)
        state = info(client, store.timeline)
        assert good < state.last_record_lsn <= good + 300_000
        assert "stop" in error.message or "no WAL beyond" in error.message
        assert state.ingest_error
        # What came before is served, and the branch with the same, whole WAL goes on.
        assert client.get_pages(TENANT, store.timeline, good, PG_DATABASE, [0])
        assert client.get_pages(TENANT, other, end, PG_DATABASE, [0])
        assert not info(client, other).ingest_error


def test_branches_do_not_see_what_comes_after(tmp_path: Path) -> None:
    with imported(tmp_path) as store, store.pages.client() as client:
        sql = store.cluster.sql
        sql("CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 1000)")
        [[rel_number]] = sql("SELECT pg_relation_filenode('t')")
        rel = Rel(1663, 5, rel_number)
        middle = lsn_now(store.cluster)
        sql("TRUNCATE t; INSERT INTO t SELECT generate_series(1, 9000); CREATE TABLE later ()")
        end = store.stop_and_publish()
        # Waits for the parent to reach the branch point.
        child = TimelineId.generate()
        client.create_timeline(TENANT, child, store.timeline, middle, wait_ms=30_000)
        store.wait(client, end)
        blocks = client.get_rel_size(TENANT, store.timeline, middle, rel)
        assert blocks
        assert client.get_rel_size(TENANT, child, middle, rel) == blocks
        assert client.get_rel_size(TENANT, store.timeline, end, rel) != blocks
        assert client.get_pages(TENANT, child, middle, rel, range(blocks)) == client.get_pages(
            TENANT, store.timeline, middle, rel, range(blocks)
        )
        assert refused(client.get_pages, TENANT, child, end, rel, [0], wait_ms=10).reason == (
            "LSN_NOT_REACHED"
        )
        grown = len(listed(client, store.timeline, end)[0])
        assert grown > len(listed(client, child, middle)[0])


def test_after_a_kill_a_branch_waits_for_its_ancestors(tmp_path: Path) -> None:
    """A branch is one durable transaction, while what it reads of its parent may still be in
    the parent's memory: after a kill the parent must be ingested again first."""
    with imported(tmp_path) as store:
        sql = store.cluster.sql
        sql("CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 20000)")
        [[number]] = sql("SELECT pg_relation_filenode('t')")
        rel = Rel(1663, 5, number)
        middle = lsn_now(store.cluster)
        publish(store, middle)
        child, grandchild = TimelineId.generate(), TimelineId.generate()
        with store.pages.client() as client:
            client.create_timeline(TENANT, child, store.timeline, middle, wait_ms=30_000)
            client.create_timeline(TENANT, grandchild, child, middle)
            blocks = client.get_rel_size(TENANT, grandchild, middle, rel)
            assert blocks
            before = client.get_pages(TENANT, grandchild, middle, rel, range(blocks))
            assert info(client, store.timeline).disk_consistent_lsn < middle
        sql("INSERT INTO t SELECT generate_series(1, 20000)")
        end = lsn_now(store.cluster)
        store.pages.kill()
        publish(store, end, child)
        store.pages.start()
        with store.pages.client() as client:
            assert client.get_pages(TENANT, grandchild, middle, rel, range(blocks)) == before
            grown = client.get_rel_size(TENANT, child, end, rel)
            assert grown
            assert grown > blocks
            assert len(client.get_pages(TENANT, child, end, rel, range(blocks, grown))) > 0
            assert not info(client, child).ingest_error


def test_times_map_to_commits(tmp_path: Path) -> None:
    with imported(tmp_path) as store, store.pages.client() as client:
        sql = store.cluster.sql
        marks: list[tuple[int, int]] = []
        for number in range(3):
            sql(f"CREATE TABLE t{number} ()")
            marks.append((int(time.time() * 1e6), lsn_now(store.cluster)))
        end = store.stop_and_publish()
        store.wait(client, end)
        found = [client.lsn_by_time(TENANT, store.timeline, micros) for micros, _ in marks]
        for answer, (micros, lsn) in zip(found, marks, strict=True):
            assert answer.lsn <= lsn or answer.after_head
            assert 0 < answer.commit_unix_micros <= micros
        assert found[0].lsn < found[1].lsn < found[2].lsn
        assert not found[0].after_head
        before = client.lsn_by_time(TENANT, store.timeline, 1)
        assert (before.before_history, before.lsn) == (True, store.import_lsn)
        after = client.lsn_by_time(TENANT, store.timeline, 1 << 60)
        assert (after.after_head, after.lsn) == (True, end)
        last = [client.last_commit(TENANT, store.timeline, lsn) for _, lsn in marks]
        assert last == [answer.commit_lsn for answer in found]
        assert client.last_commit(TENANT, store.timeline, end) == after.commit_lsn
        assert client.last_commit(TENANT, store.timeline, store.import_lsn) == 0


def test_a_database_copied_as_files_is_copied(tmp_path: Path) -> None:
    """More than the bound of what is in memory, and again after a kill."""
    with imported(tmp_path) as store, store.pages.client() as client:
        sql = store.cluster.sql
        sql("CREATE TABLE big AS SELECT i, md5(i::text) m FROM generate_series(1, 700000) i")
        sql("CREATE DATABASE copy TEMPLATE postgres STRATEGY file_copy", "template1")
        sql("INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 500) i", "copy")
        [[oid]] = sql("SELECT oid FROM pg_database WHERE datname = 'copy'")
        [[number]] = sql("SELECT pg_relation_filenode('big')", "copy")
        end = store.stop_and_publish()
        for _ in range(2):
            store.wait(client, end)
            sizes_equal_files(store, client, end)
            _, files, _ = listed(client, store.timeline, end)
            assert {f"base/{oid}/PG_VERSION", f"base/{oid}/pg_filenode.map"} <= set(files)
            copied = Rel(1663, oid, number)
            theirs = dict(local_blocks(store.cluster.data))[copied]
            ours = client.get_pages(TENANT, store.timeline, end, copied, range(len(theirs)))
            # The first rows are as they were copied, whatever hint bits came later.
            assert [page[:8] for page in ours[: len(ours) // 2]] == [
                page[:8] for page in theirs[: len(ours) // 2]
            ]
            store.pages.kill()
            store.pages.start()


def test_memory_is_bounded_by_flushing(tmp_path: Path) -> None:
    with imported(tmp_path) as store:
        store.pages.stop()
        store.pages.settings["open_layer_bytes"] = 4 << 20
        store.pages.start()
        with store.pages.client() as client:
            store.cluster.sql(
                "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 5) m"
                " FROM generate_series(1, 150000) i"
            )
            end = store.stop_and_publish()
            store.wait(client, end)
            state = info(client, store.timeline)
            assert state.layers > 3
            assert state.last_record_lsn - state.disk_consistent_lsn < 24 << 20
            sizes_equal_files(store, client, end)


def test_an_idle_timeline_is_flushed_and_left_alone(tmp_path: Path) -> None:
    with imported(tmp_path) as store:
        store.pages.stop()
        store.pages.settings |= {"idle_flush_seconds": 0.2, "linger_ms": 100}
        store.pages.start()
        with store.pages.client() as client:
            store.cluster.sql("CREATE TABLE t ()")
            end = lsn_now(store.cluster)
            publish(store, end)
            store.wait(client, end)
            deadline = time.monotonic() + 30
            while info(client, store.timeline).disk_consistent_lsn != end:
                assert time.monotonic() < deadline
                time.sleep(0.02)


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    path.mkdir()
    options = f"size={megabytes}m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_pauses_ingest_and_nothing_else(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 48) as disk, imported(disk) as store:
        store.pages.stop()
        store.pages.settings["open_layer_bytes"] = 4 << 20
        store.pages.start()
        with store.pages.client() as client:
            free = disk / "ballast"
            free.write_bytes(bytes(shutil.disk_usage(disk).free - (6 << 20)))
            store.cluster.sql(
                "CREATE TABLE t AS SELECT i, (SELECT string_agg(md5(random()::text || i || n), '')"
                " FROM generate_series(1, 10) n) FROM generate_series(1, 60000) i"
            )
            end = store.stop_and_publish()
            error = refused(
                client.get_pages, TENANT, store.timeline, end, PG_DATABASE, [0], wait_ms=4000
            )
            assert error.reason == "LSN_NOT_REACHED"
            full = refused(client.flush, TENANT, store.timeline)
            assert (full.reason, type(full)) == ("STORE_FULL", errors.ResourceExhausted)
            assert client.get_pages(TENANT, store.timeline, store.import_lsn, PG_DATABASE, [0])
            free.unlink()
            client.get_pages(TENANT, store.timeline, end, PG_DATABASE, [0], wait_ms=60_000)
            sizes_equal_files(store, client, end)
            client.flush(TENANT, store.timeline)


def test_without_a_wal_service_reads_go_on(tmp_path: Path) -> None:
    with imported(tmp_path) as store, store.pages.client() as client:
        assert client.get_pages(TENANT, store.timeline, store.import_lsn, PG_DATABASE, [0])
        alone = PageProcess(tmp_path / "alone", ["127.0.0.1:1"])
        with alone, alone.client() as other:
            assert other.list_timelines(TENANT) == []
            assert alone.stop() == 0
