"""Very many databases: the first branch and the last, their bytes, a start, and deleting them."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from pathlib import Path

from pagestore.bench.harness import OURS, Bench
from pagestore.bench.plain import seconds_of, sql
from pagestore.bench.report import Target
from pagestore.bench.stack import Stack, resident_bytes, wait_until
from pagestore.ids import DEFAULT_TENANT, TimelineId

PARENT = "storage-parent"
KEEPING = ("control", "pageserver", "safekeeper")
SETTLE_LOOKS = 60
ROWS = 20_000
DELETED_MOST = 1000
BACK_SECONDS = 60.0
MEMORY_BOUND = 1024 * 1e6
"""Of the page server, see docs/performance.md."""


def run(bench: Bench) -> None:
    stack, count = bench.stack, bench.settings.store_branches
    url = stack.control.create(PARENT).url
    sql(url, f"CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, {ROWS}) i")
    stack.control.stop(PARENT)
    names = [f"storage-{number}" for number in range(count)]
    before = _bytes(stack)
    creations = []
    for name in names:
        began = time.perf_counter()
        stack.control.branch(PARENT, name)
        creations.append((time.perf_counter() - began) * 1e3)
    tenth = max(1, count // 10)
    case = f"branch at the API, of {count}"
    bench.row("storage", case, f"the first {tenth}", "ms", creations[:tenth])
    bench.row(
        *("storage", case, f"the last {tenth}", "ms", creations[-tenth:]),
        target=Target(1.1),
        relative_to=f"the first {tenth}",
    )
    size = (_bytes(stack) - before) / count
    bench.row("storage", "bytes of a branch, all parts", OURS, "B", [size], target=Target(1024))
    _start(bench)
    _delete(bench, names[:DELETED_MOST])
    for name in [*names[DELETED_MOST:], PARENT]:
        stack.control.delete(name)


def _start(bench: Bench) -> None:
    count = bench.settings.store_branches
    seconds = [seconds_of(bench.stack.restart_page_server) for _ in range(bench.settings.rounds)]
    case = f"page server's start with {count} databases"
    bench.row("storage", case, OURS, "s", seconds, target=Target(2))
    memory = float(resident_bytes(bench.stack.pid("pageserver")))
    bench.row(
        *("storage", f"{case}: memory", OURS, "MB", [memory / 1e6]),
        target=Target(MEMORY_BOUND / 1e6),
    )


def _delete(bench: Bench, names: list[str]) -> None:
    """And how soon what they took is given back; of one of them that is files of its own."""
    stack = bench.stack
    written = names[0]
    url = stack.control.wake(written, reveal=True).url
    sql(url, f"CREATE TABLE own AS SELECT i, md5(i::text) FROM generate_series(1, {ROWS}) i")
    stack.control.stop(written)
    timeline = TimelineId(stack.control.get(written).timeline_id)
    stack.pages.flush(DEFAULT_TENANT, timeline)
    took = [seconds_of(partial(stack.control.delete, name)) * 1e3 for name in names]
    case = f"deleting {len(names)} branches"
    bench.row("storage", case, OURS, "ms each", took, target=Target(5))
    began = time.perf_counter()
    wait_until(lambda: not _files_of(stack, timeline), "the bytes to be given back", BACK_SECONDS)
    back = time.perf_counter() - began
    bench.row("storage", f"{case}: bytes back", OURS, "s", [back], target=Target(BACK_SECONDS))


def _files_of(stack: Stack, timeline: TimelineId) -> list[Path]:
    """Of all parts. Directories go while this looks."""
    named = (entry for entry in os.walk(stack.data) if timeline.raw.hex() in entry[0])
    return [Path(folder) / name for folder, _, names in named for name in names]


def _bytes(stack: Stack) -> int:
    """Of what the parts keep, once that is the same for a while: a compute was there before."""
    sizes = [-1]
    while len(sizes) < SETTLE_LOOKS and sizes[-3:] != sizes[-1:] * 3:
        time.sleep(1)
        sizes.append(sum(map(_tree_bytes, (stack.data / part for part in KEEPING))))
    return sizes[-1]


def _tree_bytes(folder: Path) -> int:
    size = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += (Path(here) / name).lstat().st_size
    return size
