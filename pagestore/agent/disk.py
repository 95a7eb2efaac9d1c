"""The disk that computes take, watched: one that takes more than it may is ended, with a reason.

A file system's own quotas are seldom there, a file system for each start costs more than the
start, and one in memory is not local disk. So each compute's directory is measured, by du(1), as
the user whose files they are. What was deleted and is still open counts as well: it is seen at the
processes.

Measuring costs something for each file, so it is done when it can matter: when the file system has
become fuller by a part of what one may take, and once a minute. In between one can take more than
it may, by what it can write until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from pagestore.agent.watched import WatchedCompute
from pagestore.postgres.process import Identity

LOOK_SECONDS = 1.0
MEASURE_SECONDS = 60.0
DU_SECONDS = 300.0
"""What cannot be measured within that takes too much."""
_PARTS = 16
"""Of what one may take: when the file system is fuller by one of them, all are measured."""
_BYTES_A_FILE = 16_384
"""As many files as this makes of the bytes that one may take."""
_STAT_BLOCK = 512
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    bytes: int
    files: int


class DiskWatch:
    """
    Args:
        directory: of the computes' directories.
        most_bytes: that a compute may take.
    """

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory = directory
        self._most = Taken(most_bytes, most_bytes // _BYTES_A_FILE)
        self._free = Taken(0, 0)
        self._measured = -MEASURE_SECONDS

    async def run(self, computes: Callable[[], Iterable[WatchedCompute]]) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.is_due(_free(self._directory), time.monotonic()):
                for compute in list(computes()):
                    await self._judge(compute)

    def is_due(self, free: Taken, now: float) -> bool:
        """Whether to measure, by what is free on the file system now; then it is taken as done."""
        fuller = Taken(self._free.bytes - free.bytes, self._free.files - free.files)
        is_fuller = fuller.bytes * _PARTS > self._most.bytes
        is_fuller |= fuller.files * _PARTS > self._most.files
        if not is_fuller and now < self._measured + MEASURE_SECONDS:
            self._free = Taken(max(free.bytes, self._free.bytes), max(free.files, self._free.files))
            return False
        self._free, self._measured = free, now
        return True

    async def _judge(self, compute: WatchedCompute) -> None:
        if not compute.alive:
            return
        record = compute.running.record
        data = compute.running.data
        try:
            taken = await asyncio.to_thread(measured, data, record.uid, record.process)
            why = self.fault(taken) if taken is not None else ""
        except TimeoutError:
            why = f"it was ended: its files could not be counted within {DU_SECONDS:.0f} s"
        if why and compute.alive:
            _log.warning("a compute is ended", name=compute.name, why=why)
            await compute.end(why)

    def fault(self, taken: Taken) -> str:
        """Why a compute cannot stay that takes so much; empty if it can."""
        if taken.bytes > self._most.bytes:
            return (
                f"it was ended: its files took {taken.bytes >> 20} MiB of local disk, and a"
                f" database may take {self._most.bytes >> 20} (`disk_bytes` of [computes])"
            )
        if taken.files > self._most.files:
            return (
                f"it was ended: it had {taken.files} files, and a database may have"
                f" {self._most.files} (by `disk_bytes` of [computes])"
            )
        return ""


def measured(data: Path, uid: int, server: Identity) -> Taken | None:
    """What a compute takes; None where that cannot be told.

    Args:
        uid: whose files they are; 0 for our own, or a user of several computes'.

    Raises:
        TimeoutError: there are too many for DU_SECONDS.
    """
    found = _du(data, uid, "--block-size=1"), _du(data, uid, "--inodes")
    if found[0] is None or found[1] is None:
        return None
    try:
        device = os.lstat(data).st_dev
    except OSError:
        return None
    return Taken(found[0] + sum(_deleted(server, device).values()), found[1])


def _du(data: Path, uid: int, what: str) -> int | None:
    command = ["nice", "-n", "10", "du", "-s", "-x", what]
    if uid and os.geteuid() == 0:
        identity = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
        command = ["setpriv", *identity, *command]
    try:
        done = subprocess.run(
            command,
            cwd=data,
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DU_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    except OSError:
        return None
    word = done.stdout.partition(b"\t")[0]  # files that went away meanwhile are only complained of
    return int(word) if word.isdigit() else None


def _deleted(server: Identity, device: int) -> dict[int, int]:
    """Bytes of files that no directory has any more, by their inodes."""
    found: dict[int, int] = {}
    for process in _within(server):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    status = descriptor.stat()
                    is_one = stat.S_ISREG(status.st_mode) and status.st_nlink == 0
                    if is_one and status.st_dev == device:
                        found[status.st_ino] = status.st_blocks * _STAT_BLOCK
    return found


def _within(server: Identity) -> Iterator[Path]:
    """All processes of the server's pid namespace, where it has one of its own."""
    try:
        namespace = Path(f"/proc/{server.pid}/ns/pid").readlink()
        if namespace == Path("/proc/self/ns/pid").readlink() or not server.alive:
            return
    except OSError:
        return
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "ns/pid").readlink() == namespace:
                yield process


def _free(directory: Path) -> Taken:
    found = os.statvfs(directory)
    return Taken(found.f_bfree * found.f_frsize, found.f_ffree)
