"""Commits of one small INSERT: on one and three safekeepers, beside plain Postgres with a local
fsync and with the stock quorum of pg_receivewal --synchronous, of one and of two of three.

Latencies are per transaction, from pgbench's log. With a standby the cluster's own fsync is
off, as a compute's is. All stand on one disk: that of the machine.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.plain import (
    BINDIR,
    PlainCluster,
    give,
    sql,
    transactions_a_second,
    unprivileged,
)
from pagestore.bench.report import Better, Target
from pagestore.bench.stack import running_stack, wait_until

TABLE = "CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY, filler text)"
INSERT = "INSERT INTO ledger (filler) VALUES ('0123456789');\n"
THREE = f"{OURS}, three safekeepers"
RECEIVER = "pg_receivewal --synchronous"
THREE_RECEIVERS = f"three {RECEIVER}, any two"
CLIENTS = (1, 8, 32)
LATENCY, THROUGHPUT = Target(1.2), Target(1.0)


@dataclass
class Taken:
    """One value a round, of one system."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)


def run(bench: Bench) -> None:
    with (
        running_stack(bench.place("three"), safekeepers=3) as three,
        bench.plain() as local,
        _received(bench, 1) as one_received,
        _received(bench, 3) as three_received,
    ):
        urls = {}
        for what, stack in ((OURS, bench.stack), (THREE, three)):
            stack.control.create("commit")
            urls[what] = stack.direct("commit")
        places = {
            **urls,
            PLAIN: local.conninfo,
            RECEIVER: one_received.conninfo,
            THREE_RECEIVERS: three_received.conninfo,
        }
        for place in places.values():
            sql(place, TABLE)
        for clients in CLIENTS:
            _case(bench, places, clients)
    bench.stack.control.delete("commit")


def _case(bench: Bench, places: Mapping[str, str], clients: int) -> None:
    taken = {name: Taken() for name in places}
    bench.take_turns(
        {name: _measurement(bench, place, clients, taken[name]) for name, place in places.items()}
    )
    words = f"{clients} client{'s' if clients > 1 else ''}"
    warmup = bench.settings.warmup
    for name, found in taken.items():
        latency = LATENCY if name == THREE and clients == CLIENTS[0] else None
        throughput = THROUGHPUT if name == THREE and clients == CLIENTS[-1] else None
        cases: list[tuple[str, str, list[float], Better, Target | None]] = [
            ("latency p50", "µs", found.p50, "less", latency),
            ("latency p99", "µs", found.p99, "less", None),
            ("commits", "/s", found.rate, "more", throughput),
        ]
        for what, unit, values, better, target in cases:
            bench.row(
                *("commit", f"{what}, {words}", name, unit, values[warmup:]),
                better=better,
                target=target,
                relative_to=THREE_RECEIVERS if target else "",
            )


@contextmanager
def _received(bench: Bench, receivers: int) -> Iterator[PlainCluster]:
    """A cluster without fsync whose commits wait for a majority of so many receivers."""
    names = [f"receivewal{number}" for number in range(1, receivers + 1)]
    with bench.plain(fsync="off") as cluster, ExitStack() as stack:
        for name in names:
            stack.enter_context(_receiver(bench, cluster, name))
        needed = receivers // 2 + 1
        cluster.configure(synchronous_standby_names=f"ANY {needed} ({', '.join(names)})")
        cluster.sql("SELECT pg_reload_conf()")
        wait_until(lambda: _are_synchronous(cluster) == receivers, "pg_receivewal", 30)
        yield cluster


@contextmanager
def _receiver(bench: Bench, cluster: PlainCluster, name: str) -> Iterator[None]:
    directory = bench.place(name)
    directory.mkdir()
    give(directory)
    receiver = subprocess.Popen(
        [
            *(str(BINDIR / "pg_receivewal"), "-D", str(directory), "--synchronous"),
            *("-d", f"{cluster.conninfo} application_name={name}"),
        ],
        cwd="/",
        **unprivileged(),
    )
    try:
        yield
    finally:
        receiver.terminate()
        receiver.wait()
        shutil.rmtree(directory)


def _are_synchronous(cluster: PlainCluster) -> int:
    rows = cluster.sql("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'")
    return rows.count(("quorum",))


def _measurement(bench: Bench, place: str, clients: int, taken: Taken) -> Callable[[], float]:
    """One round; returns the median in microseconds. Many clients take a moment to connect."""

    def measure() -> float:
        folder = bench.place("pgbench")
        folder.mkdir()
        give(folder)
        script = folder / "insert.sql"
        script.write_text(INSERT)
        rate = transactions_a_second(
            place,
            clients,
            max(bench.settings.seconds, clients / 10),
            *("-f", script, "-l", "--log-prefix", folder / "latency"),
        )
        latencies = [
            int(line.split()[2])
            for log in folder.glob("latency.*")
            for line in log.read_text().splitlines()
        ]
        shutil.rmtree(folder)
        taken.rate.append(rate)
        taken.p50.append(statistics.median(latencies))
        taken.p99.append(statistics.quantiles(latencies, n=100, method="inclusive")[98])
        return taken.p50[-1]

    return measure
