"""Truth can fail: bugs planted around ingest and branches are each found, and nothing else is.

One history is asked about with one page server a bug; see planted.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.client import PageClient
from pagestore.errors import FailedPrecondition
from pagestore.ids import DEFAULT_TENANT
from pagestore.transfer.pgdata import read_pgdata
from tests.integration.imported import wait_ingested
from tests.integration.page_process import PageProcess
from tests.truth.history import History, history
from tests.truth.workloads import Workload

WORKLOAD = Workload(
    "small",
    "CREATE TABLE shrinks (n int) WITH (autovacuum_enabled = off);"
    "CREATE TABLE seen (n int) WITH (autovacuum_enabled = off)",
    (
        "INSERT INTO shrinks SELECT generate_series(1, 5000)",
        "INSERT INTO seen SELECT generate_series(1, 3000)",
        "VACUUM seen",
        "DELETE FROM shrinks WHERE n > 10",
        "VACUUM shrinks",
        "UPDATE seen SET n = -n WHERE n % 500 = 1",
        "INSERT INTO seen VALUES (1)",
    ),
)
FOUND = {
    "none": "",
    "wrong_byte": "heap page, 1 bytes from",
    "missed_map_clear": "map page",
    "lost_truncation": " blocks for ",
    "branch_off_by_one": "branch ",
}


@pytest.fixture(scope="module")
def made() -> Iterator[History]:
    with history(WORKLOAD) as result:
        yield result


@pytest.fixture(scope="module")
def replayed(made: History) -> Iterator[tuple[int, Path]]:
    lsn = made.record_end(made.end - 200)
    with made.replayed(lsn) as data:
        yield lsn, data


@pytest.mark.parametrize("bug", FOUND)
def test_a_planted_bug_is_found(
    made: History, replayed: tuple[int, Path], bug: str, tmp_path: Path
) -> None:
    lsn, data = replayed
    server = PageProcess(tmp_path / "pages", [made.stack.safekeeper.listen])
    server.program = ["-m", "tests.truth.planted", bug]
    with server:
        with PageClient(server.address) as client:
            client.import_timeline(read_pgdata(made.base, DEFAULT_TENANT, made.timeline))
        made.wait(server)
        found = made.compare(data, lsn, branches=1, server=server).differences
    what = FOUND[bug]
    assert any(what in difference for difference in found) if what else not found, found[:20]
    if bug == "branch_off_by_one":
        assert all(difference.startswith("branch") for difference in found)


def test_images_in_the_wal_find_a_wrong_byte(tmp_path: Path) -> None:
    """The page server stops the timeline itself; what was good stays readable."""
    settings = {"wal_consistency_checking": "all"}
    with history(WORKLOAD, page_server={"check_wal_images": True}, **settings) as made:
        with made.replayed(made.end) as data:
            assert not made.compare(data, made.end).differences
        safekeeper = [made.stack.safekeeper.listen]
        server = PageProcess(tmp_path / "wrong", safekeeper, check_wal_images=True)
        server.program = ["-m", "tests.truth.planted", "wrong_byte"]
        with server, PageClient(server.address) as client:
            client.import_timeline(read_pgdata(made.base, DEFAULT_TENANT, made.timeline))
            with pytest.raises(FailedPrecondition) as stopped:
                wait_ingested(client, made.timeline, made.end)
            info = client.get_timeline(DEFAULT_TENANT, made.timeline)
            wait_ingested(client, made.timeline, info.last_record_lsn)
    assert stopped.value.reason == "INGEST_STOPPED"
    assert "fork 0 block" in str(stopped.value)
    assert made.start <= info.last_record_lsn < made.end
    assert "is not what the WAL record" in info.ingest_error
