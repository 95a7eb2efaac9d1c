"""``pagestore verify``: a whole database passes, with and without plain Postgres; a damaged
layer, or a base that is another one, is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.installation import Whole, whole_pagestore
from tests.plain_postgres import PlainPostgres, reachable_dir


@pytest.fixture(scope="module")
def base() -> Iterator[PlainPostgres]:
    cluster = PlainPostgres(reachable_dir())
    cluster.initdb()
    yield cluster
    shutil.rmtree(cluster.root)


@pytest.fixture(scope="module")
def whole(base: PlainPostgres) -> Iterator[Whole]:
    # All of them wait for their turn to be replayed.
    with whole_pagestore(environment={"PAGESTORE_WAL_KEEP_BYTES": str(1 << 30)}) as made:
        made.json("import", "app", "--from-pgdata", str(base.data))
        made.sql("app", "CREATE TABLE t AS SELECT generate_series(1, 20000) n")
        made.json("checkpoint", "app", "early")
        made.json("branch", "app", "other")
        made.sql("other", "UPDATE t SET n = -n WHERE n % 3 = 0")
        made.sql("app", "DELETE FROM t WHERE n > 100")
        made.json("create", "fresh")
        made.sql("fresh", "CREATE TABLE f AS SELECT generate_series(1, 9000) n")
        made.json("branch", "fresh", "of-fresh")
        made.sql("of-fresh", "DELETE FROM f WHERE n % 2 = 0")
        yield made


def _verify(whole: Whole, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = whole.run("verify", *arguments, "--json", check=False)
    return done.returncode, json.loads(done.stdout or done.stderr)


@pytest.mark.parametrize("name", ["app", "other"])
def test_a_whole_database_passes(whole: Whole, base: PlainPostgres, name: str) -> None:
    code, answer = _verify(whole, name, "--against", str(base.data))
    assert (code, answer["problems"]) == (0, [])
    assert answer["compared_blocks"] > 2000
    assert answer["compared_files"] >= 10
    assert answer["blocks"] >= answer["compared_blocks"]
    assert answer["layers"] > 0
    assert answer["layer_bytes"] > 1 << 20


@pytest.mark.parametrize("name", ["app", "other", "fresh", "of-fresh"])
def test_what_it_began_with_is_replayed(whole: Whole, name: str) -> None:
    """For a created database, too, which no directory is left of."""
    code, answer = _verify(whole, name, "--replay")
    assert (code, answer.get("problems")) == (0, []), answer
    assert answer["compared_blocks"] > 2000
    assert answer["compared_files"] >= 10


@pytest.mark.parametrize("choices", [("--wal", "/tmp"), ("--replay", "--against", "/tmp")])
def test_choices_that_do_not_go_together(whole: Whole, choices: tuple[str, ...]) -> None:
    code, answer = _verify(whole, "app", *choices)
    assert (code, answer["error"]["reason"]) == (2, "INVALID_ARGUMENT")


def test_a_past_passes_and_people_read_what_was_checked(whole: Whole) -> None:
    done = whole.run("verify", "app", "--at", "early")
    assert "every checksum" in done.stdout
    assert "no problem found" in done.stderr


def test_another_cluster_is_not_the_same(whole: Whole) -> None:
    """Fresh from initdb it is so much alike that even the replay succeeds."""
    cluster = PlainPostgres(reachable_dir())
    try:
        cluster.initdb()
        code, answer = _verify(whole, "app", "--against", str(cluster.data))
    finally:
        shutil.rmtree(cluster.root)
    assert code in (4, 7)
    reasons = ("INCOMPATIBLE_CLUSTER", "REPLAY_FAILED", "WAL_INCOMPLETE")
    assert answer["error"]["reason"] in reasons


def test_no_such_cluster(whole: Whole, tmp_path: Path) -> None:
    code, answer = _verify(whole, "app", "--against", str(tmp_path))
    assert (code, answer["error"]["reason"]) == (3, "NOT_A_CLUSTER")


def test_missing_wal_is_told(whole: Whole, base: PlainPostgres, tmp_path: Path) -> None:
    code, answer = _verify(whole, "app", "--against", str(base.data), "--wal", str(tmp_path))
    assert (code, answer["error"]["reason"]) == (7, "WAL_INCOMPLETE")


def test_a_scrub_reads_all_that_is_stored(whole: Whole) -> None:
    found = whole.json("scrub", "--rate", "500")
    store = whole.installation.part_dir("pageserver") / "store"
    files = [path for kind in ("delta", "image") for path in store.glob(f"*/*/*.{kind}")]
    assert found["problems"] == []
    assert found["layers"] >= len(files) > 3
    assert found["logs"] >= 4
    assert found["log_bytes"] > 1 << 20
    shown = whole.json("inspect", str(files[0]))
    assert shown["kind"] == "layer file"
    assert shown["damage"] == []


def test_a_damaged_layer_is_named(whole: Whole) -> None:
    timeline = whole.json("show", "app")["timeline_id"]
    layers = (whole.installation.part_dir("pageserver") / "store").glob(f"*/{timeline}/*")
    largest = max(layers, key=lambda path: path.stat().st_size)
    whole.json("stop", "app")
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))
    code, answer = _verify(whole, "app")
    assert code == 7
    assert any(largest.name in problem for problem in answer["problems"])
    done = whole.run("scrub", "--json", check=False)
    (problem,) = json.loads(done.stdout)["problems"]
    assert done.returncode == 7
    assert problem["path"] == str(largest)
    assert problem["timeline_id"] == timeline
    assert problem["databases"] == ["app", "other"]
    assert "cannot be made again" in problem["unrepaired"], "an image, and no object store"
    shown = whole.run("inspect", str(largest), check=False)
    assert (shown.returncode, "damaged: offset" in shown.stderr) == (7, True)
