"""What the shim costs: warm reads against plain Postgres, and cold scans by read-ahead.

    .venv/bin/python -m bench.shim

The cold figures are against a page source in Python (tests/integration/page_source.py), which
is what limits them; a backend's own CPU time per page is the shim's share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.page_source import PageSource, hydrating, serving
from tests.plain_postgres import PlainPostgres, plain_postgres

ROUNDS = 30
SETUP = """
CREATE EXTENSION pg_prewarm;
CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS pad FROM generate_series(1, 500000) g;
"""
SETTINGS = {"autovacuum": "off", "max_parallel_workers_per_gather": 0, "shared_buffers": "16MB"}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def blocks(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_relation_size('t') / 8192").fetchone()
    assert row is not None
    return int(row[0])


def storage_read(cluster: PlainPostgres) -> float:
    """CPU microseconds of one smgrread of a block that is here."""
    with cluster.connect() as connection:
        count = blocks(connection)
        before = cpu_seconds(connection.info.backend_pid)
        for _ in range(ROUNDS):
            connection.execute("SELECT pg_prewarm('t', 'read')")
        used = cpu_seconds(connection.info.backend_pid) - before
    return used / ROUNDS / count * 1e6


def warm(source: PlainPostgres, pages: PageSource) -> None:
    """With the shim, then without it on the very same files, in turns; the best of each."""
    with hydrating(source, pages) as compute:
        compute.sql("SELECT pg_prewarm(oid, 'read') FROM pg_class WHERE relkind IN ('r', 'i')")
        shim = compute.sql("SHOW shared_preload_libraries")[0][0]
        best = {"with the shim": 1e9, "plain Postgres": 1e9}
        for _ in range(2):
            for name, libraries in (("with the shim", shim), ("plain Postgres", "")):
                compute.stop()
                compute.configure(shared_preload_libraries=libraries)
                compute.start()
                best[name] = min(best[name], storage_read(compute))
        for name, microseconds in best.items():
            print(f"warm read, {name:14} {microseconds:6.2f} us of CPU a block")


def cold(source: PlainPostgres, pages: PageSource, readahead: int) -> None:
    settings: dict[str, object] = {"pagestore.readahead": readahead}
    with hydrating(source, pages, **settings) as compute, compute.connect() as connection:
        count = blocks(connection)
        pages.requests.clear()
        before = cpu_seconds(connection.info.backend_pid)
        seconds = timed(lambda: connection.execute("SELECT count(*) FROM t WHERE pad = ''"))
        cpu = cpu_seconds(connection.info.backend_pid) - before
        print(
            f"cold scan, readahead {readahead:3}   {count / 128 / seconds:6.0f} MB/s,"
            f" {len(pages.requests):6} requests, backend CPU {cpu / count * 1e6:5.1f} us a page"
        )


def main() -> None:
    with plain_postgres(**SETTINGS) as source:
        source.sql(SETUP)
        source.sql("VACUUM ANALYZE t")
        source.stop()
        with serving(source) as pages:
            warm(source, pages)
            for readahead in (0, 16, 64, 128):
                cold(source, pages, readahead)


if __name__ == "__main__":
    main()
