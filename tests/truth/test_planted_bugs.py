"""Truth can fail: bugs planted around ingest and branches are each found, and nothing else is.

One history is asked about with one page server a bug; see planted.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.client import PageClient
from pagestore.compute.pgdata import read_pgdata
from pagestore.errors import FailedPrecondition
from pagestore.ids import DEFAULT_TENANT
from tests.integration.page_process import PageProcess
from tests.truth.history import History, differences, history
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
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with history(tmp_path_factory.mktemp("planted"), WORKLOAD) as result:
        yield result


@pytest.mark.parametrize("bug", FOUND)
def test_a_planted_bug_is_found(made: History, bug: str, tmp_path: Path) -> None:
    server = PageProcess(tmp_path / "pages", [made.store.wal.address])
    server.program = ["-m", "tests.truth.planted", bug]
    lsn = made.record_end(made.end - 200)
    with server:
        with PageClient(server.address) as client:
            client.import_timeline(read_pgdata(made.base, DEFAULT_TENANT, made.timeline))
        honest, made.store.pages = made.store.pages, server
        try:
            made.wait()
            found = differences(made, lsn, branches=1)
        finally:
            made.store.pages = honest
    what = FOUND[bug]
    assert any(what in difference for difference in found) if what else not found, found[:20]
    if bug == "branch_off_by_one":
        assert all(difference.startswith("branch") for difference in found)


def test_images_in_the_wal_find_a_wrong_byte(tmp_path: Path) -> None:
    """The page server stops the timeline itself; what was good stays readable."""
    settings = {"wal_consistency_checking": "all"}
    with history(tmp_path, WORKLOAD, page_server={"check_wal_images": True}, **settings) as made:
        assert not differences(made, made.end)
        server = PageProcess(tmp_path / "wrong", [made.store.wal.address], check_wal_images=True)
        server.program = ["-m", "tests.truth.planted", "wrong_byte"]
        with server, PageClient(server.address) as client:
            client.import_timeline(read_pgdata(made.base, DEFAULT_TENANT, made.timeline))
            with pytest.raises(FailedPrecondition) as stopped:
                made.store.wait(client, made.end)
            info = client.get_timeline(DEFAULT_TENANT, made.timeline)
            made.store.wait(client, info.last_record_lsn)
    assert stopped.value.reason == "INGEST_STOPPED"
    assert "fork 0 block" in str(stopped.value)
    assert made.start <= info.last_record_lsn < made.end
    assert "is not what the WAL record" in info.ingest_error
