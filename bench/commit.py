"""Commit latency and throughput: local fsync, pg_receivewal --synchronous, our safekeeper.

    python -m bench.commit [--seconds 5] [--rounds 2]

Each transaction is one small INSERT (pgbench, prepared). The three take turns on one machine,
so that what disturbs one disturbs all; latencies are per transaction, from pgbench's log. With
a standby, the cluster's own fsync is off, as a compute's is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.plain_postgres import BINDIR, PlainPostgres, plain_postgres, reachable_dir, unprivileged
from tests.safekeeper_process import SafekeeperProcess, Timeline, wait_synchronous

TABLE = "CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY, filler text)"
SCRIPT = "INSERT INTO ledger (filler) VALUES ('0123456789');\n"
SETTINGS = {
    "autovacuum": "off",
    "full_page_writes": "off",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "wal_keep_size": "1GB",
}


@contextmanager
def local_fsync() -> Iterator[PlainPostgres]:
    with plain_postgres(**SETTINGS) as postgres:
        postgres.sql(TABLE)
        yield postgres


@contextmanager
def with_standby(name: str) -> Iterator[PlainPostgres]:
    with plain_postgres(**SETTINGS, fsync="off") as postgres:
        postgres.sql(TABLE)
        postgres.configure(synchronous_standby_names=f"ANY 1 ({name})")
        yield postgres


@contextmanager
def pg_receivewal() -> Iterator[PlainPostgres]:
    with with_standby("receivewal") as postgres:
        directory = reachable_dir()
        conninfo = f"{postgres.conninfo()} application_name=receivewal"
        receiver = subprocess.Popen(
            [BINDIR / "pg_receivewal", "-D", directory, "--synchronous", "-d", conninfo],
            **unprivileged(),
        )
        try:
            postgres.sql("SELECT pg_reload_conf()")
            wait_synchronous(postgres)
            yield postgres
        finally:
            receiver.terminate()
            receiver.wait()
            subprocess.run(["rm", "-rf", directory], check=True)


@contextmanager
def safekeeper() -> Iterator[PlainPostgres]:
    with tempfile.TemporaryDirectory() as directory, with_standby("sk1") as postgres:
        process = SafekeeperProcess(Path(directory) / "sk")
        process.start()
        try:
            timeline = Timeline(process, postgres)
            timeline.create()
            timeline.vote()
            timeline.attach()
            postgres.sql("SELECT pg_reload_conf()")
            wait_synchronous(postgres)
            yield postgres
        finally:
            process.stop()


def measure(postgres: PlainPostgres, clients: int, seconds: int) -> list[int]:
    """Latencies of all transactions, in microseconds."""
    script = postgres.root / "insert.sql"
    script.write_text(SCRIPT)
    postgres.tool(
        "pgbench",
        *("-h", postgres.root, "-p", postgres.port, "-U", "postgres", "-n", "-M", "prepared"),
        *("-c", clients, "-j", min(clients, os.cpu_count() or 1), "-T", seconds),
        *("-f", script, "-l", "--log-prefix", postgres.root / "latency", "postgres"),
    )
    latencies = []
    for log in postgres.root.glob("latency.*"):
        latencies += [int(line.split()[2]) for line in log.read_text().splitlines()]
        log.unlink()
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    makers: dict[str, Callable[[], AbstractContextManager[PlainPostgres]]] = {
        "local fsync": local_fsync,
        "pg_receivewal --synchronous": pg_receivewal,
        "safekeeper": safekeeper,
    }
    taken: dict[tuple[int, str], list[int]] = {}
    for _ in range(options.rounds):
        for name, maker in makers.items():
            with maker() as postgres:
                measure(postgres, 1, 1)
                for clients in (1, 8):
                    found = measure(postgres, clients, options.seconds)
                    taken.setdefault((clients, name), []).extend(found)
    print(f"{'clients':>7}  {'durable by':28} {'p50 us':>8} {'p99 us':>8} {'commits/s':>10}")
    for (clients, name), latencies in sorted(taken.items()):
        p50 = statistics.median(latencies)
        p99 = statistics.quantiles(latencies, n=100)[98]
        rate = len(latencies) / (options.seconds * options.rounds)
        print(f"{clients:7}  {name:28} {p50:8.0f} {p99:8.0f} {rate:10.0f}")


if __name__ == "__main__":
    main()
