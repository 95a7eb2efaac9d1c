"""Groups of computes: on trees that look like either version's, and on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pagestore.compute import cgroups
from pagestore.compute.cgroups import CPU, MEMORY, PIDS, Bounds
from pagestore.compute.limits import Limits
from tests.waiting import wait_until

ALL = frozenset({MEMORY, CPU, PIDS})
FORKS = """
import os, signal
for count in range(20):
    try:
        if os.fork() == 0:
            signal.pause()
    except OSError:
        os._exit(count)
os._exit(99)
"""
BOUNDS = Bounds(memory_bytes=200 << 20, processes=20, cpus=1.5)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What /proc says of it is written by each test."""
    monkeypatch.setattr(cgroups, "_MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr(cgroups, "_OWN", tmp_path / "own")
    return tmp_path


def test_version_1_has_a_group_in_each_hierarchy(tree: Path) -> None:
    lines = []
    for number, name in enumerate((MEMORY, "cpu,cpuacct", PIDS, "freezer")):
        (tree / name / "mine").mkdir(parents=True)
        lines.append(f"{number} 1 0:1 / {tree / name} rw - cgroup cgroup rw,{name}")
    (tree / "mountinfo").write_text("\n".join(lines) + "\n")
    (tree / "own").write_text("3:freezer:/x\n2:memory:/mine\n1:pids:/mine\n0:cpu,cpuacct:/mine\n")
    found = cgroups.hierarchies(tree / "computes")
    assert cgroups.bounded(found) == ALL
    assert {one.parent.parent.parent.name for one in found} == {MEMORY, "cpu,cpuacct", PIDS}
    groups = {one.make("c", BOUNDS).parents[2].name: one.parent / "c" for one in found}
    assert (groups[MEMORY] / "memory.limit_in_bytes").read_text() == str(200 << 20)
    assert (groups[MEMORY] / "memory.memsw.limit_in_bytes").read_text() == str(200 << 20)
    assert (groups[PIDS] / "pids.max").read_text() == "20"
    assert (groups["cpu,cpuacct"] / "cpu.cfs_quota_us").read_text() == "150000"


def test_version_2_has_one(tree: Path) -> None:
    (tree / "v2/mine").mkdir(parents=True)
    (tree / "v2/mine/cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tree / "mountinfo").write_text(f"1 1 0:1 / {tree / 'v2'} rw - cgroup2 cgroup rw\n")
    (tree / "own").write_text("0::/mine\n")
    (one,) = cgroups.hierarchies(tree / "computes")
    assert one.controllers == ALL
    assert (tree / "v2/mine/cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    group = one.make("c", BOUNDS)
    assert (group / "memory.max").read_text() == str(200 << 20)
    assert (group / "memory.swap.max").read_text() == "0"
    assert (group / "pids.max").read_text() == "20"
    assert (group / "cpu.max").read_text() == "150000 100000"


def test_where_nothing_can_be_had_nothing_is_bounded_so(tree: Path) -> None:
    assert cgroups.hierarchies(tree / "computes") == []
    (tree / "v2").mkdir()
    (tree / "mountinfo").write_text(f"1 1 0:1 / {tree / 'v2'} rw - cgroup2 cgroup rw\n")
    (tree / "own").write_text("0::/away\n")
    assert cgroups.hierarchies(tree / "computes") == []
    limits = Limits(BOUNDS, 1 << 30)
    assert limits.inside() == ["prlimit", "--nproc=20", f"--data={200 << 20}", "--"]
    assert limits.names()[:2] == ["memory (rlimit)", "number of processes (rlimit)"]


def test_a_group_of_this_machines_bounds_what_is_in_it(tmp_path: Path) -> None:
    found = cgroups.hierarchies(tmp_path)
    if not {MEMORY, PIDS} <= cgroups.bounded(found):
        pytest.skip("no control group can be made here")
    limits = Limits(Bounds(memory_bytes=64 << 20, processes=8), 1 << 30, tuple(found))
    groups = limits.make_groups("c")
    try:
        command = limits.outside(groups, ["sh", "-c", "ulimit -c; cat /proc/self/oom_score_adj"])
        assert subprocess.run(command, capture_output=True).stdout == b"0\n500\n"
        assert _exit_code(limits, groups, "x = bytearray(200 << 20)") == -signal.SIGKILL
        assert 0 < _exit_code(limits, groups, FORKS) < 8
    finally:
        for group in groups:
            _end_all(group)
        wait_until(lambda: not _swept(found, groups))


def _swept(found: list[cgroups.Hierarchy], groups: list[Path]) -> list[Path]:
    """What is still there: who was killed is gone when somebody has asked for him."""
    for one in found:
        one.leave()
    return [group for group in groups if group.exists()]


def _exit_code(limits: Limits, groups: list[Path], program: str) -> int:
    command = limits.outside(groups, ["python3", "-c", program])
    return subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60
    ).returncode


def _end_all(group: Path) -> None:
    while pids := (group / "cgroup.procs").read_text().split():
        for pid in pids:
            try:
                os.kill(int(pid), 9)
            except ProcessLookupError:
                continue
