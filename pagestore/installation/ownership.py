"""Whose a data directory is: a file in it says that pagestore made it.

``up`` writes and removes in its data directory. A directory that is another's, named by a slip, is
refused before anything in it changes; so the mark is made first, in a directory that is new or
empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pagestore import durable
from pagestore.errors import DataLoss, FailedPrecondition

MARK = "pagestore-installation"
_BEFORE_MARKS = "pagestore.toml"
_NOBODYS = frozenset({"lost+found", f"{MARK}{durable.SUFFIX}"})
_HEAD = "This directory belongs to pagestore. Its number: "


def claim(data: Path) -> None:
    """Makes the data directory and its mark, unless they are there.

    Raises:
        FailedPrecondition: DATA_DIR_NOT_OURS.
        OSError: it cannot be made.
    """
    if not data.exists():
        data.mkdir(parents=True)
        # Computes' directories lie below: Postgres's user must be able to pass through.
        data.chmod(0o711)
    mark = data / MARK
    if mark.is_file():
        return
    strangers = sorted({entry.name for entry in data.iterdir()} - _NOBODYS)
    # What was made before there were marks has its configuration.
    if strangers and _BEFORE_MARKS not in strangers:
        raise FailedPrecondition(
            "DATA_DIR_NOT_OURS",
            f"{data} is not empty and no data directory of pagestore: it has {strangers[0]!r}.",
            "Name a new or empty directory: --data DIR or PAGESTORE_DATA.",
        )
    durable.replace(mark, f"{_HEAD}{os.urandom(8).hex()}\n".encode())


def close_to_others(data: Path) -> None:
    """Takes from everybody else what an earlier version let them read."""
    for path in _private_files(data):
        found = path.lstat()
        if path.is_file() and not path.is_symlink() and found.st_uid == os.geteuid():
            path.chmod(0o600)


def _private_files(data: Path) -> Iterator[Path]:
    yield from (path for path in data.iterdir() if path.name != MARK)
    yield from (data / "log").glob("*.log")


def make_outside(remembered: Path, earlier: Path) -> None:
    """A directory for computes in /var/tmp, of a name that nobody can know before; the same one
    as long as it is there.

    Args:
        remembered: the file in the data directory that has its path.
        earlier: what an earlier version took; a name that anybody could take.
    """
    known = outside(remembered)
    if known is not None and is_own_directory(known):
        return
    place = earlier
    if not is_own_directory(earlier):
        import tempfile

        place = Path(tempfile.mkdtemp(prefix="pagestore-", dir="/var/tmp"))
        place.chmod(0o711)
    durable.replace(remembered, f"{place}\n".encode())


def outside(remembered: Path) -> Path | None:
    """The directory that was made outside; None where there is none.

    Raises:
        DataLoss: FILE_CORRUPT.
    """
    try:
        text = os.fsdecode(remembered.read_bytes())
    except FileNotFoundError:
        return None
    # An empty name would be the directory that we happen to run in.
    if not text.startswith("/") or not text.endswith("\n") or "\0" in text:
        raise DataLoss(
            "FILE_CORRUPT",
            f"{remembered} names no directory: computes may still run in the one that it named.",
            "Write that directory into it, a line; or remove it, when no computes run.",
        )
    return Path(text[:-1])


def is_own_directory(path: Path) -> bool:
    """Whether it is a directory of ours, and not a link."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return path.is_dir() and not path.is_symlink() and found.st_uid == os.geteuid()
