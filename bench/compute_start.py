"""Where a stateless start spends its time: the launcher's phases, beside plain Postgres.

    .venv/bin/python -m bench.compute_start [ROUNDS [SCALE [TABLES]]]

A whole pagestore is started, with pgbench's tables at SCALE and TABLES empty ones. Then, in
turns: plain Postgres's start on the same data, a start by the control plane, and a start by the
launcher in this process, whose phases are printed. All end with a first row over TCP.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from pagestore.bench.harness import Bench, Settings
from pagestore.bench.plain import PlainCluster, seconds_of, sql
from pagestore.bench.report import Report
from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.compute.start import ComputeSpec, start_compute
from pagestore.ids import DEFAULT_TENANT, TimelineId

FIRST_ROW = "SELECT 1 FROM pgbench_accounts LIMIT 1"
Times = dict[str, list[float]]


def note(taken: Times, name: str, seconds: float) -> None:
    taken.setdefault(name, []).append(seconds * 1e3)


async def launch(bench: Bench, name: str, taken: Times) -> None:
    """One start and stop in this process, of a database that is stopped."""
    stack = bench.stack
    database = stack.control.get(name)
    computes = stack.data / "computes"
    [library] = (computes / "lib").glob("*.so")
    spec = ComputeSpec(
        tenant=DEFAULT_TENANT,
        timeline=TimelineId(database.timeline_id),
        directory=computes / f"bench-{secrets.token_hex(4)}",
        page_server=stack.addresses["pageserver"],
        run_as="postgres",
        shim_library=library,
    )
    pages = AsyncPageClient(stack.addresses["pageserver"])
    async with pages, WalClient(stack.addresses["safekeeper"]) as wal:
        await pages.get_timeline(DEFAULT_TENANT, spec.timeline)
        await wal.get_status(DEFAULT_TENANT, spec.timeline)
        began = time.perf_counter()
        compute = await start_compute(spec, pages, wal)
        note(taken, "launcher: started", time.perf_counter() - began)
        url = compute.conninfo()
        note(taken, "launcher: first row", seconds_of(lambda: sql(url, FIRST_ROW)))
        note(taken, "launcher: second session", seconds_of(lambda: sql(url, FIRST_ROW)))
        for phase, seconds in compute.phases.items():
            note(taken, f"  phase {phase}", seconds)
        await compute.stop(wal)


def main(rounds: int = 15, scale: int = 10, tables: int = 0) -> None:
    taken: Times = {}
    with tempfile.TemporaryDirectory(prefix="ps-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        bench = Bench(Settings(scale=scale), Path(folder), Report({}))
        try:
            with bench.loaded(scale) as cluster:
                control = bench.stack.control
                make_tables(cluster, tables)
                cluster.stop()
                bench.stack.command("import", "start", "--from-pgdata", str(cluster.data))
                for number in range(rounds + 1):
                    if number == 1:
                        taken.clear()
                    note(taken, "plain: first row", seconds_of(lambda: plain_start(cluster)))
                    cluster.stop()
                    control.stop("start")
                    began = time.perf_counter()
                    url = control.wake("start", reveal=True).url
                    note(taken, "control: started", time.perf_counter() - began)
                    note(taken, "control: first row", seconds_of(partial(sql, url, FIRST_ROW)))
                    note(taken, "control: in all", time.perf_counter() - began)
                    control.stop("start")
                    asyncio.run(launch(bench, "start", taken))
                control.delete("start")
        finally:
            bench.close()
    for name, values in taken.items():
        values.sort()
        spread = f"({values[0]:.2f} to {values[-1]:.2f})"
        print(f"{name:28} {statistics.median(values):8.2f} ms {spread}")


def make_tables(cluster: PlainCluster, count: int) -> None:
    """A few hundred a transaction: each takes locks."""
    for first in range(0, count, 500):
        statements = [
            f"CREATE TABLE more_{number} (id int PRIMARY KEY, note text)"
            for number in range(first, min(first + 500, count))
        ]
        cluster.sql(";".join(statements))
    cluster.sql("CHECKPOINT")


def plain_start(cluster: PlainCluster) -> None:
    cluster.start()
    cluster.sql(FIRST_ROW)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
