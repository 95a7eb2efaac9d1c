"""A store that has grown: what years of work, depth and many branches cost those who read it.

Three tries: stores of this process's own with made-up pages, whose shapes are exact
(`storage_shapes`); one with pgbench's tables, updated ten times over, with the WAL and the redo of
Postgres (`storage_updates`); and an installation with very many databases (`storage_fleet`). Each
row that asks "as fast as" is a ratio of medians of one run, taken in turns, so what else the
machine does meets both.
"""

from __future__ import annotations

from pagestore.bench.harness import Bench
from pagestore.bench.parts import storage_fleet, storage_shapes, storage_updates


def run(bench: Bench) -> None:
    storage_shapes.run(bench)
    storage_updates.run(bench)
    storage_fleet.run(bench)
