"""Removes computes' directories: out of the way at once, from the disk in the background.

A directory is renamed aside, which is all that anybody waits for, and a process of the lowest
priority removes what is in it: ten thousand files are a matter of seconds on a busy disk. The
record goes last, so that whatever ends that process, the next control plane finds by the name and
the record what is left to remove.

It is rm(1), which walks by descriptors, follows no link and, so told, enters no other file
system: the server's user may still be at work in there.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from pagestore.compute import cgroups
from pagestore.compute.record import ComputeRecord
from pagestore.compute.shared_memory import remove_segments

_ASIDE = ".removing"
_REMOVE = 'outer=$1; shift; rm "$@" "$outer/data" "$outer/run" && rm "$outer"'
_COMMAND = (
    *("nice", "-n", "19", "ionice", "-t", "-c", "3", "sh", "-c"),
    _REMOVE.replace("rm ", "rm -rf --one-file-system -- "),
    "sh",
)


def remove(directory: Path, record: ComputeRecord | None) -> None:
    """Puts a compute's directory aside, and what is left of it. The server must be gone.

    Args:
        record: None for a directory that was just made.
    """
    with contextlib.suppress(FileNotFoundError):
        if record is not None:
            remove_segments(record.process, (directory / "data").lstat().st_uid)
    aside = aside_of(directory)
    with contextlib.suppress(FileNotFoundError):
        directory.rename(aside)
        finish_removal(aside, record)


def is_aside(directory: Path) -> bool:
    return directory.name.endswith(_ASIDE)


def aside_of(directory: Path) -> Path:
    """Where a directory of this name is removed."""
    return directory.with_name(directory.name + _ASIDE)


def original_name(directory: Path) -> str:
    return directory.name.removesuffix(_ASIDE)


def finish_removal(aside: Path, record: ComputeRecord | None) -> None:
    """Removes what was put aside, in the background."""
    outside = record.outside if record is not None else ()
    command = [*_COMMAND, str(aside), *filter(_is_our_directory, outside)]
    # Where no process can be had, the next control plane tries.
    with contextlib.suppress(OSError):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )
        groups = [Path(group) for group in record.groups] if record is not None else []
        threading.Thread(target=_see_off, args=(process, groups), daemon=True).start()


def _see_off(process: subprocess.Popen[bytes], groups: Sequence[Path]) -> None:
    """Groups go last, when the last process that was killed in them is gone."""
    process.wait()
    for group in groups:
        cgroups.remove(group)


def _is_our_directory(path: str) -> bool:
    """Not, where it was removed since, what somebody else made under its name."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
