"""What a compute may take of its machine: memory, processes, CPU, disk.

Where control groups can be made (:mod:`pagestore.compute.cgroups`) they bound memory and processes
of all that is within the walls together, and divide the CPU between computes; what is too
much ends the compute, and nobody else. Elsewhere there are rlimits, which bound less:

- processes: RLIMIT_NPROC, which counts a user's processes, so those of a compute that has a user of
  its own, or a user namespace;
- memory: RLIMIT_DATA, of each process by itself: shared_buffers are no part of it, as they would be
  of RLIMIT_AS, in each process anew. What they take together is bounded by the number of processes
  alone; so the kernel is told, too, to end these first when memory is short.

RLIMIT_FSIZE bounds each file, and no core is dumped. Disk as a whole is watched by the agent
(:mod:`pagestore.agent.disk`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pagestore.compute.cgroups import CPU, MEMORY, PIDS, Bounds, Hierarchy, bounded, entry

DEFAULT_PROCESSES = 1024
_SMALLEST_MEMORY = 1 << 30
_SMALLEST_FILE = 2 << 30
"""A relation's segment is a file of 1 GiB, sparse or not."""
_BLOCK_BYTES = 512
"""Of ulimit -f."""
_ENTER = (
    "ulimit -c 0; ulimit -f $1; shift; echo 500 > /proc/self/oom_score_adj; "
    'while [ "$1" != -- ]; do echo 0 > "$1" || exit 126; shift; done; shift; '
    'exec "$@"'
)


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Args:
        bounds: of memory, processes and CPU.
        disk_bytes: of its directory.
        hierarchies: where its group is made.
    """

    bounds: Bounds
    disk_bytes: int
    hierarchies: tuple[Hierarchy, ...] = field(default=())

    def make_groups(self, name: str) -> list[Path]:
        """
        Raises:
            OSError.
        """
        return [hierarchy.make(name, self.bounds) for hierarchy in self.hierarchies]

    def outside(self, groups: Sequence[Path], command: Sequence[str]) -> list[str]:
        """The command that enters the groups, and executes one that builds walls."""
        entries = [str(entry(group)) for group in groups]
        blocks = max(self.disk_bytes, _SMALLEST_FILE) // _BLOCK_BYTES
        return ["sh", "-c", _ENTER, "sh", str(blocks), *entries, "--", *command]

    def inside(self) -> list[str]:
        """Words before what is executed within the walls: bounds that no group has. Only there do
        they count the processes of its own user alone."""
        there = bounded(self.hierarchies)
        words = [f"--nproc={self.bounds.processes}"] if PIDS not in there else []
        words += [f"--data={self.bounds.memory_bytes}"] if MEMORY not in there else []
        return ["prlimit", *words, "--"] if words else []

    def names(self) -> list[str]:
        """Names of what is bounded, as `pagestore status` says them."""
        there = bounded(self.hierarchies)
        how = {name: "cgroup" if name in there else "rlimit" for name in (MEMORY, PIDS)}
        names = [f"memory ({how[MEMORY]})", f"number of processes ({how[PIDS]})"]
        return [*names, *(["cpu (cgroup)"] if CPU in there else []), "disk (watched)"]


def default_memory() -> int:
    """A quarter of the machine's, in bytes."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return max(pages * page // 4, _SMALLEST_MEMORY)


def default_disk(directory: Path) -> int:
    """Half of the file system that computes are on, in bytes."""
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize // 2
