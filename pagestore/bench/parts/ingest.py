"""WAL to flushed layers, beside plain Postgres's recovery of the same WAL.

A plain cluster makes the WAL once. For each round its base is imported anew, the safekeeper
pulls the WAL while the page server is frozen, and the clock runs from its thaw until all is in
files. Plain Postgres replays the same WAL over a copy of the same base (archive recovery, stock
settings); its figure is the one its log gives for redo, without the checkpoint behind it.

Both read from the system's cache. Ours includes the way through gRPC from the safekeeper, which
runs on the same cores; "one core" counts only the page server's own CPU time.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable

from pagestore.bench.harness import BULK, OURS, PLAIN, Bench
from pagestore.bench.plain import PlainCluster, give, pgbench
from pagestore.bench.report import Target
from pagestore.bench.stack import cpu_seconds, end_of_wal, resident_bytes, wait_until
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT

TRANSACTIONS_PER_SCALE = 10_000
ROWS_PER_SCALE = 100_000
_REDO_DONE = re.compile(r"redo done at .* elapsed: ([\d.]+) s")


def run(bench: Bench) -> None:
    stack = bench.stack
    stack.restart_page_server()
    time.sleep(0.5)
    at_rest = resident_bytes(stack.pid("pageserver")) / 1e6
    bench.row("ingest", "page server's memory, at rest", OURS, "MB", [at_rest], target=Target(150))
    _one(bench, "pgbench WAL", _pgbench)
    _one(bench, "COPY WAL", _copy)


def _pgbench(cluster: PlainCluster, scale: int) -> None:
    pgbench(cluster.conninfo, "-n", "-c", 4, "-j", 2, "-t", TRANSACTIONS_PER_SCALE * scale // 4)


def _copy(cluster: PlainCluster, scale: int) -> None:
    path = cluster.root / "rows"
    cluster.sql(
        f"CREATE TABLE copied (i int, m text, f text); COPY (SELECT i, md5(i::text),"
        f" repeat(md5((i * 7)::text), 2) FROM generate_series(1, {ROWS_PER_SCALE * scale}) i)"
        f" TO '{path}'; COPY copied FROM '{path}'"
    )


def _one(bench: Bench, case: str, work: Callable[[PlainCluster, int], None]) -> None:
    with bench.loaded(bench.settings.scale, **BULK) as cluster:
        cluster.stop()
        base = cluster.copy(bench.place("base"))
        cluster.start()
        work(cluster, bench.settings.scale)
        cluster.sql("CHECKPOINT")
        [[end]] = cluster.sql("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
        per_core: list[float] = []
        memory: list[float] = []
        taken = bench.take_turns(
            {
                OURS: lambda: _ours(bench, base, cluster, int(end), per_core, memory),
                PLAIN: lambda: _recovery(bench, base, cluster, int(end)),
            }
        )
        shutil.rmtree(base.root)
    warmup = bench.settings.warmup
    bench.row(
        *("ingest", f"{case}, wall clock", OURS, "MB/s", taken[OURS]),
        better="more",
        target=Target(1.0),
        relative_to=PLAIN,
    )
    bench.row("ingest", f"{case}, wall clock", PLAIN, "MB/s", taken[PLAIN], better="more")
    bench.row(
        *("ingest", f"{case}, one core", OURS, "MB/s", per_core[warmup:]),
        better="more",
        target=Target(100),
    )
    bench.row("ingest", f"{case}, page server's memory", OURS, "MB", memory[warmup:])


def _ours(
    bench: Bench,
    base: PlainCluster,
    source: PlainCluster,
    end: int,
    per_core: list[float],
    memory: list[float],
) -> float:
    """Megabytes of WAL a second."""
    stack = bench.stack
    followed = stack.import_cluster(base)
    with stack.page_server_frozen():
        followed.attach(source.conninfo)
        followed.detach(end)
        pid = stack.pid("pageserver")
        cpu = cpu_seconds(pid)
        began = time.perf_counter()
    followed.wait_ingested(end)
    stack.pages.flush(DEFAULT_TENANT, followed.timeline)
    seconds = time.perf_counter() - began
    megabytes = (end - followed.start_lsn) / 1e6
    per_core.append(megabytes / max(0.001, cpu_seconds(pid) - cpu))
    memory.append(resident_bytes(pid) / 1e6)
    followed.delete()
    return megabytes / seconds


def _recovery(bench: Bench, base: PlainCluster, source: PlainCluster, end: int) -> float:
    """Megabytes of WAL a second, by plain Postgres."""
    cluster = base.copy(bench.place("recovery"))
    start = end_of_wal(cluster)
    for segment in (source.data / "pg_wal").glob("0*"):
        target = cluster.data / "pg_wal" / segment.name
        shutil.copyfile(segment, target)
        give(target)
    signal_file = cluster.data / "recovery.signal"
    signal_file.touch()
    give(signal_file)
    cluster.configure(restore_command="false", hot_standby="off", fsync="on")
    cluster.launch()
    try:
        wait_until(lambda: _REDO_DONE.search(cluster.log.read_text()) is not None, "recovery", 300)
        found = _REDO_DONE.search(cluster.log.read_text())
    finally:
        cluster.stop()
        shutil.rmtree(cluster.root)
    if found is None:
        raise PagestoreError("BENCH_FAILED", "Recovery did not say how long it took.")
    return (end - start) / 1e6 / max(0.01, float(found[1]))
