"""Control groups of computes: a group each, which bounds all that is within its walls together.

::

    <the agent's own group>/pagestore-<digest>/<compute>

in each hierarchy that is the agent's to make groups in: under version 1 those of `memory`, `cpu`
and `pids`, as far as they are there; under version 2 the one. There the kernel lets no group have
both processes and groups with controllers, but for the root: so where the agent's own group
cannot, the root's is taken, if it is ours to write. What cannot be had is not bounded so; see
:mod:`pagestore.compute.limits` for what is bounded then.

A group is removed with its compute's directory; what is left of others, at the agent's start and
end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MEMORY, CPU, PIDS = "memory", "cpu", "pids"
_MOUNTS = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")
_PERIOD_US = 100_000
_SHARES_EACH = 1024
_SHARES_TOGETHER = 4 * _SHARES_EACH
"""Of all computes together, for each core: a page server's thread has what a group of its own would
have, so computes weigh more than the parts do, and none more than another."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a group may take; 0 for no bound.

    Args:
        cpus: in cores, which may be a fraction.
    """

    memory_bytes: int = 0
    processes: int = 0
    cpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One that groups can be made in.

    Args:
        controllers: what it bounds, of MEMORY, CPU and PIDS.
        parent: of the computes' groups.
    """

    controllers: frozenset[str]
    parent: Path
    version: int

    def make(self, name: str, bounds: Bounds) -> Path:
        """The group of a compute.

        Raises:
            OSError.
        """
        group = self.parent / name
        group.mkdir(exist_ok=True)
        write = self._v1 if self.version == 1 else self._v2
        for file, value in write(bounds).items():
            (group / file).write_text(value)
        with contextlib.suppress(OSError):  # not where there is no swap
            for file, value in self._swap(bounds).items():
                (group / file).write_text(value)
        return group

    def sweep(self) -> None:
        """Removes groups that nobody is in."""
        for group in self.parent.glob("*/"):
            remove(group)

    def leave(self) -> None:
        """Removes what nobody is in, and the groups' parent if that was all."""
        self.sweep()
        remove(self.parent)

    def _v1(self, bounds: Bounds) -> dict[str, str]:
        values: dict[str, str] = {}
        if MEMORY in self.controllers and bounds.memory_bytes:
            values["memory.limit_in_bytes"] = str(bounds.memory_bytes)
        if PIDS in self.controllers and bounds.processes:
            values["pids.max"] = str(bounds.processes)
        if CPU in self.controllers and bounds.cpus:
            values["cpu.cfs_quota_us"] = str(int(bounds.cpus * _PERIOD_US))
        return values

    def _v2(self, bounds: Bounds) -> dict[str, str]:
        values: dict[str, str] = {}
        if MEMORY in self.controllers and bounds.memory_bytes:
            # A server without one of its processes ends anyway: all at once, and nobody else.
            values |= {"memory.max": str(bounds.memory_bytes), "memory.oom.group": "1"}
        if PIDS in self.controllers and bounds.processes:
            values["pids.max"] = str(bounds.processes)
        if CPU in self.controllers and bounds.cpus:
            values["cpu.max"] = f"{int(bounds.cpus * _PERIOD_US)} {_PERIOD_US}"
        return values

    def _swap(self, bounds: Bounds) -> dict[str, str]:
        if MEMORY not in self.controllers or not bounds.memory_bytes:
            return {}
        if self.version == 1:
            return {"memory.memsw.limit_in_bytes": str(bounds.memory_bytes)}
        return {"memory.swap.max": "0"}


def hierarchies(directory: Path) -> list[Hierarchy]:
    """Where groups can be made for the computes of `directory`; empty where nowhere."""
    name = f"pagestore-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
    try:
        mounts = list(_mounts(_MOUNTS.read_text().splitlines()))
        own = dict(_own_groups(_OWN.read_text().splitlines()))
    except OSError:
        return []
    found: list[Hierarchy] = []
    for mount, kind, options in mounts:
        if kind == "cgroup":
            names = {MEMORY, CPU, PIDS} & set(options)
            if names:
                found += _v1(mount, own.get(min(names), "/"), frozenset(names), name)
        elif kind == "cgroup2":
            found += _v2(mount, own.get("", "/"), name)
    return found


def entry(group: Path) -> Path:
    """Where a process writes 0 that enters it. Under version 1 that is the file by which a thread
    moves itself: the other one waits until every core has come to rest (some milliseconds)."""
    tasks = group / "tasks"
    return tasks if tasks.exists() else group / "cgroup.procs"


def remove(group: Path) -> None:
    """One that nobody is in any more; otherwise nothing."""
    with contextlib.suppress(OSError):
        group.rmdir()


def bounded(found: Iterable[Hierarchy]) -> frozenset[str]:
    """What all of these bound."""
    return frozenset().union(*(hierarchy.controllers for hierarchy in found))


def _v1(mount: Path, own: str, names: frozenset[str], name: str) -> list[Hierarchy]:
    for place in (mount / own.lstrip("/"), mount):
        parent = place / name
        try:
            parent.mkdir(exist_ok=True)
            if CPU in names:
                shares = _SHARES_TOGETHER * (os.cpu_count() or 1)
                (parent / "cpu.shares").write_text(str(shares))
        except OSError:
            continue
        return [Hierarchy(names, parent, 1)]
    return []


def _v2(mount: Path, own: str, name: str) -> list[Hierarchy]:
    for place in (mount / own.lstrip("/"), mount):
        parent = place / name
        try:
            there = {MEMORY, CPU, PIDS} & set((place / "cgroup.controllers").read_text().split())
            if not there:
                return []
            words = " ".join(f"+{controller}" for controller in sorted(there))
            (place / "cgroup.subtree_control").write_text(words)
            parent.mkdir(exist_ok=True)
            (parent / "cgroup.subtree_control").write_text(words)
            if CPU in there:
                weight = 100 * _SHARES_TOGETHER // _SHARES_EACH * (os.cpu_count() or 1)
                (parent / "cpu.weight").write_text(str(min(weight, 10_000)))
        except OSError:
            remove(parent)
            continue
        return [Hierarchy(frozenset(there), parent, 2)]
    return []


def _mounts(lines: Iterable[str]) -> Iterator[tuple[Path, str, list[str]]]:
    """Where, of what kind, and with which options of the file system's own."""
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        if kind.startswith("cgroup"):
            yield Path(before.split()[4]), kind, options.split(",")


def _own_groups(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Ours by controller, "" for that of version 2."""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path
