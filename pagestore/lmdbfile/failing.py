"""What LMDB raises while a store is open, in our words, and the one failure that ends a process.

A commit writes pages, syncs them, and then writes part of a meta page, which puts them in force.
When that last write fails nobody knows which of the two states a restart will find, and LMDB
refuses whatever comes after (MDB_PANIC): also reads. Whoever went on would take back what
may be in force, or delete a file that may be named. So the process ends on the spot, before anybody
is told; at its next start the store is checked, and says.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from pagestore import tasks
from pagestore.errors import FULL_HINT, DataLoss, ResourceExhausted, Unavailable

_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.BadValsizeError,
)
_NO_ROOM = ("No space left", "quota")
_HARDLY_ANY = 1 << 20
"""Bytes that are free on a disk which took only a part of a write."""


@contextmanager
def store_errors(
    path: Path,
    corrupt: Callable[[str], DataLoss],
    *,
    full: str,
    env: lmdb.Environment | None = None,
    end: Callable[[int], object] = os._exit,
) -> Iterator[None]:
    """
    Args:
        corrupt: makes the error of a damaged store, of what is damaged.
        full: the reason where the store has its greatest size.
        env: of the store, where it is open: the process ends if it can do no more.

    Raises:
        DataLoss: as `corrupt` makes it. ResourceExhausted: STORE_FULL, or `full`.
        Unavailable: IO_ERROR.
    """
    try:
        yield
    except lmdb.Error as error:
        if env is not None and _is_beyond_use(env):
            tasks.end_process(f"store {path}", error, end=end)
        raise _translated(path, corrupt, full, error) from error


def _is_beyond_use(env: lmdb.Environment) -> bool:
    """Only what follows a failed write of a meta page is told as a panic."""
    try:
        with env.begin():
            return False
    except lmdb.PanicError:
        return True
    except lmdb.Error:
        return False


def _translated(
    path: Path, corrupt: Callable[[str], DataLoss], full: str, error: lmdb.Error
) -> DataLoss | ResourceExhausted | Unavailable:
    if isinstance(error, lmdb.MapFullError):
        return ResourceExhausted(full, f"{path} has its greatest size: {error}")
    if isinstance(error, _DAMAGE):
        return corrupt(str(error))
    if isinstance(error, lmdb.DiskError) or _is_full(path, str(error)):
        return ResourceExhausted("STORE_FULL", f"{path}: {error}", FULL_HINT)
    return Unavailable("IO_ERROR", f"{path}: {error}")


def _is_full(path: Path, said: str) -> bool:
    """LMDB calls it an I/O error, too, where only a part of a write had room."""
    if any(words in said for words in _NO_ROOM):
        return True
    if os.strerror(errno.EIO) not in said:
        return False
    try:
        left = os.statvfs(path.parent)
    except OSError:
        return False
    return left.f_bavail * left.f_frsize < _HARDLY_ANY
