"""What a page server does with a damaged store, a disk too small, and timelines that go away."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pagestore import errors
from pagestore.client import PageClient, Rel
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.v1 import page_pb2 as pb
from tests.integration.failing_disk import preload
from tests.integration.imported import Imported, import_cluster, imported
from tests.integration.page_process import PageProcess
from tests.integration.test_page_service_follow import lsn_now, publish, refused, small_disk
from tests.plain_postgres import plain_postgres

TENANT = DEFAULT_TENANT
PG_ATTRIBUTE = Rel(1663, 5, 1249)


def layers(store: Imported, timeline: TimelineId) -> list[Path]:
    directory = store.pages.data_dir / "store" / str(TENANT) / str(timeline)
    return sorted(directory.iterdir(), key=lambda path: path.stat().st_size)


def read(client: PageClient, timeline: TimelineId, lsn: int) -> int:
    return len(client.get_pages(TENANT, timeline, lsn, PG_ATTRIBUTE, range(40)))


@pytest.mark.parametrize("how", ["flipped", "cut", "foreign", "gone"])
def test_a_damaged_layer_is_named_and_never_served(tmp_path: Path, how: str) -> None:
    with imported(tmp_path, start=False) as store:
        with store.pages.client() as client:
            whole, _ = import_cluster(client, store.cluster.data)
        assert store.pages.stop() == 0
        victim = layers(store, store.timeline)[-1]
        damage(victim, how, layers(store, whole)[-1])
        store.pages.start()
        with store.pages.client(timeout=2) as client:
            error = refused(read, client, store.timeline, store.import_lsn)
            assert isinstance(error, errors.DataLoss), error
            assert error.reason == "LAYER_CORRUPT"
            assert victim.name in error.message
            assert isinstance(backup_error(client, store), errors.DataLoss)
            assert read(client, whole, store.import_lsn) == 40


def damage(victim: Path, how: str, other: Path) -> None:
    data = bytearray(victim.read_bytes())
    if how == "flipped":
        for position in range(100, len(data), 1000):
            data[position] ^= 1
        victim.write_bytes(data)
    elif how == "cut":
        os.truncate(victim, len(data) // 2)
    elif how == "foreign":
        victim.write_bytes(other.read_bytes())
    else:
        victim.unlink()


def backup_error(client: PageClient, store: Imported) -> PagestoreError:
    with pytest.raises(PagestoreError) as caught:
        list(client.base_backup(TENANT, store.timeline, store.import_lsn))
    return caught.value


def test_a_damaged_catalog_refuses_to_start(tmp_path: Path) -> None:
    with imported(tmp_path, start=False) as store:
        assert store.pages.stop() == 0
        catalog = store.pages.data_dir / "store" / "catalog.lmdb"
        whole = catalog.read_bytes()
        data = bytearray(whole)
        for position in range(8192, len(data), 512):
            data[position] ^= 0x40
        catalog.write_bytes(data)
        with pytest.raises(pytest.fail.Exception, match=r"catalog\.lmdb"):
            store.pages.start()
        catalog.write_bytes(whole)
        store.pages.start()
        with store.pages.client() as client:
            assert read(client, store.timeline, store.import_lsn) == 40


def test_an_import_that_does_not_fit_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 3) as disk, plain_postgres(fsync="off") as cluster:
        cluster.stop()
        pages = PageProcess(disk / "pages")
        with pages, pages.client() as client:
            error = refused(import_cluster, client, cluster.data)
            assert (error.reason, type(error)) == ("STORE_FULL", errors.ResourceExhausted)
            assert client.list_timelines(TENANT) == []
            left = (pages.data_dir / "store").rglob("*")
            assert [path for path in left if path.suffix in (".tmp", ".image")] == []


def test_a_flush_that_the_disk_refuses_is_said_and_done_when_it_is_well(tmp_path: Path) -> None:
    with imported(tmp_path, page_server={"idle_flush_seconds": 0.2}) as store:
        assert store.pages.stop() == 0
        store.pages.environment = preload(tmp_path)
        store.pages.start()
        failing = tmp_path / "fail"
        failing.write_text(".delta.tmp")
        with store.pages.client() as client:

            def timeline() -> pb.TimelineInfo:
                """Of the list that `status` is made of."""
                [found] = client.list_timelines(TENANT)
                return found

            take_in(store, client, "one")
            until(lambda: bool(timeline().flush_error), "the failure is said")
            assert "Input/output error" in timeline().flush_error
            assert ".delta" in timeline().flush_error
            end = take_in(store, client, "two")
            assert read(client, store.timeline, end) == 40, "reads go on"
            assert timeline().disk_consistent_lsn < end
            failing.unlink()
            until(lambda: timeline().disk_consistent_lsn >= end, "it is flushed")
            assert timeline().flush_error == ""
        store.pages.kill()
        store.pages.start()
        with store.pages.client() as client:
            assert client.get_timeline(TENANT, store.timeline).disk_consistent_lsn >= end
            assert read(client, store.timeline, end) == 40


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def take_in(store: Imported, client: PageClient, table: str) -> int:
    """Where the page server has all of a new table."""
    store.cluster.sql(f"CREATE TABLE {table} AS SELECT generate_series(1, 1000) i")
    end = lsn_now(store.cluster)
    publish(store, end)
    store.wait(client, end)
    return end


def test_a_timeline_deleted_while_it_is_ingested(tmp_path: Path) -> None:
    with imported(tmp_path) as store, store.pages.client() as client:
        child = TimelineId.generate()
        client.create_timeline(TENANT, child, store.timeline, store.import_lsn)
        store.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) i")
        end = lsn_now(store.cluster)
        publish(store, end)
        publish(store, end, child)
        client.delete_timeline(TENANT, store.timeline)
        gone = refused(client.get_timeline, TENANT, store.timeline)
        assert gone.reason == "TIMELINE_NOT_FOUND"
        assert len(client.get_pages(TENANT, child, end, PG_ATTRIBUTE, range(40))) == 40
        client.delete_timeline(TENANT, child)
        assert client.list_timelines(TENANT) == []
        root = store.pages.data_dir / "store" / str(TENANT)
        # A layer's file goes with its last reader, which may be an answer that is under way still.
        until(lambda: not any(path.is_file() for path in root.rglob("*")), "files are gone")


def test_a_second_page_server_on_the_same_store_is_refused(tmp_path: Path) -> None:
    with PageProcess(tmp_path / "pages"):
        other = PageProcess(tmp_path / "pages")
        with pytest.raises(pytest.fail.Exception, match=r"STORE_IN_USE|in use|another"):
            other.start()
