"""What a server that was killed leaves in shared memory, and how we find it.

The kernel keeps two kinds after the last process that used them. Dynamic shared memory would be
files of random names in /dev/shm; so a compute gets a directory of its own there, and its server
takes it for ``pg_dynshmem``, where the type ``mmap`` has its files. And one System V segment, by
which Postgres notices backends that outlived their postmaster: the kernel tells who made it.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from pathlib import Path

from pagestore.postgres.datadir import Owner
from pagestore.postgres.process import Identity, boot_id, start_ticks

DYNSHMEM = "pg_dynshmem"
SETTINGS = {"dynamic_shared_memory_type": "mmap"}
WALLED_SETTINGS = {"dynamic_shared_memory_type": "posix"}
"""Within walls, where /dev/shm is the server's own and goes with it, as its segments do."""
_PLACE = Path("/dev/shm")  # noqa: S108
_SEGMENTS = Path("/proc/sysvipc/shm")
_HEADER_BYTES = 56
"""Of the segment: sizeof(PGShmemHeader), the rest is anonymous memory."""
_IPC_RMID = 0


def make_directory(owner: Owner | None) -> Path | None:
    """A private directory in memory, within one that is ours; None where there is no /dev/shm.

    The caller removes its parent.
    """
    if not os.access(_PLACE, os.W_OK):
        return None
    outer = Path(tempfile.mkdtemp(prefix="pagestore-", dir=_PLACE))
    inner = outer / "dsm"
    inner.mkdir(mode=0o700)
    if owner is not None:
        outer.chmod(0o711)
        os.chown(inner, *owner)
    return inner


def remove_segments(process: Identity, user: int) -> None:
    """The System V segments that a user's postmaster made, once it is gone.

    Backends may be attached still, on their way out: the kernel then frees it after the last.
    A process of the same pid that was there before is told apart by the time at which the segment
    was made, and one that came since is there.
    """
    try:
        lines = _SEGMENTS.read_text().splitlines()
    except OSError:
        return
    is_taken = start_ticks(process.pid) is not None
    if not lines or is_taken or process.boot_id != boot_id():
        return
    names = lines[0].split()
    began = _unix_time(process)
    for line in lines[1:]:
        facts = dict(zip(names, map(int, line.split()), strict=True))
        made_by = (facts["cpid"], facts["cuid"], facts["size"])
        if made_by == (process.pid, user, _HEADER_BYTES) and facts["ctime"] >= began:
            ctypes.CDLL(None).shmctl(facts["shmid"], _IPC_RMID, None)


def _unix_time(process: Identity) -> int:
    """When it started, in seconds, or a second before."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return int(boot + process.start_ticks / os.sysconf("SC_CLK_TCK")) - 1
