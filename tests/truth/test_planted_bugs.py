"""Truth can fail: bugs planted around ingest and branches are each found, and nothing else is.

One history is asked about with one page server a bug; see planted.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.client import PageClient
from pagestore.compute.pgdata import read_pgdata
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
