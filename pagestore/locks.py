"""One process a directory: a lock on a file in it, which goes with the process that took it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def take(path: Path) -> int | None:
    """Locks a file, made if it is missing, or a directory; None while another process has it.

    Returns: a descriptor, which holds the lock until it is closed.

    Raises:
        OSError: it cannot be opened.
    """
    how = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Within, no other process is in here; waits for one that is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Whether the file of an open descriptor is locked by it now."""
    return _flock(descriptor, fcntl.LOCK_EX)


def is_held(descriptor: int) -> bool:
    """Whether another process has the lock of the file."""
    if not _flock(descriptor, fcntl.LOCK_SH):
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _flock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
