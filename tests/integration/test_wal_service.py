"""A safekeeper on real Postgres: what was acknowledged is there, byte for byte."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.safekeeper_process import (
    Timeline,
    compute_wal,
    followed_postgres,
    insert,
    lsn_of,
    synchronous_state,
)


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Timeline]:
    with followed_postgres(tmp_path / "sk") as timeline:
        yield timeline


def test_commits_are_durable_when_they_return(followed: Timeline) -> None:
    deadline = time.monotonic() + 20
    while synchronous_state(followed.postgres) != "quorum":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with followed.postgres.connect() as connection:
        for number in range(20):
            insert(connection, number)
            end = lsn_of(followed.postgres, "pg_current_wal_flush_lsn()")
            assert followed.status().commit_lsn >= end
    followed.postgres.stop()
    end = followed.status().commit_lsn
    assert followed.read() == compute_wal(followed.postgres, followed.start_lsn, end)


def test_a_clean_stop_ships_the_shutdown_checkpoint(followed: Timeline) -> None:
    followed.postgres.sql("INSERT INTO ledger SELECT i FROM generate_series(1, 1000) i")
    followed.postgres.stop()
    checkpoint = followed.postgres.tool("pg_controldata", "-D", followed.postgres.data).stdout
    line = next(text for text in checkpoint.splitlines() if "checkpoint location" in text)
    high, low = line.split()[-1].split("/")
    record = int(high, 16) << 32 | int(low, 16)
    end = followed.detach(wait_flush_lsn=record + 120, wait_ms=20000)
    assert end == record + 120
    assert followed.status().last_error == ""
    answer = followed.vote()
    assert (answer.end_lsn, answer.prev_record_lsn) == (end, record)
