"""A safekeeper that is killed, frozen, and runs out of disk, under clients that commit."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from pathlib import Path

import psycopg
import pytest

from tests import access
from tests.integration.failing_disk import preload, small_disk
from tests.safekeeper_process import (
    SafekeeperProcess,
    Timeline,
    compute_wal,
    flush_lsn,
    followed_postgres,
    insert,
    lsn_of,
    wait_synchronous,
)
from tests.waiting import let_pass, stays, wait_still, wait_until


class Committer(threading.Thread):
    """Commits one row after another, and notes the LSN behind each acknowledged commit."""

    def __init__(self, timeline: Timeline, first: int = 0, filler: int = 100) -> None:
        super().__init__(daemon=True)
        self._timeline = timeline
        self._number = first
        self._filler = filler
        self.acknowledged = 0
        self.acknowledged_lsn = 0
        self.stopping = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            with self._timeline.postgres.connect() as connection:
                while not self.stopping.is_set():
                    insert(connection, self._number, self._filler)
                    row = connection.execute(
                        "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn"
                    ).fetchone()
                    assert row is not None
                    self.acknowledged_lsn = int(row[0])
                    self.acknowledged += 1
                    self._number += 1
        except psycopg.OperationalError:
            pass

    def wait_for(self, more: int) -> None:
        target, deadline = self.acknowledged + more, time.monotonic() + 30
        while self.acknowledged < target:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def finish(self) -> None:
        self.stopping.set()
        self.join(timeout=30)
        assert not self.is_alive()


def wait_blocked(timeline: Timeline) -> None:
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_until(lambda: timeline.postgres.sql(waits))


def assert_same_wal(timeline: Timeline) -> None:
    """After a clean stop of the compute: its WAL and the safekeeper's, byte for byte."""
    end = flush_lsn(timeline.postgres)
    timeline.postgres.stop()
    timeline.wait(lambda status: status.commit_lsn >= end)
    end = timeline.status().commit_lsn
    assert timeline.read() == compute_wal(timeline.postgres, timeline.start_lsn, end)


def test_kill_9_loses_no_acknowledged_commit(tmp_path: Path) -> None:
    with followed_postgres(tmp_path / "sk") as timeline:
        wait_synchronous(timeline.postgres)
        committer = Committer(timeline)
        for pause in (0.0, 0.003, 0.011, 0.05):
            committer.wait_for(20)
            let_pass(pause)
            timeline.safekeeper.stop(signal.SIGKILL)
            known = committer.acknowledged_lsn
            timeline.safekeeper.start()
            assert timeline.status().commit_lsn >= known
            timeline.wait(lambda status: status.receiving)
        committer.wait_for(20)
        committer.finish()
        assert_same_wal(timeline)


def test_both_killed_and_a_new_term_finds_every_commit(tmp_path: Path) -> None:
    with followed_postgres(tmp_path / "sk") as timeline:
        wait_synchronous(timeline.postgres)
        committer = Committer(timeline, filler=30000)
        committer.wait_for(30)
        timeline.safekeeper.stop(signal.SIGKILL)
        timeline.postgres.stop(signal.SIGKILL)
        committer.join(timeout=30)
        timeline.safekeeper.start()
        answer = timeline.vote()
        assert answer.end_lsn >= committer.acknowledged_lsn
        assert answer.prev_record_lsn > 0
        ours = timeline.read()
        assert len(ours) == answer.end_lsn - timeline.start_lsn
        assert ours == compute_wal(timeline.postgres, timeline.start_lsn, answer.end_lsn)


def test_a_record_cut_by_a_crash_is_not_in_the_log(tmp_path: Path) -> None:
    """The log is cut at the last whole record, and the bytes behind it become zeros."""
    with followed_postgres(tmp_path / "sk") as timeline:
        timeline.postgres.sql("INSERT INTO ledger SELECT i FROM generate_series(1, 500) i")
        end = flush_lsn(timeline.postgres)
        timeline.wait(lambda status: status.commit_lsn >= end)
        timeline.safekeeper.stop(signal.SIGKILL)
        end = lsn_of(timeline.postgres, "pg_current_wal_flush_lsn()")
        segment = sorted(p for p in timeline.directory.iterdir() if len(p.name) == 24)[-1]
        timeline.postgres.stop(signal.SIGKILL)
        with segment.open("r+b") as file:
            # A torn record: a right header's first bytes, then nothing more of it.
            file.seek(end % (1 << 24) if end % 8192 else end % (1 << 24) + 24)
            file.write(b"\x50\x00\x00\x00" + bytes(range(1, 40)))
        timeline.safekeeper.start()
        answer = timeline.vote()
        assert answer.end_lsn <= end
        timeline.attach(answer.end_lsn)
        timeline.wait(lambda status: status.last_error != "")
        raw = segment.read_bytes()[answer.end_lsn % (1 << 24) :]
        assert raw == bytes(len(raw))


def test_a_frozen_safekeeper_delays_commits(tmp_path: Path) -> None:
    with followed_postgres(tmp_path / "sk") as timeline:
        wait_synchronous(timeline.postgres)
        committer = Committer(timeline)
        committer.wait_for(10)
        timeline.safekeeper.send(signal.SIGSTOP)
        wait_blocked(timeline)
        before = committer.acknowledged
        assert stays(lambda: committer.acknowledged <= before + 1, 0.5)
        timeline.safekeeper.send(signal.SIGCONT)
        committer.wait_for(10)
        committer.finish()
        assert_same_wal(timeline)


