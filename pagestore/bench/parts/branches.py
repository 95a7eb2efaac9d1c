"""Many branches, in shapes: a spine (each of the one before), a bushy tree, a fan-out of one.

Create, first connect, read, delete; the first and the last tenth of the creations apart, since
they must cost the same. The branch that is connected to and read is the last, the deepest of a
spine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from pagestore.bench.harness import OURS, Bench
from pagestore.bench.plain import seconds_of, sql
from pagestore.bench.stack import resident_bytes

ROWS = 10_000
SHAPES: dict[str, Callable[[int], int]] = {
    "spine": lambda number: number - 1,
    "bushy": lambda number: number // 2,
    "fan-out": lambda number: 0,
}
"""The parent's number of each branch, from 1 on; 0 is the database."""
READ = "SELECT count(f) FROM t"


def run(bench: Bench) -> None:
    for count in bench.settings.branches:
        for shape, parent in SHAPES.items():
            _shape(bench, shape, parent, count)


def _shape(bench: Bench, shape: str, parent: Callable[[int], int], count: int) -> None:
    control = bench.stack.control
    names = [f"{shape}-{count}-{number}" for number in range(count + 1)]
    url = control.create(names[0]).url
    sql(
        url,
        "CREATE TABLE t AS SELECT i, md5(i::text) f"
        f" FROM generate_series(1, {ROWS * bench.settings.scale}) i",
    )
    control.stop(names[0])
    creations = []
    for number in range(1, count + 1):
        began = time.perf_counter()
        control.branch(names[parent(number)], names[number])
        creations.append((time.perf_counter() - began) * 1e3)
    began = time.perf_counter()
    last = control.wake(names[count], reveal=True).url
    sql(last, "SELECT count(*) FROM pg_class")
    connect = (time.perf_counter() - began) * 1e3
    read = seconds_of(lambda: sql(last, READ)) * 1e3
    memory = resident_bytes(bench.stack.pid("pageserver")) / 1e6
    deletions = [seconds_of(partial(control.delete, name)) * 1e3 for name in reversed(names)]
    tenth = max(1, count // 10)
    case = f"{shape} of {count}"
    bench.row("branches", f"{case}: create, first tenth", OURS, "ms", creations[:tenth])
    bench.row("branches", f"{case}: create, last tenth", OURS, "ms", creations[-tenth:])
    bench.row("branches", f"{case}: first connect to the last", OURS, "ms", [connect])
    bench.row("branches", f"{case}: read it", OURS, "ms", [read])
    bench.row("branches", f"{case}: delete", OURS, "ms", deletions)
    bench.row("branches", f"{case}: page server's memory", OURS, "MB", [memory])
