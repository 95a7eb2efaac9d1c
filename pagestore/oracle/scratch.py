"""Directories that live as long as a block of code, or as its process.

A copy of a cluster may be large, and a process that is killed removes nothing. So each directory is
locked (flock) as long as somebody uses it, and whoever makes one first removes those of the same
kind that nobody holds any more. They are known by their name, by the lock, and by their owner: in
/var/tmp anybody may make a directory of any name, and a stranger's is let be.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from pagestore import locks
from pagestore.postgres.datadir import Owner

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def scratch_directory(kind: str, parent: Path, owner: Owner | None) -> AsyncIterator[Path]:
    """A new directory, ours, which `owner` may pass through to those in it that are his.

    Args:
        kind: the beginning of its name.
    """
    await asyncio.to_thread(remove_abandoned, kind, parent, owner)
    path, lock = _made(kind, parent)
    try:
        if owner is not None:
            path.chmod(0o711)
        yield path
    finally:
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        os.close(lock)


def remove_abandoned(kind: str, parent: Path, owner: Owner | None) -> None:
    """What processes left that were killed."""
    ours = {os.geteuid(), *(owner[:1] if owner is not None else ())}
    for path in parent.glob(f"{kind}-*"):
        lock = _lock(path)
        if lock is None:
            continue
        if os.fstat(lock).st_uid in ours:
            _log.info("removing what a killed process left", path=str(path))
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _made(kind: str, parent: Path) -> tuple[Path, int]:
    """Another process may take a new one for abandoned before it is locked: then the next."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=parent))
        lock = _lock(path)
        if lock is not None and path.exists():
            return path, lock
        if lock is not None:
            os.close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds its lock; None when somebody else does, or it is no directory."""
    try:
        return locks.take(path) if path.is_dir() and not path.is_symlink() else None
    except OSError:
        return None
