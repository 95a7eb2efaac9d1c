from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition
from pagestore.installation import ownership


def tree(directory: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.parametrize("content", ["computes/precious", "log", ".git/config", "lock"])
def test_what_is_anothers_is_refused_by_name_and_stays_as_it_is(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / content).parent.mkdir(exist_ok=True)
    (tmp_path / content).write_text("precious")
    before, mode = tree(tmp_path), tmp_path.stat().st_mode
    with pytest.raises(FailedPrecondition, match=content.split("/")[0]) as caught:
        ownership.claim(tmp_path)
    assert caught.value.reason == "DATA_DIR_NOT_OURS"
    assert (tree(tmp_path), tmp_path.stat().st_mode) == (before, mode)


def test_a_new_an_empty_and_an_old_one_are_taken(tmp_path: Path) -> None:
    new, empty, old = (tmp_path / name for name in ("new", "empty", "old"))
    (empty / "lost+found").mkdir(parents=True)
    old.mkdir()
    (old / "pagestore.toml").touch()
    (old / "computes").mkdir()
    for data in (new, empty, old):
        ownership.claim(data)
        mark = (data / ownership.MARK).read_text()
        ownership.claim(data)
        assert (data / ownership.MARK).read_text() == mark


def test_what_others_could_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    files = [tmp_path / name for name in ("pagestore.toml", "parts.json", "log/control.log")]
    for file in files:
        file.touch()
        file.chmod(0o644)
    ownership.close_to_others(tmp_path)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
