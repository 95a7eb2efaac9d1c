"""Pages a second through grpc.aio: a page server and its Python client, on this machine.

    .venv/bin/python -m bench.getpage_py [--seconds 3]

One imported cluster; runs of blocks at random places of a table, at the import's LSN, by so
many streams and blocks a request. The client's own Python is part of what is measured: see
CEILINGS.md for what a client in C gets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from pagestore.client import AsyncPageClient, Rel
from pagestore.ids import DEFAULT_TENANT
from tests.integration.imported import Imported, imported

ROWS = 200_000
SHAPES = [(1, 1), (1, 32), (4, 32), (16, 1)]


async def stream(
    client: AsyncPageClient, store: Imported, rel: Rel, size: int, blocks: int, until: float
) -> list[float]:
    source = random.Random(1)
    times = []
    pages = client.open_stream()
    while (start := time.perf_counter()) < until:
        first = source.randrange(size - blocks)
        request = client.pages_request(
            DEFAULT_TENANT, store.timeline, store.import_lsn, rel, range(first, first + blocks)
        )
        await pages.send(request)
        await pages.receive()
        times.append(time.perf_counter() - start)
    pages.cancel()
    return times


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(store: Imported, rel: Rel, seconds: float) -> None:
    print(f"{'streams':>8} {'blocks':>7} {'pages/s':>9} {'p50 µs':>8} {'server CPU µs/page':>19}")
    async with AsyncPageClient(store.pages.address) as client:
        size = await client.get_rel_size(DEFAULT_TENANT, store.timeline, store.import_lsn, rel)
        assert size
        for streams, blocks in SHAPES:
            before = cpu_seconds(store.pages.pid)
            start = time.perf_counter()
            until = start + seconds
            runs = await asyncio.gather(
                *(stream(client, store, rel, size, blocks, until) for _ in range(streams))
            )
            elapsed = time.perf_counter() - start
            times = [t for run in runs for t in run]
            pages = len(times) * blocks
            cpu = (cpu_seconds(store.pages.pid) - before) / pages * 1e6
            p50 = statistics.median(times) * 1e6
            print(f"{streams:8} {blocks:7} {pages / elapsed:9.0f} {p50:8.0f} {cpu:19.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pages a second through grpc.aio.")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    setup = f"""
        CREATE TABLE t AS SELECT i, md5(i::text) m, repeat(md5((i * 7)::text), 5) f
        FROM generate_series(1, {ROWS}) i
    """
    with tempfile.TemporaryDirectory() as path, imported(Path(path), setup=setup) as store:
        [[number]] = store.cluster.sql("SELECT pg_relation_filenode('t')")
        uvloop.run(measure(store, Rel(1663, 5, number), options.seconds))


if __name__ == "__main__":
    main()
