"""A safekeeper whose whole directory is an older copy, beside a page server that has seen more."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.errors import DataLoss
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.v1 import page_pb2
from tests.integration.stack import Stack, running_stack
from tests.plain_postgres import plain_postgres


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as made:
        yield made


def test_a_log_that_went_back_is_named_on_both_sides_and_never_written_over(
    stack: Stack, tmp_path: Path
) -> None:
    with plain_postgres() as source:
        source.sql("CREATE TABLE t (id int)")
        source.stop()
        timeline = stack.import_cluster(source.data)
    data_dir = stack.safekeeper.data_dir
    older = tmp_path / "older"

    compute = stack.start(timeline)
    compute.sql("INSERT INTO t VALUES (1)")
    compute.stop()
    stack.safekeeper.stop()
    shutil.copytree(data_dir, older)
    stack.safekeeper.start()
    compute = stack.start(timeline)
    compute.sql("INSERT INTO t VALUES (2)")
    compute.stop()
    committed = stack.wait(stack.wal.get_status(DEFAULT_TENANT, timeline)).commit_lsn
    wait_ingested(stack, timeline, committed)

    stack.safekeeper.stop()
    newest = tmp_path / "newest"
    data_dir.rename(newest)
    shutil.copytree(older, data_dir)
    stack.safekeeper.start()
    deadline = time.monotonic() + 30
    while "it is an older copy" not in (said := page_server(stack, timeline).ingest_error):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    status = stack.wait(stack.wal.get_status(DEFAULT_TENANT, timeline))
    assert status.commit_lsn < committed
    assert "it is an older copy" in status.last_error
    with pytest.raises(DataLoss) as refusal:
        stack.start(timeline)
    assert refusal.value.reason == "LOG_ROLLED_BACK"
    after = stack.wait(stack.wal.get_status(DEFAULT_TENANT, timeline))
    assert after.flush_lsn == status.flush_lsn, "nothing was written"

    stack.safekeeper.stop()
    shutil.rmtree(data_dir)
    shutil.copytree(newest, data_dir)
    stack.safekeeper.start()
    compute = stack.start(timeline)
    assert compute.sql("SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def page_server(stack: Stack, timeline: TimelineId) -> page_pb2.TimelineInfo:
    return stack.wait(stack.pages.get_timeline(DEFAULT_TENANT, timeline))


def wait_ingested(stack: Stack, timeline: TimelineId, lsn: int) -> None:
    deadline = time.monotonic() + 30
    while page_server(stack, timeline).last_record_lsn < lsn:
        assert time.monotonic() < deadline
        time.sleep(0.05)
