"""A safekeeper on real Postgres: what was acknowledged is there, byte for byte."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import psycopg
import pytest

from pagestore.client.wal import WalClient
from pagestore.errors import Aborted, DataLoss, FailedPrecondition, OutOfRange
from pagestore.pgformat.wal import read_records
from tests.plain_postgres import VERSION
from tests.safekeeper_process import (
    Timeline,
    compute_wal,
    followed_postgres,
    insert,
    lsn_of,
    wait_synchronous,
)
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline]:
    """One cluster for the tests that leave it attached and running."""
    with followed_postgres(tmp_path_factory.mktemp("wal") / "sk") as timeline:
        wait_synchronous(timeline.postgres)
        yield timeline


def test_commits_are_durable_when_they_return(followed: Timeline) -> None:
    with followed.postgres.connect() as connection:
        for number in range(20):
            insert(connection, number)
            end = lsn_of(followed.postgres, "pg_current_wal_flush_lsn()")
            assert followed.status().commit_lsn >= end


def test_wal_is_read_from_any_lsn(followed: Timeline) -> None:
    followed.postgres.sql("INSERT INTO ledger SELECT i FROM generate_series(1000, 5000) i")
    end = followed.status().commit_lsn
    whole = compute_wal(followed.postgres, followed.start_lsn, end)
    page = (followed.start_lsn // 8192 + 2) * 8192
    for lsn in (followed.start_lsn, followed.start_lsn + 1, page - 1, page, page + 3, end - 1):
        assert followed.read(lsn)[: end - lsn] == whole[lsn - followed.start_lsn :]
    with pytest.raises(OutOfRange, match="before the log's start") as old:
        followed.read(followed.start_lsn - 8)
    assert old.value.reason == "LSN_TOO_OLD"
    # Who asks from there on says that it has all before it: then the log here was longer once.
    with pytest.raises(DataLoss) as future:
        followed.read(end + (1 << 30))
    assert future.value.reason == "LOG_ROLLED_BACK"


def test_a_reader_lingers_for_what_comes(followed: Timeline) -> None:
    _insert_and_wait(followed, 899)

    async def work(client: WalClient) -> None:
        at = followed.start_lsn
        pieces = client.read_wal(followed.tenant, followed.id, at, linger_ms=20_000)
        async with aclosing(pieces):
            for number in (900, 901):
                end = (await client.get_status(followed.tenant, followed.id)).commit_lsn
                while at < end:
                    lsn, data = await anext(pieces)
                    assert lsn == at
                    at += len(data)
                # All that there was has been read: what comes now was lingered for.
                await asyncio.to_thread(_insert_and_wait, followed, number)

    followed.safekeeper.call(work)


def test_lsns_align_to_record_ends(followed: Timeline) -> None:
    followed.postgres.sql("INSERT INTO ledger SELECT i FROM generate_series(6000, 6300) i")
    end = followed.status().commit_lsn
    data = followed.read()[: end - followed.start_lsn]
    records = list(read_records(data, followed.start_lsn, 0, version=VERSION))
    ends = {followed.start_lsn: 0} | {record.end_lsn: record.start_lsn for record in records}
    for lsn in [*range(followed.start_lsn, end, 5003), end - 1, end, *list(ends)[1:40:3]]:
        aligned, prev = followed.safekeeper.call(
            lambda client, at=lsn: client.align_lsn(followed.tenant, followed.id, at)
        )
        expected = max(at for at in ends if at <= lsn)
        assert (aligned, prev) == (expected, ends[expected]), hex(lsn)


def test_an_attached_timeline_is_not_deleted(followed: Timeline) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        followed.safekeeper.call(lambda c: c.delete_timeline(followed.tenant, followed.id))
    assert refusal.value.reason == "ATTACHED"


def test_watchers_hear_of_commits(followed: Timeline) -> None:
    heard = 0

    async def work(client: WalClient) -> None:
        nonlocal heard
        complete = False
        async for update in client.watch_commits("test"):
            for position in update.positions:
                if position.timeline_id == followed.id.raw:
                    heard = position.commit_lsn
            complete |= update.snapshot_complete
            if complete and heard >= end:
                return

    with followed.postgres.connect() as connection:
        for number in range(910, 920):
            insert(connection, number)
    end = lsn_of(followed.postgres, "pg_current_wal_flush_lsn()")
    followed.safekeeper.call(lambda client: asyncio.wait_for(work(client), 30))
    assert heard >= end


def test_a_clean_stop_ships_the_shutdown_checkpoint(tmp_path: Path) -> None:
    with followed_postgres(tmp_path / "sk") as followed:
        followed.postgres.sql("INSERT INTO ledger SELECT i FROM generate_series(1, 1000) i")
        followed.postgres.stop()
        printed = followed.postgres.tool("pg_controldata", "-D", followed.postgres.data).stdout
        line = next(text for text in printed.splitlines() if "checkpoint location" in text)
        high, low = line.split()[-1].split("/")
        record = int(high, 16) << 32 | int(low, 16)
        end = followed.detach(wait_flush_lsn=record + 120, wait_ms=20000)
        assert end == record + 120
        answer = followed.vote()
        assert (answer.end_lsn, answer.prev_record_lsn) == (end, record)
        assert followed.read() == compute_wal(followed.postgres, followed.start_lsn, end)
        history = followed.status().term_history
        assert [(item.term, item.start_lsn) for item in history] == [(1, followed.start_lsn)]


def test_who_is_attached_on_hold_is_left_alone_until_it_is_attached(tmp_path: Path) -> None:
    with followed_postgres(tmp_path / "sk") as followed:
        followed.wait(lambda status: status.receiving)
        end = followed.detach()
        followed.vote()
        followed.attach(end, hold=True)
        sessions = "SELECT count(*) FROM pg_stat_replication"
        assert followed.postgres.sql(sessions) == [(0,)]
        assert not followed.status().receiving
        followed.attach(end)
        followed.wait(lambda status: status.receiving)
        followed.attach(end)
        assert followed.status().receiving, "once more is nothing new"


def test_a_higher_term_ends_the_compute_that_still_runs(tmp_path: Path) -> None:
    """The fenced compute's commit waits for ever; not a byte of it is in the log."""
    with followed_postgres(tmp_path / "sk") as followed:
        wait_synchronous(followed.postgres)
        with followed.postgres.connect() as connection:
            insert(connection, 1)
        old_term = followed.term
        answer = followed.vote()
        with followed.postgres.connect() as connection:
            connection.execute("SET statement_timeout = '1s'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                # The wait for a standby is not cut short by the timeout; pg_sleep shows that
                # the session itself is well.
                connection.execute("SELECT pg_sleep(5)")
        waiting = threading.Thread(target=_insert_and_wait, args=(followed, 2), daemon=True)
        waiting.start()
        _wait_for_sync_rep(followed)
        assert followed.status().commit_lsn == answer.end_lsn
        assert not followed.status().receiving
        term, followed.term = followed.term, old_term
        for attempt in (followed.detach, lambda: followed.attach(answer.end_lsn)):
            with pytest.raises(Aborted) as refusal:
                attempt()
            assert refusal.value.reason == "STALE_TERM"
        followed.term = term
        assert waiting.is_alive()
        assert followed.status().commit_lsn == answer.end_lsn


def test_damage_to_a_segment_is_named_not_served(tmp_path: Path) -> None:
    with followed_postgres(tmp_path / "sk") as followed:
        followed.postgres.sql("INSERT INTO ledger SELECT i FROM generate_series(1, 1000) i")
        followed.vote()
        segment = next(path for path in followed.directory.iterdir() if len(path.name) == 24)
        with segment.open("r+b") as file:
            file.truncate(8 << 20)
        with pytest.raises(DataLoss, match=segment.name) as damage:
            followed.read()
        assert damage.value.reason == "SEGMENT_DAMAGED"
        followed.safekeeper.stop()
        followed.safekeeper.start()
        with pytest.raises(DataLoss, match=segment.name):
            followed.status()
        segment.unlink()
        with pytest.raises(DataLoss, match=segment.name):
            followed.read()


def _insert_and_wait(followed: Timeline, number: int) -> None:
    try:
        with followed.postgres.connect() as connection:
            insert(connection, number)
    except psycopg.OperationalError:
        pass


def _wait_for_sync_rep(followed: Timeline) -> None:
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_until(lambda: followed.postgres.sql(waits))
