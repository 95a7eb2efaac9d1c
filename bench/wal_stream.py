"""How fast one safekeeper takes WAL from a compute, with fsync, and gives it to a reader; and how
fast its writer alone makes the same WAL durable, two megabytes at a time.

    python -m bench.wal_stream [--rows 3000000]

The WAL is made before the safekeeper attaches, so that the compute's own work is not measured;
CPU is of the safekeeper's process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from pagestore._native import WalWriter, wal_align
from pagestore.client.wal import WalClient
from pagestore.walservice.segments import read_range
from tests.plain_postgres import plain_postgres
from tests.safekeeper_process import SafekeeperProcess, Timeline, flush_lsn

PAGE = 8192
PIECE = 2 << 20


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    options = parser.parse_args()
    settings = {"fsync": "off", "wal_keep_size": "8GB", "max_wal_size": "8GB", "autovacuum": "off"}
    with tempfile.TemporaryDirectory() as directory, plain_postgres(**settings) as postgres:
        safekeeper = SafekeeperProcess(Path(directory) / "sk")
        safekeeper.start()
        timeline = Timeline(safekeeper, postgres)
        timeline.create()
        timeline.vote()
        postgres.sql(
            "CREATE TABLE t AS SELECT i, repeat('x', 100) "
            f"FROM generate_series(1, {options.rows}) i"
        )
        end = flush_lsn(postgres)
        megabytes = (end - timeline.start_lsn) / 1e6
        before, start = cpu_seconds(safekeeper.pid), time.monotonic()
        timeline.attach()
        timeline.wait(lambda status: status.commit_lsn >= end, seconds=300)
        report("received", megabytes, start, cpu_seconds(safekeeper.pid) - before)
        before, start = cpu_seconds(safekeeper.pid), time.monotonic()
        asyncio.run(drain(safekeeper, timeline))
        report("read", megabytes, start, cpu_seconds(safekeeper.pid) - before)
        safekeeper.stop()
        before, start = time.process_time(), time.monotonic()
        append(Path(directory) / "alone", timeline, end)
        report("appended", megabytes, start, time.process_time() - before)


async def drain(safekeeper: SafekeeperProcess, timeline: Timeline) -> None:
    async with WalClient(safekeeper.listen) as client:
        async for _ in client.read_wal(timeline.tenant, timeline.id, timeline.start_lsn):
            pass


def append(directory: Path, timeline: Timeline, end: int) -> None:
    """What the safekeeper's log has, to another: pieces of whole records, each durable."""
    directory.mkdir()
    writer = WalWriter(str(directory), timeline.start_lsn, timeline.start_lsn)
    while (lsn := writer.position[0]) < end:
        page = lsn - lsn % PAGE
        data = read_range(timeline.directory, lsn, min(lsn + PIECE, end))
        found = wal_align(bytes(lsn - page) + data, page, lsn + len(data), lsn, 0)
        assert found is not None
        writer.append(lsn, data[: found[0] - lsn])
    writer.close()


def report(verb: str, megabytes: float, start: float, cpu: float) -> None:
    seconds = time.monotonic() - start
    print(
        f"{verb:9} {megabytes:6.0f} MB  {megabytes / seconds:6.0f} MB/s  CPU {cpu:5.2f} s", end=""
    )
    print(f"  {megabytes / cpu:6.0f} MB/s of a core")


if __name__ == "__main__":
    main()
