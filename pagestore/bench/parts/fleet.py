"""A whole installation whose databases sleep: what waking one takes, and what thousands cost.

Wakes go over the proxy, by a client that connects and asks, or that has slept with its database;
beside them stands plain Postgres's own start to its first row. A sleeping database is started on
a directory made anew each time, within walls where the machine allows them.

What sleepers cost is read off the parts' processes: their memory and CPU with an empty store, and
again with the databases there, a quarter of them with a session that has been used and is idle.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg

from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.plain import PlainCluster, pgbench, sql
from pagestore.bench.processes import cpu_nanoseconds
from pagestore.bench.report import Target
from pagestore.bench.stack import resident_bytes, wait_until

PART = "fleet"
FIRST_ROW = "SELECT count(*) FROM pg_class"
SLEEPERS = 200
"""Databases, times the scale."""
WATCHED_SECONDS = 20.0
SETTLING_SECONDS = 90.0
"""After the last has gone to sleep: what hundreds wrote while awake is flushed, which ends."""
_PARTS = ("control", "pageserver", "safekeeper", "compute", "proxy")


def run(bench: Bench) -> None:
    with bench.plain() as cluster:
        _wakes(bench, cluster)
    _sleepers(bench)


def _wakes(bench: Bench, cluster: PlainCluster) -> None:
    control = bench.stack.control
    names = {f"{OURS}, scale {bench.settings.scale}": "fleet-loaded", f"{OURS}, empty": "fleet"}
    urls = {name: control.create(name).url for name in names.values()}
    pgbench(urls["fleet-loaded"], "-i", "-q", "-s", bench.settings.scale)

    def plain() -> float:
        cluster.stop()
        began = time.perf_counter()
        cluster.start()
        cluster.sql(FIRST_ROW)
        return (time.perf_counter() - began) * 1e3

    def stranger(name: str) -> float:
        control.stop(name)
        began = time.perf_counter()
        sql(urls[name], FIRST_ROW)
        return (time.perf_counter() - began) * 1e3

    with psycopg.connect(urls["fleet"], autocommit=True) as session:

        def idle() -> float:
            session.execute(FIRST_ROW)
            control.stop("fleet")
            began = time.perf_counter()
            session.execute(FIRST_ROW)
            return (time.perf_counter() - began) * 1e3

        ways = {case: lambda name=name: stranger(name) for case, name in names.items()}
        slept = f"{OURS}, an idle session"
        taken = bench.take_turns({PLAIN: plain, **ways, slept: idle})
    case = "asleep to first row over the proxy"
    bench.row(PART, case, PLAIN, "ms", taken[PLAIN])
    for name in ways:
        bench.row(PART, case, name, "ms", taken[name], target=Target(1.5), relative_to=PLAIN)
    bench.row(PART, case, slept, "ms", taken[slept])
    for name in names.values():
        control.delete(name)


@dataclass(frozen=True)
class _Cost:
    megabytes: float
    cores: float
    """In percent of one."""


def _cost(bench: Bench) -> _Cost:
    pids = [bench.stack.pid(part) for part in _PARTS]
    began, clock = [cpu_nanoseconds(pid) for pid in pids], time.monotonic()
    time.sleep(WATCHED_SECONDS)
    spent = sum(cpu_nanoseconds(pid) for pid in pids) - sum(began)
    seconds = time.monotonic() - clock
    return _Cost(sum(map(resident_bytes, pids)) / 1e6, spent / 1e7 / seconds)


def _sleepers(bench: Bench) -> None:
    control, count = bench.stack.control, SLEEPERS * bench.settings.scale
    control.create("sleeper")
    control.stop("sleeper")
    before = _cost(bench)
    names = [f"sleeper-{number}" for number in range(count)]
    urls = [control.branch("sleeper", name).url for name in names]
    asleep = _cost(bench)
    with ExitStack() as stack:
        for name, url in zip(names[::4], urls[::4], strict=True):
            session = stack.enter_context(psycopg.connect(url, autocommit=True))
            session.execute(FIRST_ROW)
            control.stop(name)
        wait_until(lambda: not control.system_status().computes_running, "sleep", 120)
        time.sleep(SETTLING_SECONDS)
        used = _cost(bench)
    few = f"{count:,} sleeping databases"
    many = f"the same, {len(urls[::4]):,} with an idle session"
    for case, found in ((few, asleep), (many, used)):
        memory, cpu = found.megabytes - before.megabytes, found.cores - before.cores
        bench.row(PART, f"{case}: memory", OURS, "MB", [memory], target=Target(40))
        bench.row(PART, f"{case}: CPU", OURS, "% of a core", [cpu], target=Target(0.5))
    for name in (*names, "sleeper"):
        control.delete(name)
