"""An installation that is watched: what Prometheus finds, and what people see."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.plain_postgres import free_port
from tests.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs/operators.md"


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def whole(port: int, traces: Path) -> Iterator[Whole]:
    environment = {
        "PAGESTORE_EXPORTER__HTTP": f"127.0.0.1:{port}",
        "PAGESTORE_TRACES": f"file:{traces}",
    }
    with whole_pagestore(environment=environment) as running:
        running.json("create", "app")
        with running.connect("app") as session:
            session.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
        yield running


def scrape(whole: Whole, port: int) -> str:
    token = (whole.data / "tokens/exporter").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def test_prometheus_finds_what_is_documented_and_nothing_else(whole: Whole, port: int) -> None:
    text = scrape(whole, port)
    families = [*text_string_to_metric_families(text)]
    samples = [sample for family in families for sample in family.samples]
    found = {re.sub("_(bucket|count|sum|created)$", "", sample.name) for sample in samples}
    documented = set(re.findall(r"`((?:pagestore|process)_[a-z_]+)`", DOCS.read_text()))
    assert found == documented
    up = {s.labels["part"]: s.value for s in samples if s.name == "pagestore_up"}
    assert up == dict.fromkeys(("control", "pageserver", "safekeeper", "compute", "proxy"), 1.0)
    values = {s.name: s.value for s in samples}
    assert values["pagestore_databases"] == 1
    assert values["pagestore_queries_total"] >= 1
    assert values["pagestore_wal_committed_bytes_total"] > 0
    assert values["pagestore_wake_duration_seconds_count"] >= 0


def test_a_part_that_is_away_is_shown_as_such_and_hinders_no_other(whole: Whole, port: int) -> None:
    whole.kill("safekeeper")
    wait_until(lambda: 'pagestore_up{part="pageserver"} 1.0' in scrape(whole, port))
    patiently(lambda: whole.run("status"))
    wait_until(lambda: 'pagestore_up{part="safekeeper"} 1.0' in scrape(whole, port))


def test_lines_of_logs_have_the_database_s_name(whole: Whole, port: int) -> None:
    """Of a safekeeper whose compute was killed, which knows nothing but a timeline."""
    patiently(lambda: whole.run("status"))
    for part in ("pageserver", "safekeeper", "compute"):
        told = f'code="OK",method="NameService/TellNames",part="{part}"'
        wait_until(lambda told=told: told in scrape(whole, port))

    def lines() -> list[dict[str, Any]]:
        text = whole.installation.log_file("safekeeper").read_text().splitlines()
        return [json.loads(line) for line in text if line.startswith("{")]

    whole.run("rename", "app", "renamed")
    try:
        whole.run("start", "renamed")

        def killed() -> bool:
            shown = whole.json("show", "renamed")
            if shown["compute_pid"]:
                os.kill(shown["compute_pid"], signal.SIGKILL)
            whole.run("start", "renamed")
            return any(
                line["event"] == "stream" and line.get("database") == "renamed" for line in lines()
            )

        wait_until(killed, 60)
    finally:
        whole.run("rename", "renamed", "app")


def test_without_the_token_nothing_is_told(whole: Whole, port: int) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20)


def test_the_same_is_printed(whole: Whole) -> None:
    assert 'pagestore_up{part="proxy"} 1.0' in whole.run("metrics").stdout
    up = {"name": "pagestore_up", "labels": {"part": "proxy"}, "value": 1.0}
    assert up in whole.json("metrics")["metrics"]


def test_who_is_at_work_is_seen(whole: Whole) -> None:
    with whole.connect("app") as session:
        session.execute("SELECT 1")

        seen = threading.Event()

        def work() -> None:
            while not seen.is_set():
                session.execute("SELECT sum(i) FROM t")

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                (row,) = whole.json("top", "--looks", "1", "--every", "1")["databases"]
            finally:
                seen.set()
            working.result()
    assert row["name"] == "app"
    assert row["state"] == "awake"
    assert row["sessions"] >= 1
    assert row["queries_per_second"] > 0
    shown = whole.run("top", "--looks", "1", "--every", "0.2").stdout
    assert shown.startswith("app\tawake\t")


def test_a_wake_is_one_trace_through_all_parts(whole: Whole, traces: Path) -> None:
    whole.run("stop", "app")
    for file in traces.iterdir():
        file.write_text("")
    assert whole.sql("app", "SELECT 1") == [(1,)]

    def spans() -> list[dict[str, Any]]:
        lines = [line for file in traces.iterdir() for line in file.read_text().splitlines()]
        return [json.loads(line) for line in lines]

    (wake,) = [span for span in spans() if span["name"] == "wake"]
    assert wake["attributes"]["database"] == "app"
    of_it = [span for span in spans() if span["context"]["trace_id"] == wake["context"]["trace_id"]]
    parts = {span["resource"]["attributes"]["service.name"] for span in of_it}
    expected = ("proxy", "control", "compute", "pageserver", "safekeeper")
    assert parts == {f"pagestore-{part}" for part in expected}
    methods = {span["name"] for span in of_it}
    assert {"StartPlace", "StartCompute", "Vote", "GetBaseBackup", "AttachCompute"} <= methods
    ids = {span["name"]: span["context"]["span_id"] for span in of_it}
    parents = {span["name"]: span["parent_id"] for span in of_it}
    assert parents["StartPlace"] == ids["wake"]
    assert parents["StartCompute"] == ids["StartPlace"]
    assert parents["GetBaseBackup"] == ids["StartCompute"]
