"""Which processes are the parts of an installation, whoever started them.

A supervisor notes each part that it starts in ``parts.json``: its process id with its start time,
which together are never used again, and its recipe. A supervisor that was killed leaves its parts
running; the next one, or `down`, finds them by these notes. One that was killed between starting
a part and noting it, or that could not write (a full disk), left none: such a part is found by its
command line, among the processes of our own user that see the same data directory.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pagestore.installation.commands import verb_of
from pagestore.installation.layout import Installation, PartProcess
from pagestore.postgres.process import start_ticks


def running_part(installation: Installation, part: str) -> PartProcess | None:
    """A part of the supervisor that runs now; None where it, or the part, is not started."""
    process = installation.parts().get(part)
    ours = process is not None and process.supervisor == installation.running_supervisor()
    return process if ours else None


def orphans(installation: Installation) -> dict[str, list[PartProcess]]:
    """The running parts that no supervisor keeps, with what is known of them, by part.

    The caller holds the lock, or has seen that nobody does.
    """
    noted = {
        part: process
        for part, process in installation.parts().items()
        if process.pid and start_ticks(process.pid) == process.start_ticks
    }
    found = {part: [process] for part, process in noted.items()}
    known = {process.pid for process in noted.values()}
    for part, pid, ticks in _by_command_line(installation):
        if pid not in known:
            found.setdefault(part, []).append(PartProcess(pid, 0, ticks))
    return found


def _by_command_line(installation: Installation) -> Iterator[tuple[str, int, int]]:
    directory = str(installation.data)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = _words(entry)
            place = _after(words, "--data-dir")
            if place is None or os.path.dirname(place) != directory:  # noqa: PTH120
                continue
            part, ticks = os.path.basename(place), start_ticks(int(entry.name))  # noqa: PTH119
            if verb_of(part) in words and _sees(entry, installation.data) and ticks is not None:
                yield part, int(entry.name), ticks


def _words(process: Path) -> list[str]:
    """Of the command line of a Python program of our own user; none of another's."""
    if process.stat().st_uid != os.geteuid():
        return []
    words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
    return words if "pagestore.cli.main" in words else []


def _after(words: list[str], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words[:-1] else None


def _sees(process: Path, directory: Path) -> bool:
    """A container's process has directories of the same names that are others."""
    return Path(f"{process}/root{directory}").samefile(directory)
