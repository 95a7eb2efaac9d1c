"""Stateless starts against plain Postgres's: to the first row, phase by phase.

    python bench/start.py [--rounds 10] [--tables 0]

Both sides start on this machine, one after the other, and are asked for one row over the Unix
socket. `--tables` adds that many tables (with an index each) to the cluster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.stack import Compute, running_stack
from tests.plain_postgres import PlainPostgres, plain_postgres


def plain_start(cluster: PlainPostgres) -> float:
    began = time.perf_counter()
    cluster.start()
    cluster.sql("SELECT count(*) FROM pg_class")
    took = time.perf_counter() - began
    cluster.stop()
    return took


def line(name: str, seconds: list[float]) -> None:
    print(
        f"  {name:28} {statistics.median(seconds) * 1e3:8.1f} ms   "
        f"{min(seconds) * 1e3:8.1f} to {max(seconds) * 1e3:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tables", type=int, default=0)
    options = parser.parse_args()
    phases: dict[str, list[float]] = {}
    stops: list[float] = []
    with plain_postgres() as cluster, running_stack() as stack:
        for number in range(options.tables):
            cluster.sql(f"CREATE TABLE t{number} (id int PRIMARY KEY, body text)")
        cluster.stop()
        plain = [plain_start(cluster) for _ in range(options.rounds)]
        timeline = stack.import_cluster(cluster.data)
        for _ in range(options.rounds):
            began = time.perf_counter()
            compute: Compute = stack.start(timeline)
            ready = time.perf_counter()
            compute.sql("SELECT count(*) FROM pg_class")
            row = time.perf_counter()
            for phase, took in compute.running.phases.items():
                phases.setdefault(phase, []).append(took)
            phases.setdefault("ready (sum)", []).append(ready - began)
            phases.setdefault("first row", []).append(row - ready)
            compute.stop()
            stops.append(time.perf_counter() - row)
    print(f"{options.rounds} rounds, load {os.getloadavg()[0]:.1f}; median, range")
    print("plain Postgres")
    line("start to first row", plain)
    print("stateless start")
    for phase, seconds in phases.items():
        line(phase, seconds)
    line("stop, to durable and gone", stops)


if __name__ == "__main__":
    main()
