"""`pagestore scrub` on a whole installation: layers from the object store, WAL from who has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.waiting import wait_until

SEGMENT = 16 << 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    objects = tmp_path_factory.mktemp("kept") / "objects"
    keeping = {"PAGESTORE_WAL_KEEP_BYTES": str(1 << 30)}
    with whole_pagestore(safekeepers=3, environment=keeping, objects=f"file://{objects}") as made:
        made.json("create", "app")
        made.sql("app", "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        for _ in range(3):
            made.sql("app", "SELECT pg_switch_wal()")
            made.sql("app", "UPDATE t SET n = n + 1 WHERE n % 10 = 0")
        made.json("stop", "app")
        yield made


def scrub(whole: Whole, *options: str) -> tuple[int, dict[str, Any]]:
    done = whole.run("scrub", "--json", *options, check=False)
    return done.returncode, json.loads(done.stdout)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))


def answers(whole: Whole) -> object:
    return patiently(lambda: whole.sql("app", "SELECT count(*), sum(n) FROM t"))


def even(whole: Whole) -> bool:
    part = whole.json("status")["objects"]["pageserver"]
    return not part["behind_bytes"] and bool(part["generation"])


def test_a_layer_is_fetched_from_the_object_store(whole: Whole) -> None:
    before = answers(whole)
    whole.json("stop", "app")
    wait_until(lambda: even(whole))
    store = whole.installation.part_dir("pageserver") / "store"
    # The template's, which no compaction replaces meanwhile.
    path = max(store.glob("*/*/*.image"), key=lambda item: item.stat().st_size)
    raw = path.read_bytes()
    flip(path)
    code, found = scrub(whole, "--check")
    assert (code, found["repairs"]) == (7, [])
    (problem,) = found["problems"]
    assert (problem["path"], problem["unrepaired"]) == (str(path), "")
    said = whole.run("scrub")
    assert "repaired from the object store" in said.stderr
    assert "no damage left" in said.stderr
    assert path.read_bytes() == raw
    lost = whole.json("lost")
    assert path.name in json.dumps(lost), "it is shown until it is freed"
    path.unlink()
    code, found = scrub(whole)
    (repair,) = found["repairs"]
    assert (code, repair["path"], repair["from"], repair["moved_to"]) == (
        *(0, str(path), "the object store", ""),
    )
    assert answers(whole) == before


def test_a_segment_comes_from_another_safekeeper(whole: Whole) -> None:
    timeline = whole.json("show", "app")["timeline_id"]
    before = answers(whole)
    whole.json("stop", "app")
    directory = next(whole.installation.part_dir("safekeeper-2").glob(f"*/{timeline}"))
    segments = sorted(path for path in directory.iterdir() if len(path.name) == 24)
    path = segments[1]
    raw = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(bytes([0x55]) * 64)
    assert path.read_bytes() != raw
    code, found = scrub(whole, "--check")
    assert code == 7
    code, found = scrub(whole)
    assert (code, found["problems"]) == (0, [])
    (repair,) = found["repairs"]
    assert repair["path"] == str(path)
    assert repair["from"].startswith("safekeeper-")
    assert path.read_bytes() == raw
    assert scrub(whole)[1]["repairs"] == []
    assert answers(whole) == before
