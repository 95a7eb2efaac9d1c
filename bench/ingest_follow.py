"""Megabytes of WAL a second through the page server: stream, decode, route, put, flush.

    .venv/bin/python -m bench.ingest_follow [--rows 1000000]

A plain cluster loads a table with an index and updates part of it; its WAL is then published at
once, and the time until the page server can be read at its end is measured, with the CPU that
the page server used. The source serves files over gRPC from the same machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench.getpage_py import cpu_seconds
from pagestore.ids import DEFAULT_TENANT
from tests.integration.imported import imported


def main() -> None:
    parser = argparse.ArgumentParser(description="WAL ingest through the page server.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as path, imported(Path(path)) as store:
        sql = store.cluster.sql
        sql("CREATE TABLE t (i int PRIMARY KEY, m text, f text)")
        sql(
            "INSERT INTO t SELECT i, md5(i::text), repeat(md5((i * 7)::text), 2)"
            f" FROM generate_series(1, {rows}) i"
        )
        sql("UPDATE t SET m = md5(m) WHERE i % 4 = 0")
        before = cpu_seconds(store.pages.pid)
        with store.pages.client(timeout=600) as client:
            start = time.perf_counter()
            end = store.stop_and_publish()
            while client.get_timeline(DEFAULT_TENANT, store.timeline).last_record_lsn < end:
                time.sleep(0.02)
            seconds = time.perf_counter() - start
            client.flush(DEFAULT_TENANT, store.timeline)
            flushed = time.perf_counter() - start
            info = client.get_timeline(DEFAULT_TENANT, store.timeline)
        megabytes = (end - store.import_lsn) / 1e6
        cpu = cpu_seconds(store.pages.pid) - before
        print(
            f"{megabytes:.0f} MB of WAL, {info.layers} layers, {info.physical_bytes / 1e6:.0f} MB"
        )
        print(f"readable after {seconds:.2f} s: {megabytes / seconds:.0f} MB/s")
        print(f"flushed after {flushed:.2f} s; CPU {cpu:.2f} s: {megabytes / cpu:.0f} MB/s a core")


if __name__ == "__main__":
    main()
