"""What a page by redo costs: .venv/bin/python -m bench.redo

Chains of heap and B-tree records of a plain Postgres, cut to 1, 10 and 100 records. Microseconds
a page, medians over calls: one page a call (latency), and 8 and 64 pages a call (pipelined), as
the pool measures them itself (``busy_seconds``), so without Python's own part; and the CPU time
that the helpers took for a page, which a busy machine does not distort.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from pagestore import keyspace
from pagestore.ids import parse_lsn
from pagestore.reader.redo import RedoHelpers
from tests.integration.test_redo_truth import SETTINGS, control_value
from tests.integration.wal_chains import Chain, Chains, read_wal
from tests.plain_postgres import BINDIR, plain_postgres

Request = tuple[bytes, bytes | None, list[tuple[int, int, int, bytes]]]
ROWS = 30_000
LENGTHS = (1, 10, 100)
PAGES_A_CALL = (1, 8, 64)
SECONDS_A_CELL = 0.7


def chains() -> list[tuple[bytes, Chain]]:
    with plain_postgres(**SETTINGS) as cluster:
        cluster.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
        cluster.sql("CHECKPOINT")
        begin = parse_lsn(control_value(cluster, "Latest checkpoint location:"))
        cluster.sql(f"INSERT INTO t SELECT i, repeat('x', 20) FROM generate_series(1, {ROWS}) i")
        cluster.stop()
        end = parse_lsn(control_value(cluster, "Latest checkpoint location:"))
        found = Chains(lambda block: None)
        for record in read_wal(cluster.data / "pg_wal", begin, end):
            found.feed(record)
    return [
        (keyspace.rel_block(*block).pack(), chain)
        for block, chain in found.chains.items()
        if len(chain.items) >= max(LENGTHS) and block[3] == 0 and chain.items[0][2] == 1
    ]


def cut(helpers: RedoHelpers, key: bytes, chain: Chain, length: int) -> Request:
    """The same page, made from a base by the last ``length`` of its first 100 records."""
    items = chain.items[: max(LENGTHS)]
    base = helpers.pool.apply(key, None, items[:-length]) if length < len(items) else None
    return (key, base, items[-length:])


def helper_cpu(helpers: RedoHelpers) -> float:
    """Microseconds on a CPU of all helpers, since they started."""
    command = str(helpers.directory).encode()
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if command in (process / "cmdline").read_bytes():
                total += int((process / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e3


def cell(helpers: RedoHelpers, requests: list[Request], pages: int) -> tuple[float, float]:
    """Microseconds a page: of the caller's time, of the helpers' CPU."""
    costs = []
    cpu, made = helper_cpu(helpers), helpers.pool.stats()["pages"]
    at = 0
    until = time.monotonic() + SECONDS_A_CELL
    while time.monotonic() < until:
        call = [requests[(at + i) % len(requests)] for i in range(pages)]
        at += pages
        before = helpers.pool.stats()["busy_seconds"]
        _, fault = helpers.pool.apply_many(call)
        assert fault is None, fault
        costs.append((helpers.pool.stats()["busy_seconds"] - before) / pages * 1e6)
    made = helpers.pool.stats()["pages"] - made
    return statistics.median(costs), (helper_cpu(helpers) - cpu) / made


def main() -> None:
    with RedoHelpers(BINDIR) as helpers:
        found = chains()
        key, chain = found[0]
        begun = time.perf_counter()
        helpers.pool.apply(key, chain.base, chain.items[:1])
        print(f"first page, helper started for it: {(time.perf_counter() - begun) * 1e3:.0f} ms")
        print(f"{len(found)} pages; us a page by pages a call")
        print("records " + "".join(f"{pages:>9} (cpu) " for pages in PAGES_A_CALL))
        for length in LENGTHS:
            requests = [cut(helpers, key, chain, length) for key, chain in found]
            row = [cell(helpers, requests, pages) for pages in PAGES_A_CALL]
            print(f"{length:>7} " + "".join(f"{cost:9.1f} ({cpu:4.1f})" for cost, cpu in row))


if __name__ == "__main__":
    main()
