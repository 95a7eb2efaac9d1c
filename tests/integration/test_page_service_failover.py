"""The page server has several safekeepers to read from, and every one of them may fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pagestore.client import PageClient
from pagestore.ids import DEFAULT_TENANT
from tests.integration.imported import Imported, imported
from tests.integration.test_page_service_follow import lsn_now, sizes_equal_files
from tests.integration.wal_files import FileWalService


@contextmanager
def three_services(directory: Path) -> Iterator[tuple[Imported, list[FileWalService], PageClient]]:
    with ExitStack() as stack:
        others = [stack.enter_context(FileWalService()) for _ in range(2)]
        addresses = [service.address for service in others]
        store = stack.enter_context(imported(directory, more_wal=addresses))
        yield store, [store.wal, *others], stack.enter_context(store.pages.client())


def work(store: Imported) -> int:
    """Some WAL; its end."""
    store.cluster.sql("DROP TABLE IF EXISTS t")
    store.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 5000) i")
    return lsn_now(store.cluster)


def tell(store: Imported, services: list[FileWalService], lsn: int) -> None:
    for service in services:
        service.publish(DEFAULT_TENANT, store.timeline, store.cluster.data / "pg_wal", lsn)


def test_whoever_is_ahead_is_read(tmp_path: Path) -> None:
    with three_services(tmp_path) as (store, services, client):
        for service in services * 2:
            end = work(store)
            tell(store, [service], end)
            store.wait(client, end)
        end = store.stop_and_publish()
        tell(store, services[:1], end)
        store.wait(client, end)
        sizes_equal_files(store, client, end)


def test_one_that_freezes_or_breaks_in_mid_stream_is_left(tmp_path: Path) -> None:
    with three_services(tmp_path) as (store, services, client):
        for fault in range(6):
            end = work(store)
            tell(store, services, end)
            store.wait(client, end)
            # Its stream goes on, or it breaks; the others have what comes next.
            victim = services[fault % 3]
            victim.frozen = fault < 3
            if fault >= 3:
                victim.break_streams()
            end = work(store)
            tell(store, [service for service in services if service is not victim], end)
            store.wait(client, end)
            victim.frozen = False
        end = store.stop_and_publish()
        tell(store, services, end)
        store.wait(client, end)
        sizes_equal_files(store, client, end)


def test_one_that_serves_damage_is_not_believed(tmp_path: Path) -> None:
    with three_services(tmp_path) as (store, services, client):
        end = work(store)
        middle = (store.import_lsn + end) // 2
        for service in services[:2]:
            service.publish(DEFAULT_TENANT, store.timeline, store.cluster.data / "pg_wal", 1)
            service.flip(DEFAULT_TENANT, store.timeline, middle)
        tell(store, services, end)
        store.wait(client, end)
        end = store.stop_and_publish()
        tell(store, services, end)
        store.wait(client, end)
        sizes_equal_files(store, client, end)


def test_one_that_lost_the_timeline_is_passed_over(tmp_path: Path) -> None:
    with three_services(tmp_path) as (store, services, client):
        for survivor in services:
            end = work(store)
            for service in services:
                service.forget(DEFAULT_TENANT, store.timeline)
            tell(store, [survivor], end)
            store.wait(client, end)
