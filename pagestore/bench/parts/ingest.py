"""WAL to flushed layers, beside plain Postgres's recovery of the same WAL.

A plain cluster makes the WAL once. For each round its base is imported anew, the safekeeper
pulls the WAL while the page server is frozen, and the clock runs from its thaw until all is in
files. Plain Postgres replays the same WAL over a copy of the same base (archive recovery, stock
settings); its figure is the one its log gives for redo, without the checkpoint behind it.

Both read from the system's cache. Ours includes the way through gRPC from the safekeeper, which
runs on the same cores; "one core" counts only the page server's own CPU time.

Memory is the page server's whole process: the most it had while it took the WAL in, the most
while many clients then read all over what came of it, and what it has at rest after both.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pagestore.bench.harness import BULK, OURS, PLAIN, Bench
from pagestore.bench.parts.getpage import Table, load
from pagestore.bench.plain import PlainCluster, give, pgbench
from pagestore.bench.report import Target
from pagestore.bench.stack import (
    Followed,
    PeakMemory,
    cpu_seconds,
    end_of_wal,
    resident_bytes,
    wait_until,
)
from pagestore.client import Rel
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT
from pagestore.services.page_memory import DEFAULT_BYTES, REST_SECONDS

AT_REST = 150
"""Megabytes."""
BOUND = DEFAULT_BYTES / 1e6
READERS = 16
TRANSACTIONS_PER_SCALE = 10_000
ROWS_PER_SCALE = 100_000
_REDO_DONE = re.compile(r"redo done at .* elapsed: ([\d.]+) s")


def run(bench: Bench) -> None:
    bench.stack.restart_page_server()
    time.sleep(0.5)
    _memory(bench, "just started", [resident_bytes(bench.stack.pid("pageserver"))], AT_REST)
    for case, work in (("pgbench WAL", _pgbench), ("COPY WAL", _copy)):
        taken = _Taken()
        _one(bench, case, work, taken)
        _memory(bench, f"at most while it takes {case} in", taken.peak, BOUND)
        _memory(bench, f"at most while what came of {case} is read", taken.peak_reading, BOUND)
        _memory(bench, f"at rest after {case} was taken in and read", taken.at_rest, AT_REST)


@dataclass
class _Taken:
    """What one kind of WAL showed of the page server, one value a round."""

    per_core: list[float] = field(default_factory=list)
    peak: list[int] = field(default_factory=list)
    peak_reading: list[int] = field(default_factory=list)
    at_rest: list[int] = field(default_factory=list)


def _memory(bench: Bench, case: str, values: list[int], most: float) -> None:
    megabytes = [value / 1e6 for value in values]
    bench.row(
        *("ingest", f"page server's memory, {case}", OURS, "MB", megabytes), target=Target(most)
    )


def _pgbench(cluster: PlainCluster, scale: int) -> None:
    pgbench(cluster.conninfo, "-n", "-c", 4, "-j", 2, "-t", TRANSACTIONS_PER_SCALE * scale // 4)


def _copy(cluster: PlainCluster, scale: int) -> None:
    path = cluster.root / "rows"
    cluster.sql(
        f"CREATE TABLE copied (i int, m text, f text); COPY (SELECT i, md5(i::text),"
        f" repeat(md5((i * 7)::text), 2) FROM generate_series(1, {ROWS_PER_SCALE * scale}) i)"
        f" TO '{path}'; COPY copied FROM '{path}'"
    )


def _one(bench: Bench, case: str, work: Callable[[PlainCluster, int], None], found: _Taken) -> None:
    with bench.loaded(bench.settings.scale, **BULK) as cluster:
        cluster.stop()
        base = cluster.copy(bench.place("base"))
        cluster.start()
        work(cluster, bench.settings.scale)
        cluster.sql("CHECKPOINT")
        [[end]] = cluster.sql("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn")
        taken = bench.take_turns(
            {
                OURS: lambda: _ours(bench, base, cluster, int(end), found),
                PLAIN: lambda: _recovery(bench, base, cluster, int(end)),
            }
        )
        shutil.rmtree(base.root)
    bench.row(
        *("ingest", f"{case}, wall clock", OURS, "MB/s", taken[OURS]),
        better="more",
        target=Target(1.0),
        relative_to=PLAIN,
    )
    bench.row("ingest", f"{case}, wall clock", PLAIN, "MB/s", taken[PLAIN], better="more")
    bench.row(
        *("ingest", f"{case}, one core", OURS, "MB/s", found.per_core[bench.settings.warmup :]),
        better="more",
        target=Target(100),
    )


def _ours(bench: Bench, base: PlainCluster, source: PlainCluster, end: int, found: _Taken) -> float:
    """Megabytes of WAL a second."""
    stack = bench.stack
    followed = stack.import_cluster(base)
    with stack.page_server_frozen():
        followed.attach(source.conninfo)
        followed.detach(end)
        pid = stack.pid("pageserver")
        memory = PeakMemory(pid)
        cpu = cpu_seconds(pid)
        began = time.perf_counter()
    followed.wait_ingested(end)
    stack.pages.flush(DEFAULT_TENANT, followed.timeline)
    seconds = time.perf_counter() - began
    megabytes = (end - followed.start_lsn) / 1e6
    found.per_core.append(megabytes / max(0.001, cpu_seconds(pid) - cpu))
    found.peak.append(memory.bytes())
    if len(found.peak) == bench.settings.warmup + bench.settings.rounds:
        _read(bench, followed, source, end, found)
    followed.delete()
    return megabytes / seconds


def _read(bench: Bench, followed: Followed, source: PlainCluster, end: int, found: _Taken) -> None:
    """Reads all over the accounts, half of whose pages have chains; then leaves all at rest."""
    [[db, node, blocks]] = source.sql(
        "SELECT d.oid, pg_relation_filenode('pgbench_accounts'),"
        " pg_relation_size('pgbench_accounts') / 8192"
        " FROM pg_database d WHERE datname = current_database()"
    )
    table = Table(bench.stack, followed, Rel(1663, db, node), blocks)
    pid = bench.stack.pid("pageserver")
    memory = PeakMemory(pid)
    load(table, end, READERS, 32, "uniform", bench.settings.seconds, 0)
    found.peak_reading.append(memory.bytes())
    time.sleep(2 * REST_SECONDS + 1)
    found.at_rest.append(resident_bytes(pid))


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
