"""What no record names: moved aside, shown, and freed by a verb or after a week.

A file that nobody names is what a crash has left, or all that is left of what a damaged record
named. Nobody can tell which, so nothing is deleted at once: it goes to ``lost+found`` in the
store's own directory, under its path with dots for slashes, and its time is that of the move.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DIRECTORY = "lost+found"
KEEP_SECONDS = 7 * 86400.0


class Lost(NamedTuple):
    """A file, or a directory with what is below it. ``since``: Unix seconds."""

    path: Path
    size: int
    since: float


def move_aside(root: Path, path: Path, now: float) -> Path:
    """Takes what is at ``path``, below ``root``, out of the way; where it is now.

    Raises:
        OSError
    """
    directory = root / DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    name = ".".join(path.relative_to(root).parts)
    target, number = directory / name, 1
    while os.path.lexists(target):
        number += 1
        target = directory / f"{name}~{number}"
    os.utime(path, (now, now), follow_symlinks=False)
    return path.rename(target)


def found(root: Path) -> list[Lost]:
    """By their names."""
    directory = root / DIRECTORY
    if not directory.is_dir():
        return []
    return [_lost(path) for path in sorted(directory.iterdir())]


def free(lost: Lost) -> None:
    """Deletes it for good; gone already is no error."""
    try:
        lost.path.unlink(missing_ok=True)
    except IsADirectoryError:
        shutil.rmtree(lost.path)


def free_old(root: Path, now: float, keep_seconds: float = KEEP_SECONDS) -> list[Lost]:
    """Frees what has lain there longer; what that was."""
    old = [lost for lost in found(root) if now - lost.since > keep_seconds]
    for lost in old:
        free(lost)
    return old


def _lost(path: Path) -> Lost:
    status = os.lstat(path)
    size = sum(_sizes(path)) if stat.S_ISDIR(status.st_mode) else status.st_size
    return Lost(path, size, status.st_mtime)


def _sizes(directory: Path) -> Iterator[int]:
    for folder, _, names in os.walk(directory):
        for name in names:
            yield os.lstat(Path(folder) / name).st_size