def test_a_lost_compute_is_found_again(tmp_path: Path) -> None:
    """Restarted cleanly, it continues the same log, and is followed again by itself."""
    with followed_postgres(tmp_path / "sk") as timeline:
        timeline.postgres.sql("INSERT INTO ledger VALUES (1)")
        timeline.postgres.stop()
        timeline.wait(lambda status: status.last_error != "")
        timeline.postgres.start()
        timeline.wait(lambda status: status.receiving)
        timeline.postgres.sql("INSERT INTO ledger VALUES (2)")
        assert_same_wal(timeline)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_acknowledges_nothing_and_resumes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "12m"), followed_postgres(disk / "sk") as timeline:
        filler = disk / "filler"
        filler.write_bytes(bytes(8 << 20))
        committer = Committer(timeline, filler=1 << 20)
        wait_synchronous(timeline.postgres)
        timeline.postgres.sql("ALTER TABLE ledger ALTER filler SET STORAGE EXTERNAL")
        timeline.wait(lambda status: "No space" in status.last_error)
        # A retry may still find room for a record or two; then nothing moves any more.
        wait_still(lambda: committer.acknowledged, 1.2)
        assert committer.acknowledged_lsn <= timeline.status().commit_lsn
        wait_blocked(timeline)
        committer.stopping.set()
        filler.unlink()
        committer.finish()
        timeline.wait(lambda status: status.receiving)
        assert_same_wal(timeline)


def test_a_failed_sync_is_said_and_what_it_covered_is_written_again(tmp_path: Path) -> None:
    """EIO once stopped a stream for good, while everything said that it serves. The sync is not
    just repeated: the failing one loses what it covered, as the kernel may."""
    with followed_postgres(tmp_path / "sk") as timeline:
        wait_synchronous(timeline.postgres)
        timeline.safekeeper.stop()
        timeline.safekeeper.start(env={**access.environment(), **preload(tmp_path, losing=True)})
        timeline.wait(lambda status: status.receiving)
        committer = Committer(timeline)
        committer.wait_for(5)
        for _ in range(3):
            (tmp_path / "fail").touch()
            timeline.wait(lambda status: "cannot sync" in status.last_error)
            wait_blocked(timeline)
            stuck = committer.acknowledged
            assert stays(lambda stuck=stuck: committer.acknowledged == stuck, 0.5)
            assert committer.acknowledged_lsn <= timeline.status().commit_lsn
            (tmp_path / "fail").unlink()
            committer.wait_for(20)
            timeline.wait(lambda status: status.receiving and not status.last_error)
        committer.finish()
        assert_same_wal(timeline)


def test_a_stream_is_taken_up_when_the_disk_failed_at_start(tmp_path: Path) -> None:
    """The control file could not be replaced at the one moment that it was tried."""
    with followed_postgres(tmp_path / "sk") as timeline:
        wait_synchronous(timeline.postgres)
        timeline.safekeeper.stop(signal.SIGKILL)
        timeline.postgres.sql("SET synchronous_commit = local; INSERT INTO ledger VALUES (-1)")
        (tmp_path / "fail").write_text("control.tmp")
        timeline.safekeeper.start(env={**access.environment(), **preload(tmp_path)})
        timeline.wait(lambda status: "Cannot replace" in status.last_error)
        assert not timeline.status().receiving
        (tmp_path / "fail").unlink()
        timeline.wait(lambda status: status.receiving)
        timeline.postgres.sql("INSERT INTO ledger VALUES (1)")
        assert_same_wal(timeline)


def test_a_file_that_cannot_grow_stops_the_stream(tmp_path: Path) -> None:
    with followed_postgres(tmp_path / "sk") as timeline:
        wait_synchronous(timeline.postgres)
        timeline.safekeeper.stop()
        at = timeline.postgres.sql("SELECT pg_current_wal_lsn()")
        timeline.postgres.sql("SET synchronous_commit = local; SELECT pg_switch_wal()")
        limit = (8 << 20, resource.RLIM_INFINITY)
        timeline.safekeeper.start(
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        )
        committer = Committer(timeline)
        timeline.wait(lambda status: "File too large" in status.last_error)
        assert committer.acknowledged == 0, at
        resource.prlimit(timeline.safekeeper.pid, resource.RLIMIT_FSIZE, (-1, -1))
        committer.wait_for(5)
        committer.finish()
        assert_same_wal(timeline)


def test_another_cluster_is_refused(tmp_path: Path) -> None:
    with followed_postgres(tmp_path / "sk") as first:
        first.detach()
        stranger = Timeline(first.safekeeper, first.postgres)
        stranger.create(system_id=12345)
        stranger.vote()
        stranger.attach()
        stranger.wait(lambda status: "of cluster" in status.last_error)
        status = stranger.status()
        assert not status.receiving
        assert status.commit_lsn == stranger.start_lsn


def test_one_data_dir_has_one_safekeeper(tmp_path: Path) -> None:
    safekeeper = SafekeeperProcess(tmp_path / "sk")
    safekeeper.start()
    try:
        second = SafekeeperProcess(tmp_path / "sk", 2)
        with pytest.raises(RuntimeError, match="Another safekeeper runs"):
            second.start()
    finally:
        safekeeper.stop()
