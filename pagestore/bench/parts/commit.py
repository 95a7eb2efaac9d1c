"""Commits of one small INSERT: our safekeeper, a local fsync, pg_receivewal --synchronous.

Latencies are per transaction, from pgbench's log. With a standby the cluster's own fsync is
off, as a compute's is.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.plain import (
    BINDIR,
    PlainCluster,
    give,
    pgbench,
    sql,
    unprivileged,
)
from pagestore.bench.stack import wait_until

TABLE = "CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY, filler text)"
INSERT = "INSERT INTO ledger (filler) VALUES ('0123456789');\n"
RECEIVER = "pg_receivewal --synchronous"
CLIENTS = (1, 16)


def run(bench: Bench) -> None:
    control = bench.stack.control
    url = control.create("commit").url
    sql(url, TABLE)
    with bench.plain() as local, _received(bench) as received:
        local.sql(TABLE)
        places = {OURS: url, PLAIN: local.conninfo, RECEIVER: received.conninfo}
        for clients in CLIENTS:
            rates: dict[str, list[float]] = {name: [] for name in places}
            taken = bench.take_turns(
                {
                    name: _latency(bench, place, clients, rates[name])
                    for name, place in places.items()
                }
            )
            words = f"{clients} client{'s' if clients > 1 else ''}"
            for name, values in taken.items():
                bench.row("commit", f"latency p50, {words}", name, "µs", values)
            for name, found in rates.items():
                kept = found[bench.settings.warmup :]
                bench.row("commit", f"commits, {words}", name, "/s", kept, better="more")
    control.delete("commit")


@contextmanager
def _received(bench: Bench) -> Iterator[PlainCluster]:
    with bench.plain(fsync="off") as cluster:
        cluster.sql(TABLE)
        directory = bench.place("receivewal")
        directory.mkdir()
        give(directory)
        receiver = subprocess.Popen(
            [
                *(str(BINDIR / "pg_receivewal"), "-D", str(directory), "--synchronous"),
                *("-d", f"{cluster.conninfo} application_name=receivewal"),
            ],
            cwd="/",
            **unprivileged(),
        )
        try:
            cluster.configure(synchronous_standby_names="ANY 1 (receivewal)")
            cluster.sql("SELECT pg_reload_conf()")
            wait_until(lambda: _is_synchronous(cluster), "pg_receivewal", 30)
            yield cluster
        finally:
            receiver.terminate()
            receiver.wait()
            shutil.rmtree(directory)


def _is_synchronous(cluster: PlainCluster) -> bool:
    rows = cluster.sql("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'")
    return rows == [("quorum",)]


def _latency(bench: Bench, place: str, clients: int, rates: list[float]) -> Callable[[], float]:
    """Measures the median in microseconds; also notes commits a second."""

    def measure() -> float:
        folder = bench.place("pgbench")
        folder.mkdir()
        give(folder)
        script = folder / "insert.sql"
        script.write_text(INSERT)
        began = time.perf_counter()
        pgbench(
            place,
            *("-n", "-M", "prepared", "-c", clients, "-j", min(clients, os.cpu_count() or 1)),
            *("-T", max(1, round(bench.settings.seconds)), "-f", script),
            *("-l", "--log-prefix", folder / "latency"),
        )
        seconds = time.perf_counter() - began
        latencies = [
            int(line.split()[2])
            for log in folder.glob("latency.*")
            for line in log.read_text().splitlines()
        ]
        shutil.rmtree(folder)
        rates.append(len(latencies) / seconds)
        return statistics.median(latencies)

    return measure
