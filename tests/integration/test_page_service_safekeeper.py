"""Cluster, safekeeper and page server, each a real process: kill -9 of the two services in turn.

Whatever was committed is in the pages, and the pages equal the cluster's own files at the end.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np
import psycopg

from pagestore.client import PageClient, Rel
from pagestore.ids import DEFAULT_TENANT
from pagestore.pgformat.bufmask import PageKind, mask_pages
from tests.integration.imported import end_of_wal, import_cluster, local_blocks, remote_blocks
from tests.integration.page_process import PageProcess
from tests.plain_postgres import PlainPostgres, plain_postgres
from tests.safekeeper_process import (
    SYNCHRONOUS,
    SafekeeperProcess,
    Timeline,
    insert,
    wait_synchronous,
)


class Writer:
    """Commits numbered rows until told to stop."""

    def __init__(self, postgres: PlainPostgres) -> None:
        self._postgres = postgres
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.committed = 0
        self._thread.start()

    def _write(self) -> None:
        with self._postgres.connect() as connection:
            while not self._stop.is_set():
                insert(connection, self.committed + 1, 500)
                self.committed += 1

    def stop(self) -> int:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.committed

    def wait_for(self, more: int) -> None:
        goal = self.committed + more
        while self.committed < goal:
            assert self._thread.is_alive()
            self._stop.wait(0.01)


def test_killed_services_lose_nothing(tmp_path: Path) -> None:
    safekeeper = SafekeeperProcess(tmp_path / "sk")
    safekeeper.start()
    pages = PageProcess(tmp_path / "pages", [safekeeper.listen])
    try:
        with plain_postgres(**SYNCHRONOUS, fsync="off", full_page_writes="off") as postgres, pages:
            # Until it is followed, nobody can confirm a commit.
            postgres.sql(
                "SET synchronous_commit = local; CREATE TABLE ledger (id int, filler text)"
            )
            postgres.stop()
            with pages.client() as client:
                timeline = Timeline(safekeeper, postgres)
                timeline.id, info = import_cluster(client, postgres.data)
            follow(timeline, info.last_record_lsn)
            work(postgres, safekeeper, pages)
            [[rel]] = postgres.sql("SELECT pg_relation_filenode('ledger')")
            [[rows]] = postgres.sql("SELECT count(*) FROM ledger")
            postgres.stop()
            end = end_of_wal(postgres.data)
            timeline.detach(end, 20_000)
            with pages.client() as client:
                compare(client, timeline, end, Rel(1663, 5, rel))
            assert rows > 100
    finally:
        safekeeper.stop()


def follow(timeline: Timeline, lsn: int) -> None:
    """Starts the cluster again with the safekeeper behind it."""
    timeline.postgres.start()
    timeline.start_lsn = lsn
    timeline.safekeeper.call(
        lambda client: client.create_timeline(timeline.tenant, timeline.id, lsn)
    )
    timeline.vote()
    timeline.attach()
    wait_synchronous(timeline.postgres)


def work(postgres: PlainPostgres, safekeeper: SafekeeperProcess, pages: PageProcess) -> None:
    writer = Writer(postgres)
    try:
        for _ in range(2):
            writer.wait_for(30)
            pages.kill()
            writer.wait_for(30)
            pages.start()
            safekeeper.stop(signal.SIGKILL)
            safekeeper.start()
            writer.wait_for(10)
        committed = writer.stop()
        [[found]] = postgres.sql("SELECT max(id) FROM ledger")
        assert found >= committed
    except psycopg.Error as error:
        raise AssertionError(safekeeper.log.read_text()) from error
    finally:
        writer.stop()


def compare(client: PageClient, timeline: Timeline, end: int, ledger: Rel) -> None:
    client.get_rel_size(DEFAULT_TENANT, timeline.id, end, ledger)
    found = dict(local_blocks(timeline.postgres.data))
    blocks = np.arange(len(found[ledger]))
    ours = list(remote_blocks(client, timeline.id, end, ledger, len(blocks)))
    masked = [
        mask_pages(np.frombuffer(b"".join(some), np.uint8).reshape(-1, 8192), PageKind.HEAP, blocks)
        for some in (ours, found[ledger])
    ]
    assert (masked[0] == masked[1]).all()
