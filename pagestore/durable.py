"""Small files that are replaced as a whole.

Written beside, synced, renamed over, the directory synced: a crash leaves the old file or the
new one, and whoever was told that it is there finds it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600
SUFFIX = ".tmp"
"""Of the new file, until it takes the old one's name."""


def replace(
    path: Path,
    content: bytes,
    *,
    mode: int = PRIVATE,
    check: Callable[[Path], object] = lambda temporary: None,
) -> None:
    """Durable when it returns; an exception leaves the old file in force.

    Args:
        mode: of the new file, whatever our umask.
        check: sees the new file before it takes the old one's place, and may refuse it.

    Raises:
        OSError: also when only the directory could not be synced; then it is not known which of
            the two a crash would leave.
    """
    temporary = path.with_name(f"{path.name}{SUFFIX}")
    with begin(temporary, mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    check(temporary)
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Gives a file that is synced its name, in the place of whatever has it."""
    temporary.rename(path)
    sync_directory(path.parent)


def create(path: Path, content: bytes | mmap.mmap, temporary: Path) -> None:
    """A whole file under a name that nothing has, of whoever is first; durable when it returns.

    Raises:
        FileExistsError: the name is taken. OSError.
    """
    try:
        with begin(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def begin(path: Path, mode: int = PRIVATE) -> BinaryIO:
    """An empty file that nobody else has made: whatever has the name is removed, so that neither
    its mode, its owner, nor where a link leads is taken over from it.

    Raises:
        OSError: also when a directory has the name.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE)
    # The umask may have taken away what the mode grants.
    os.fchmod(descriptor, mode)
    return os.fdopen(descriptor, "wb")


def sync_directory(directory: Path) -> None:
    """Makes the names in it durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """All of it: where only a part had room, the rest says so.

    Raises:
        OSError
    """
    left = memoryview(data)
    while left:
        done = os.pwrite(descriptor, left, offset)
        left, offset = left[done:], offset + done
