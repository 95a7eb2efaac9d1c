"""`pagestore.toml` after a change of safekeepers is as before, but for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition
from pagestore.installation.config import SafekeeperConfig, load
from pagestore.installation.safekeeper_sections import change

THREE = """\
# mine
[pageserver]
listen = "127.0.0.1:1"

[[safekeepers]]
id = 1
listen = "127.0.0.1:11"

[[safekeepers]]
# on the slow disk
listen = "127.0.0.1:12"
id = 2

[control]
listen = "127.0.0.1:2"

[[safekeepers]]
id = 3
listen = "127.0.0.1:13"
"""
ONE = """\
[pageserver]
listen = "127.0.0.1:1"
[safekeeper]
listen = "127.0.0.1:11"
[control]
listen = "127.0.0.1:2"
"""


def written(path: Path, text: str) -> Path:
    file = path / "pagestore.toml"
    file.write_text(text)
    return file


def ids(file: Path) -> list[int]:
    return [item.id for item in load(file).staying.values()]


def test_one_comes_and_one_leaves(tmp_path: Path) -> None:
    file = written(tmp_path, THREE)
    change(file, add=[SafekeeperConfig(id=4, listen="127.0.0.1:14")], leave=2)
    assert ids(file) == [1, 3, 4]
    assert [item.id for item in load(file).safekeeper_parts.values() if item.leaving] == [2]
    change(file, remove=2)
    assert [*load(file).safekeeper_parts] == ["safekeeper-1", "safekeeper-3", "safekeeper-4"]
    assert load(file).control.listen == "127.0.0.1:2"
    assert "# mine" in file.read_text()
    assert "slow disk" not in file.read_text()


def test_the_first_and_only_one_leaves(tmp_path: Path) -> None:
    file = written(tmp_path, ONE)
    more = [SafekeeperConfig(id=n, listen=f"127.0.0.1:1{n}", elsewhere=n == 2) for n in (2, 3)]
    change(file, add=more)
    assert ids(file) == [1, 2, 3]
    assert [*load(file).safekeepers_here] == ["safekeeper", "safekeeper-3"]
    change(file, leave=1)
    change(file, remove=1)
    assert ids(file) == [2, 3]


def test_a_file_that_would_not_load_is_not_written(tmp_path: Path) -> None:
    file = written(tmp_path, ONE)
    with pytest.raises(FailedPrecondition, match="different ids"):
        change(file, add=[SafekeeperConfig(id=1, listen="127.0.0.1:15")])
    assert file.read_text() == ONE
