"""What no record names: moved aside, counted, freed by a verb or when its time is over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pagestore import lost_found
from pagestore.cli.main import app
from pagestore.lost_found import KEEP_SECONDS, found, free, free_old, move_aside


def test_a_file_keeps_its_bytes_and_gets_the_time_of_its_move(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    path.parent.mkdir()
    path.write_bytes(b"twelve bytes")
    moved = move_aside(tmp_path, path, 1000.0)
    assert moved == tmp_path / "lost+found" / "a.b"
    assert moved.read_bytes() == b"twelve bytes"
    assert found(tmp_path) == [(moved, 12, 1000.0)]


def test_a_directory_goes_as_a_whole_and_names_do_not_collide(tmp_path: Path) -> None:
    for size in (1, 2, 3):
        (tmp_path / "a" / "below").mkdir(parents=True)
        (tmp_path / "a" / "below" / "x").write_bytes(bytes(size))
        move_aside(tmp_path, tmp_path / "a", 1000.0)
    assert [(item.path.name, item.size) for item in found(tmp_path)] == [
        ("a", 1),
        ("a~2", 2),
        ("a~3", 3),
    ]
    for item in found(tmp_path):
        free(item)
    assert found(tmp_path) == []


def test_a_link_is_moved_and_freed_itself_never_what_it_leads_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x").write_bytes(b"x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(precious)
    move_aside(root, root / "link", 1000.0)
    assert free_old(root, 1001.0 + KEEP_SECONDS)
    assert found(root) == []
    assert (precious / "x").exists()


def test_what_lies_there_is_freed_after_a_week(tmp_path: Path) -> None:
    for name, at in (("old", 1000.0), ("new", 2000.0)):
        (tmp_path / name).write_bytes(b"x")
        move_aside(tmp_path, tmp_path / name, at)
    assert free_old(tmp_path, 1000.0 + KEEP_SECONDS) == []
    assert [item.path.name for item in free_old(tmp_path, 1500.0 + KEEP_SECONDS)] == ["old"]
    assert [item.path.name for item in found(tmp_path)] == ["new"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = tmp_path / "pageserver" / "store"
    store.mkdir(parents=True)
    for name in ("one", "two"):
        (store / name).write_bytes(b"12345")
        move_aside(store, store / name, 1000.0)
    return tmp_path


def test_the_verb_lists_and_frees(data: Path) -> None:
    def run(*words: str) -> dict[str, object]:
        done = CliRunner().invoke(app, ["lost", *words, "--json", "--data", str(data)])
        assert done.exit_code == 0, done.stderr
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    one, two = (f"pageserver/store/{lost_found.DIRECTORY}/{name}" for name in ("one", "two"))
    listed = run()
    assert [row["path"] for row in listed["lost"]] == [one, two]  # type: ignore[attr-defined]
    assert listed["bytes"] == 10
    assert run("--free", one)["bytes"] == 5
    assert run("--free-all")["bytes"] == 5
    assert run()["lost"] == []
    missing = CliRunner().invoke(app, ["lost", "--free", "../x", "--data", str(data)])
    assert missing.exit_code == 3
    assert (data / "pageserver" / "store").exists()


def test_status_counts_it(data: Path) -> None:
    done = CliRunner().invoke(app, ["status", "--json", "--data", str(data)])
    assert json.loads(done.stdout)["lost"] == {"count": 2, "bytes": 10}


def test_a_part_is_told_to_go_on_with_an_older_store(data: Path) -> None:
    done = CliRunner().invoke(app, ["lost", "--accept", "pageserver", "--data", str(data)])
    assert done.exit_code == 0
    assert (data / "pageserver/store/catalog.lmdb-accept-older").exists()
    done = CliRunner().invoke(app, ["lost", "--accept", "safekeeper", "--data", str(data)])
    assert done.exit_code == 2
