"""Disks that fail: syncs that return errors while a file says so (failing_sync.c), and no room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def preload(directory: Path, *, losing: bool = False) -> dict[str, str]:
    """The environment of a process whose syncs fail while `directory`/fail exists, whose
    writes of LMDB's meta pages do while `directory`/fail-meta exists, and whose reads while
    `directory`/fail-read does.

    Args:
        losing: a sync that fails makes zeros of the file's last written bytes.
    """
    source = Path(__file__).parent / "failing_sync.c"
    library = directory / "failing_sync.so"
    if not library.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    told = {"LD_PRELOAD": str(library), "FAIL_SYNC": str(directory / "fail")}
    told["FAIL_META"] = str(directory / "fail-meta")
    told["FAIL_READ"] = str(directory / "fail-read")
    return told | ({"LOSE_WRITES": "1"} if losing else {})
