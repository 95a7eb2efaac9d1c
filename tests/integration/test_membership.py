"""Safekeepers are replaced, and become more, while a client writes that notices nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.installation import Whole, whole_pagestore
from tests.integration.test_three_safekeepers import Commits, following, wait_for
from tests.safekeeper_process import SafekeeperProcess


@pytest.fixture
def three() -> Iterator[Whole]:
    with whole_pagestore(safekeepers=3) as whole:
        yield with_databases(whole)


def with_databases(whole: Whole) -> Whole:
    """One that is written, one that is stopped, and the past of both."""
    whole.json("create", "app")
    whole.sql("app", "CREATE TABLE t (id int PRIMARY KEY)")
    whole.json("create", "idle")
    whole.sql("idle", "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
    whole.json("checkpoint", "idle", "before")
    whole.sql("idle", "DELETE FROM kept")
    whole.json("restore", "idle", "before")
    whole.json("stop", "idle")
    return whole


def writing(whole: Whole) -> Commits:
    writer = Commits(whole.json("url", "app")["url"])
    writer.start()
    writer.go_on()
    return writer


def check_all(whole: Whole, writer: Commits, parts: list[str]) -> None:
    """These safekeepers, any of whom may be away, have all that was ever committed."""
    writer.go_on()
    wait_for(lambda: len(following(whole, "app")) == len(parts), whole)
    found = whole.json("safekeepers")
    assert [item["part"] for item in found["safekeepers"]] == parts
    assert found["settled"]
    assert whole.json("start", "idle")
    assert whole.sql("idle", "SELECT count(*) FROM kept") == [(1000,)]
    for part in parts:
        pid = whole.kill(part, signal.SIGSTOP)
        try:
            writer.go_on()
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: len(following(whole, "app")) == len(parts), whole)
    writer.end()
    assert whole.sql("app", "SELECT count(*) FROM t") == [(writer.count,)]


def test_a_living_one_is_replaced(three: Whole) -> None:
    writer = writing(three)
    three.run("safekeepers", "--replace", "2")
    assert not three.installation.part_dir("safekeeper-2").exists()
    check_all(three, writer, ["safekeeper-1", "safekeeper-3", "safekeeper-4"])
    three.json("branch", "app", "later")
    assert three.sql("later", "SELECT count(*) FROM t") == [(writer.count,)]


def test_a_frozen_one_is_replaced(three: Whole) -> None:
    writer = writing(three)
    three.kill("safekeeper-1", signal.SIGSTOP)
    three.run("safekeepers", "--replace", "1")
    check_all(three, writer, ["safekeeper-2", "safekeeper-3", "safekeeper-4"])


def test_one_is_replaced_by_one_that_runs_elsewhere(three: Whole, tmp_path: Path) -> None:
    elsewhere = SafekeeperProcess(tmp_path / "sk4", number=4)
    elsewhere.start()
    try:
        writer = writing(three)
        three.run("safekeepers", "--replace", "3", "--with", f"4={elsewhere.listen}")
        rows = three.json("safekeepers")["safekeepers"]
        assert [(row["id"], row["state"]) for row in rows] == [
            (1, "here"),
            (2, "here"),
            (4, "elsewhere"),
        ]
        three.kill("safekeeper-1", signal.SIGSTOP)
        writer.go_on()
        writer.end()
        three.kill("safekeeper-1")
    finally:
        three.down()
        elsewhere.stop()


def test_one_becomes_three() -> None:
    with whole_pagestore() as whole:
        writer = writing(with_databases(whole))
        assert whole.error("up", "--safekeepers", "3")["reason"] == "OTHER_SAFEKEEPERS"
        whole.run("safekeepers", "--grow", "3")
        check_all(whole, writer, ["safekeeper", "safekeeper-2", "safekeeper-3"])


def test_what_was_broken_off_goes_on(three: Whole) -> None:
    """The verb, the control plane and a safekeeper are killed in the middle, again and again."""
    writer = writing(three)
    verb = [sys.executable, "-m", "pagestore.cli.main", "safekeepers", "--replace", "3"]
    newcomer = 0
    for _ in range(3):
        running = subprocess.Popen(verb, env=three.environment, stderr=subprocess.DEVNULL)
        try:
            # Frozen before it serves, so that the change cannot have come to its end.
            newcomer = newcomer or frozen(three, "safekeeper-4")
            wait_for(lambda: is_under_way(three), three)
            assert running.poll() is None
        finally:
            running.kill()
            running.wait()
        for part in ("control", "safekeeper-1"):
            three.kill(part)
        wait_for(lambda: is_under_way(three), three)
        writer.go_on()
    os.kill(newcomer, signal.SIGCONT)
    three.kill("control")
    three.run("safekeepers", "--replace", "3")
    check_all(three, writer, ["safekeeper-1", "safekeeper-2", "safekeeper-4"])


def frozen(whole: Whole, part: str) -> int:
    """A part that is about to be started, stopped as soon as it is; its process id."""
    wait_for(lambda: part in whole.installation.parts(), whole)
    return whole.kill(part, signal.SIGSTOP)


def is_under_way(whole: Whole) -> bool:
    """Whether the control plane, which may be starting, says that timelines have yet to move."""
    asked = whole.run("safekeepers", "--json", check=False)
    if asked.returncode != 0:
        return False
    found = json.loads(asked.stdout)
    states = {item["id"]: item["state"] for item in found["safekeepers"]}
    return states == {1: "here", 2: "here", 3: "leaving", 4: "here"} and (
        not found["settled"] and found["timelines_left"] > 0
    )


def test_it_is_refused_what_makes_no_sense(three: Whole) -> None:
    assert three.error("safekeepers", "--replace", "9")["reason"] == "NO_SUCH_SAFEKEEPER"
    wrong = three.error("safekeepers", "--replace", "1", "--with", "2=127.0.0.1:1")
    assert wrong["reason"] == "INVALID_SETTING"
    both = three.error("safekeepers", "--replace", "1", "--grow", "5")
    assert both["reason"] == "ONE_CHANGE"
