"""The benchmark harness runs on the real parts. What it measures is nothing to test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pagestore.bench import harness
from pagestore.bench.harness import Bench, Settings
from pagestore.bench.parts import getpage, proxy, redo, storage, workflows
from tests.schemas import check

TINY = Settings(rounds=2, warmup=0, seconds=0.1, scale=1, branches=(1,))


def test_getpage_and_redo_measure_the_real_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpage, "SHAPES", ((1, 1), (4, 32)))
    monkeypatch.setattr(getpage, "CHAINS", (10,))
    monkeypatch.setattr(redo, "LENGTHS", (10,))
    report = harness.run({"getpage": getpage.run, "redo": redo.run}, TINY)
    assert report.failures == {}
    assert {row.part for row in report.rows} == {"getpage", "redo"}
    check("bench", {**report.as_json(), "results": "x.json", "elapsed_ms": 1.0})
    for row in report.rows:
        assert len(row.values) == TINY.rounds
        if "CPU" not in row.unit:
            assert row.median > 0, row


def test_the_load_generator_says_what_the_page_server_refused(tmp_path: Path) -> None:
    def no_such_relation(bench: Bench) -> None:
        with bench.plain() as cluster:
            cluster.stop()
            followed = bench.stack.import_cluster(cluster)
        missing = getpage.Rel(1663, 5, 99_999)
        table = getpage.Table(bench.stack, followed, missing, 8)
        getpage.load(table, followed.start_lsn, 1, 1, "once", 0, 0)

    report = harness.run({"missing": no_such_relation}, TINY)
    assert "refused" in report.failures["missing"]
    assert report.rows == []
    assert report.settings["parts"] == ["missing"]


def test_the_proxy_is_measured_beside_plain_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PgBouncer, which not every machine has."""
    monkeypatch.setattr(proxy, "bouncer_program", lambda: None)
    for name, value in {
        "ASKING": (2,),
        "PREPARED": (2,),
        "IDLE": 50,
        "AT_ONCE": 5,
        "WATCHED_SECONDS": 0.1,
        "COPIED": 20_000,
        "TLS": (True,),
    }.items():
        monkeypatch.setattr(proxy, name, value)
    report = harness.run({"proxy": proxy.run}, replace(TINY, rounds=1))
    assert report.failures == {}
    assert "apt-get install pgbouncer" in report.remarks[0]
    assert {row.system for row in report.rows} >= {"pagestore", "plain Postgres"}
    assert len({row.case for row in report.rows}) > 10


def test_the_storage_part_gives_all_its_rows() -> None:
    """And in no more time than a test may take: what it measures at that size means nothing."""
    report = harness.run({"storage": storage.run}, harness.QUICK)
    assert report.failures == {}
    assert {row.part for row in report.rows} == {"storage"}
    cases = {row.case for row in report.rows}
    shapes = {
        f"{what} {how}"
        for what in ("random read", "scan")
        for how in ("at depth, before", "at depth, settled", "beside siblings", "after flushes")
    }
    assert cases == shapes | {
        "files after flushes",
        "WAL beside the data",
        "merges, one core",
        "cold read, p99",
        "cold read, settled",
        "write amplification",
        "space, all history kept",
        "space, no history kept",
        "branch at the API, of 6",
        "bytes of a branch, all parts",
        "page server's start with 6 databases",
        "page server's start with 6 databases: memory",
        "deleting 6 branches",
        "deleting 6 branches: bytes back",
    }
    # So few branches fit into pages that LMDB's files have already.
    assert all(row.median > 0 for row in report.rows if "byte" not in row.case)
    for row in report.rows:
        assert not row.relative_to or report.find("storage", row.case, row.relative_to)
    check("bench", {**report.as_json(), "results": "x.json", "elapsed_ms": 1.0})


def test_the_workflows_are_those_of_the_paper_on_both_systems() -> None:
    """Each branch of ours has what its statements made of its parent, as the copy has."""
    differing: list[str] = []
    real = workflows.Run._rows

    def rows(self: workflows.Run) -> None:
        for branch in ("", *self._tree.parents):
            name = self._database(branch)
            found = set()
            for system in self._systems:
                with system.connect(name) as connection:
                    found.add(tuple(connection.execute(CONTENT).fetchall()))
                system.leave(name)
            if len(found) != 1:
                differing.append(name)
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflows.Run, "_rows", rows)
        report = harness.run({"workflows": workflows.run}, harness.QUICK)
    assert report.failures == {}
    assert differing == []
    named = {row.case.partition(":")[0] for row in report.rows}
    assert named == {workflow.name for workflow in workflows.WORKFLOWS}
    systems = {row.system for row in report.rows}
    assert systems == {"pagestore", "plain Postgres, TEMPLATE"}
    for workflow in workflows.WORKFLOWS:
        for system in systems:
            steps = report.find("workflows", f"{workflow.name}: a whole step", system)
            assert steps is not None
            assert len(steps.values) == harness.QUICK.workflow_branches


CONTENT = """
SELECT md5(string_agg(row_to_json(o)::text, '' ORDER BY o.id)) FROM orders o
UNION ALL SELECT md5(string_agg(row_to_json(c)::text, '' ORDER BY c.id)) FROM customer c
"""
