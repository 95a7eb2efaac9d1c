"""A compute beside plain Postgres with its defaults: start, load, pgbench warm, a cold scan.

Both get the same tables; ours by ``pgbench -i`` through the compute. pgbench runs warm: after
every block has been read on both sides. Plain Postgres keeps its defaults, local fsync among them;
a commit of ours is durable at the safekeeper. Both are asked over their Unix sockets, past the
proxy. The cold scan is the first after a stateless start, with the page server warm or not as it
happens to be; plain Postgres's is the first after a start, from the system's cache.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.plain import (
    PlainCluster,
    pgbench,
    seconds_of,
    sql,
    transactions_a_second,
    tree_bytes,
)
from pagestore.bench.report import Target
from pagestore.ids import DEFAULT_TENANT, TimelineId

PART = "compute"
FIRST_ROW = "SELECT count(*) FROM pg_class"
SCAN = "SET max_parallel_workers_per_gather = 0; SELECT sum(abalance) FROM pgbench_accounts"
WARM = (
    f"{SCAN};"
    "SET enable_seqscan = off; SELECT count(aid) FROM pgbench_accounts;"
    "SELECT count(tid) FROM pgbench_tellers; SELECT count(bid) FROM pgbench_branches"
)
"""Reads every block of tables and indexes."""
READ_ONLY, TPC_B = ("-S",), ()
WORK: tuple[tuple[str, int, tuple[str, ...], Target | None], ...] = (
    ("read-only, 1 client", 1, READ_ONLY, Target(0.97)),
    ("read-only, 16 clients", 16, READ_ONLY, Target(0.97)),
    ("TPC-B, 1 client", 1, TPC_B, Target(0.8)),
    ("TPC-B, 16 clients", 16, TPC_B, Target(1.0)),
)


@dataclass
class Pair:
    """The same data on both sides."""

    bench: Bench
    cluster: PlainCluster
    name: str
    url: str


def run(bench: Bench) -> None:
    scale = bench.settings.scale
    name = "compute"
    with bench.plain() as cluster:
        bench.stack.control.create(name)
        pair = Pair(bench, cluster, name, bench.stack.direct(name))
        load = ("-i", "-q", "-s", scale)
        case = f"pgbench -i, scale {scale}"
        bench.row(PART, case, OURS, "s", [seconds_of(lambda: pgbench(pair.url, *load))])
        plain = [seconds_of(lambda: pgbench(cluster.direct, *load))]
        bench.row(PART, case, PLAIN, "s", plain)
        _sizes(pair)
        _starts(pair)
        pair.url = bench.stack.direct(name)  # each server has a socket of its own
        _pgbench(pair)
        bench.stack.control.delete(name)
        _scan(bench, cluster)


def _sizes(pair: Pair) -> None:
    """Of the database's own layers and of the template that it branched from."""
    pair.cluster.sql("CHECKPOINT")
    skipped = tree_bytes(pair.cluster.data / "pg_wal")
    plain = (tree_bytes(pair.cluster.data) - skipped) / 1e6
    pages = pair.bench.stack.pages
    timeline = TimelineId(pair.bench.stack.control.get(pair.name).timeline_id)
    own = pages.flush(DEFAULT_TENANT, timeline)
    parent = pages.get_timeline(DEFAULT_TENANT, TimelineId(own.parent_timeline_id))
    store = (own.physical_bytes + parent.physical_bytes) / 1e6
    case = "store after the load, without WAL"
    target = Target(0.6)
    pair.bench.row(PART, case, OURS, "MB", [store], target=target, relative_to=PLAIN)
    pair.bench.row(PART, case, PLAIN, "MB", [plain])


def _starts(pair: Pair) -> None:
    control = pair.bench.stack.control

    def ours(name: str) -> float:
        control.stop(name)
        began = time.perf_counter()
        sql(control.wake(name, reveal=True).url, FIRST_ROW)
        return (time.perf_counter() - began) * 1e3

    def plain() -> float:
        pair.cluster.stop()
        began = time.perf_counter()
        pair.cluster.start()
        pair.cluster.sql(FIRST_ROW)
        return (time.perf_counter() - began) * 1e3

    control.create("compute-empty")
    taken = pair.bench.take_turns(
        {OURS: lambda: ours(pair.name), PLAIN: plain, "empty": lambda: ours("compute-empty")}
    )
    control.delete("compute-empty")
    row = pair.bench.row
    case = "start to the first row"
    row(PART, case, OURS, "ms", taken[OURS], target=Target(2.0), relative_to=PLAIN)
    row(PART, case, PLAIN, "ms", taken[PLAIN])
    row(PART, case, f"{OURS}, empty database", "ms", taken["empty"])


def _scan(bench: Bench, cluster: PlainCluster) -> None:
    control = bench.stack.control
    name = "compute-scan"
    load = ("-i", "-q", "-s", bench.settings.scan_scale)
    pgbench(control.create(name).url, *load)
    pgbench(cluster.direct, *load)
    [[size]] = cluster.sql("SELECT pg_relation_size('pgbench_accounts')")
    megabytes = int(size) / 1e6

    def ours() -> float:
        control.stop(name)
        url = bench.stack.direct(name)
        return megabytes / seconds_of(lambda: sql(url, SCAN))

    def plain() -> float:
        cluster.stop()
        cluster.start()
        return megabytes / seconds_of(lambda: cluster.sql(SCAN))

    taken = bench.take_turns({OURS: ours, PLAIN: plain})
    case = f"cold scan of {megabytes:.0f} MB"
    bench.row(PART, case, OURS, "MB/s", taken[OURS], better="more", target=Target(250))
    bench.row(PART, case, PLAIN, "MB/s", taken[PLAIN], better="more")
    control.delete(name)


def _pgbench(pair: Pair) -> None:
    seconds = pair.bench.settings.seconds
    for place in (pair.url, pair.cluster.direct):
        sql(place, WARM)
    for case, clients, options, target in WORK:
        taken = pair.bench.take_turns(
            {
                OURS: partial(transactions_a_second, pair.url, clients, seconds, *options),
                PLAIN: partial(
                    transactions_a_second, pair.cluster.direct, clients, seconds, *options
                ),
            }
        )
        row = pair.bench.row
        row(
            *(PART, case, OURS, "tps", taken[OURS]),
            better="more",
            target=target,
            relative_to=PLAIN,
        )
        row(PART, case, PLAIN, "tps", taken[PLAIN], better="more")
