"""Small files that are replaced as a whole.

Written beside, synced, renamed over, the directory synced: a crash leaves the old file or the
new one, and whoever was told that it is there finds it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

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
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    check(temporary)
    temporary.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes the names in it durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
