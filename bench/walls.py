"""What the walls cost a start: the same database started with and without, in turns, in one run.

    .venv/bin/python -m bench.walls [ROUNDS]

Each way ends with a first row over the compute's Unix socket. Printed are the fastest of all
rounds, the median with its quartiles, and the median of the differences within a round; in
milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from pagestore.agent.users import DEFAULT_UIDS, range_of_uids
from pagestore.bench.harness import Bench, Settings
from pagestore.bench.report import Report
from pagestore.client import credentials
from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.compute.cgroups import Bounds, hierarchies
from pagestore.compute.limits import DEFAULT_PROCESSES, Limits, default_disk, default_memory
from pagestore.compute.start import ComputeSpec, start_compute
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.installation.keys import SIGNING_KEY
from pagestore.tokens import Signer

WAYS = ("none", "walls", "walls, network", "walls, network, limits")
IS_ROOT = os.geteuid() == 0


class Starts:
    def __init__(self, bench: Bench, timeline: TimelineId) -> None:
        self._stack = bench.stack
        self._timeline = timeline
        self._uid = range_of_uids(DEFAULT_UIDS)[0] if IS_ROOT else None
        computes = self._stack.data / "computes"
        bounds = Bounds(default_memory(), DEFAULT_PROCESSES)
        found = tuple(hierarchies(computes / "bench"))
        self._limits = Limits(bounds, default_disk(computes), found)
        self._count = 0

    def spec(self, way: str) -> ComputeSpec:
        computes = self._stack.data / "computes"
        self._count += 1
        is_walled = way != "none"
        has_network = "network" not in way
        socket = self._stack.data / "run/pageserver.sock"
        return ComputeSpec(
            tenant=DEFAULT_TENANT,
            timeline=self._timeline,
            directory=computes / f"bench-{self._count}",
            page_server=self._stack.addresses["pageserver"] if has_network else f"unix:{socket}",
            run_as="postgres" if IS_ROOT else None,
            shim_library=next((computes / "lib").glob("pagestore_shim-*.so")),
            signer=Signer.parse((self._stack.data / SIGNING_KEY).read_text()),
            walls=is_walled,
            uid=self._uid if is_walled else None,
            network=has_network,
            limits=self._limits if "limits" in way else None,
        )

    async def seconds(self, way: str) -> float:
        spec = self.spec(way)
        pages = AsyncPageClient(self._stack.addresses["pageserver"])
        async with pages, WalClient(self._stack.addresses["safekeeper"]) as wal:
            await pages.get_timeline(DEFAULT_TENANT, spec.timeline)
            await wal.get_status(DEFAULT_TENANT, spec.timeline)
            began = time.perf_counter()
            compute = await start_compute(spec, pages, wal)
            with psycopg.connect(compute.conninfo()) as session:
                session.execute("SELECT 1 FROM pg_class LIMIT 1")
            taken = time.perf_counter() - began
            await compute.stop(wal)
        return taken


def main(rounds: int = 20) -> None:
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="ps-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        bench = Bench(Settings(), Path(folder), Report({}))
        try:
            credentials.use(bench.stack.credentials)
            control = bench.stack.control
            control.create("walls")
            control.stop("walls")
            starts = Starts(bench, TimelineId(control.get("walls").timeline_id))
            for number in range(rounds + 1):
                for way in WAYS if number % 2 else reversed(WAYS):
                    seconds = asyncio.run(starts.seconds(way))
                    if number:  # the first warms up
                        taken[way].append(seconds * 1e3)
        finally:
            bench.close()
    for way, values in taken.items():
        more = [mine - base for mine, base in zip(values, taken["none"], strict=True)]
        low, *_, high = statistics.quantiles(values, n=4)
        print(
            f"{way:24} {min(values):6.1f} {statistics.median(values):6.1f}"
            f" ({low:.1f} to {high:.1f})  {statistics.median(more):+5.1f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
