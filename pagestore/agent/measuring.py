"""What a compute has cost so far: since when it is awake, and the CPU of all that ran within it.

Both are kept in a file beside the record, so that an agent that comes back, or finds that a server
has ended while it was away, knows them up to what was noted last. CPU is read from the compute's
control group where it has one that counts it, which misses nothing; elsewhere from the processes
that descend from its server, of which those that have ended count in their parents.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pagestore import durable
from pagestore.compute.record import ComputeRecord

FILE = "measured"
_MICROS = 1_000_000
_NANOS_A_MICRO = 1_000
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_TIMES = slice(11, 15)
"""utime, stime, cutime and cstime among the fields of /proc/PID/stat behind the name."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All in microseconds, the first two since 1970."""

    started: int
    """When it was ready."""
    until: int
    """Alive then, or its end."""
    cpu: int = 0


class Measuring:
    """Of one compute. Blocks on small files.

    Args:
        directory: the compute's, where only we can write.
    """

    def __init__(self, directory: Path, record: ComputeRecord) -> None:
        self._directory, self._record = directory, record
        self.latest = self._kept()

    def look(self, *, write: bool = True) -> Measured:
        """While it is alive, or once just after its end.

        Args:
            write: not where somebody looks again at once.
        """
        cpu = max(cpu_micros(self._record), self.latest.cpu)
        self.latest = replace(self.latest, until=now_micros(), cpu=cpu)
        if not write:
            return self.latest
        with contextlib.suppress(OSError):  # a full disk; what is in memory holds
            text = json.dumps(asdict(self.latest))
            durable.replace(self._directory / FILE, text.encode())
        return self.latest

    def _kept(self) -> Measured:
        try:
            return Measured(**json.loads((self._directory / FILE).read_bytes()))
        except (OSError, ValueError, TypeError):
            started = self._record.started_micros or now_micros()
            return Measured(started, started)


def now_micros() -> int:
    return time.time_ns() // _NANOS_A_MICRO


def cpu_micros(record: ComputeRecord) -> int:
    """As far as can be known; 0 where nothing can."""
    in_groups = [_of_group(Path(group)) for group in record.groups]
    return max(in_groups, default=0) or sum(_of_processes(record.pid))


def _of_group(group: Path) -> int:
    """0 where it does not count CPU. Version 1, then version 2."""
    with contextlib.suppress(OSError, ValueError):
        return int((group / "cpuacct.usage").read_text()) // _NANOS_A_MICRO
    with contextlib.suppress(OSError, ValueError):
        words = (group / "cpu.stat").read_text().split()
        return int(dict(zip(words[::2], words[1::2], strict=False)).get("usage_usec", 0))
    return 0


def _of_processes(root: int) -> Iterator[int]:
    """Microseconds of each process from `root` down, with those of its children that have ended."""
    left: list[int] = [root] if root > 0 else []
    while left:
        pid = left.pop()
        with contextlib.suppress(OSError, ValueError):
            ticks = sum(map(int, _fields(pid)[_TIMES]))
            yield ticks * _MICROS // _CLOCK_TICKS
            for task in Path(f"/proc/{pid}/task").iterdir():
                left += map(int, (task / "children").read_text().split())


def _fields(pid: int) -> Sequence[str]:
    """Of /proc/PID/stat, behind the name, in which anything may stand."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
