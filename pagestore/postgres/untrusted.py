"""Opens what lies in a directory that somebody else writes to.

Whoever has a database's URL is a superuser in it, and so the user that its server runs as: every
file below its data directory is his, at any moment. He can put a link where a file was, or
a FIFO that nobody writes to, a file without end, or another one's file under a second name; and he
can do so between a look and an open. We read and write there as root.

So nothing below such a directory is opened by a path:

- a *root* is the descriptor of a directory whose parent is ours alone, so that it is what
  it was made as;
- every component is opened relative to the one before it, and follows no link;
- what is opened must be a regular file, on the root's own file system, that belongs to whom the
  root belongs to; no open waits for anybody (a FIFO would);
- a read has a bound.

What is read so is data. It never says which process is ours, which path to open or what to
remove: that stands in the compute's record, where its server cannot write.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_root(path: Path) -> int:
    """A directory that is not a link, in a parent that is ours alone.

    Raises:
        OSError: there is none, or it is something else.
    """
    return os.open(path, _DIRECTORY)


def open_directory(root: int, path: str) -> int:
    """A directory below a root, by a relative path.

    Raises:
        OSError: a component is missing, a link, no directory, or of another file system.
    """
    device = os.fstat(root).st_dev
    current = os.dup(root)
    for name in filter(None, path.split("/")):
        if name == "..":
            os.close(current)
            raise _refused(path)
        try:
            below = os.open(name, _DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current = below
        if os.fstat(current).st_dev != device:
            os.close(current)
            raise _refused(path)
    return current


def open_regular(root: int, path: str, flags: int = os.O_RDONLY) -> int:
    """A regular file below a root that its owner owns; never made, never truncated.

    Raises:
        OSError: it is missing, or is not that.
    """
    parent, _, name = path.rpartition("/")
    directory = open_directory(root, parent)
    try:
        file = os.open(name, flags | _FILE, dir_fd=directory)
    finally:
        os.close(directory)
    found, expected = os.fstat(file), os.fstat(root)
    if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_uid) != (
        expected.st_dev,
        expected.st_uid,
    ):
        os.close(file)
        raise _refused(path)
    return file


def read_regular(root: int, path: str, limit: int) -> bytes | None:
    """A file's content; None when it cannot be opened as a regular file, or is larger than
    `limit` bytes."""
    try:
        file = open_regular(root, path)
    except OSError:
        return None
    with os.fdopen(file, "rb") as stream:
        content = stream.read(limit + 1)
    return content if len(content) <= limit else None


def _refused(path: str) -> OSError:
    return OSError(errno.EPERM, "not a regular file of its directory's owner", path)
