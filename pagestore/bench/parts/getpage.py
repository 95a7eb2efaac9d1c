"""Pages through GetPages: a real page server, and clients in C (native/bench/getpage_load.c).

One cluster is imported: a table of one image a page, and tables of one row a page whose pages
are updated 1, 10 and 100 times afterwards, so that the WAL holds so many records (and a few
prunes) for each. Everything is flushed to layer files first. *Cold* reads each block once,
right after the page server's restart (its files are still in the system's cache); *old* is
the import's LSN, *head* the last.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Literal

from pagestore.bench.generators import page_load
from pagestore.bench.harness import BULK, OURS, Bench
from pagestore.bench.report import Target
from pagestore.bench.stack import Followed, Stack, cpu_seconds, end_of_wal
from pagestore.client import Rel
from pagestore.client.credentials import AUTHORITY_VARIABLE
from pagestore.errors import FailedPrecondition
from pagestore.ids import DEFAULT_TENANT

Order = Literal["uniform", "skewed", "once"]

PAGES_PER_SCALE = 2000
CHAIN_PAGES_PER_SCALE = 200
CHAINS = (0, 1, 10, 100)
SHAPES = tuple((clients, blocks) for clients in (1, 4, 16) for blocks in (1, 8, 32))
"""(clients, blocks a request)"""


@dataclass(frozen=True)
class Table:
    """A relation to be read, of one timeline."""

    stack: Stack
    followed: Followed
    rel: Rel
    blocks: int


@dataclass(frozen=True)
class Load:
    """What one run of the load generator found."""

    pages_a_second: float
    p50_us: float
    p99_us: float
    server_cpu_us: float
    """User and system time of the page server, a page."""


def load(
    table: Table, lsn: int, clients: int, blocks: int, order: Order, seconds: float, warmup: float
) -> Load:
    host, _, port = table.stack.addresses["pageserver"].rpartition(":")
    pid = table.stack.pid("pageserver")
    before = cpu_seconds(pid)
    done = subprocess.run(
        [
            str(page_load()),
            *(host, port, DEFAULT_TENANT.raw.hex(), table.followed.timeline.raw.hex(), str(lsn)),
            *map(str, (table.rel.spc_oid, table.rel.db_oid, table.rel.rel_number, 0)),
            *map(str, (table.blocks, clients, min(blocks, table.blocks), seconds, warmup)),
            order,
        ],
        env={
            **os.environ,
            "PAGESTORE_TOKEN": table.stack.token_of(table.followed.timeline),
            AUTHORITY_VARIABLE: "",  # the bench's own parts speak plainly, whatever others here do
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise FailedPrecondition("LOAD_FAILED", done.stderr.strip())
    found = json.loads(done.stdout)
    cpu = (cpu_seconds(pid) - before) * found["seconds"] / (found["seconds"] + warmup)
    return Load(
        found["pages"] / found["seconds"],
        found["p50_us"],
        found["p99_us"],
        cpu / max(1, found["pages"]) * 1e6,
    )


def run(bench: Bench) -> None:
    page_load()
    pages = PAGES_PER_SCALE * bench.settings.scale
    chain_pages = CHAIN_PAGES_PER_SCALE * bench.settings.scale
    stack = bench.stack
    with bench.plain(**BULK) as cluster:
        cluster.sql(
            "CREATE TABLE flat AS SELECT i, md5(i::text) m, repeat(md5((i * 7)::text), 5) f"
            f" FROM generate_series(1, {pages * 35}) i"
        )
        for length in CHAINS:
            cluster.sql(
                f"CREATE TABLE chain{length} (i int, v int, pad char(760)) WITH (fillfactor = 10);"
                f" INSERT INTO chain{length} SELECT i, 0, i::text"
                f" FROM generate_series(1, {chain_pages}) i"
            )
        cluster.sql("VACUUM FREEZE")
        cluster.stop()
        followed = stack.import_cluster(cluster)
        cluster.start()
        followed.attach(cluster.conninfo)
        for length in CHAINS:
            for _ in range(length):
                cluster.sql(f"UPDATE chain{length} SET v = v + 1")
        tables = {}
        for name in ("flat", *(f"chain{length}" for length in CHAINS)):
            [[number, size]] = cluster.sql(
                f"SELECT pg_relation_filenode('{name}'), pg_relation_size('{name}') / 8192"
            )
            [[database]] = cluster.sql("SELECT oid FROM pg_database WHERE datname = 'postgres'")
            tables[name] = Table(stack, followed, Rel(1663, database, number), int(size))
        cluster.stop()
        end = end_of_wal(cluster)
        followed.detach(end)
    followed.wait_ingested(end)
    stack.pages.flush(DEFAULT_TENANT, followed.timeline)
    _cold(bench, tables, end)
    _shapes(bench, tables["flat"], end)
    _chains(bench, tables, end)
    _lsns_and_skew(bench, tables["flat"], end)
    followed.delete()


def _repeat(
    bench: Bench, table: Table, lsn: int, clients: int, blocks: int, order: Order = "uniform"
) -> list[Load]:
    seconds = bench.settings.seconds
    return [
        load(table, lsn, clients, blocks, order, seconds, seconds / 4)
        for _ in range(bench.settings.rounds)
    ]


def _rows(bench: Bench, case: str, loads: list[Load], **targets: Target) -> None:
    columns = (
        ("pages/s", [x.pages_a_second for x in loads], "more"),
        ("µs p50", [x.p50_us for x in loads], "less"),
        ("µs p99", [x.p99_us for x in loads], "less"),
        ("µs CPU a page", [x.server_cpu_us for x in loads], "less"),
    )
    for unit, values, better in columns:
        target = targets.get(unit.split()[-1].replace("/", "_"))
        bench.row(
            "getpage",
            case,
            OURS,
            unit,
            values,
            better="more" if better == "more" else "less",
            target=target,
        )


def _shapes(bench: Bench, table: Table, head: int) -> None:
    targets = {
        (1, 1): {"p50": Target(350)},
        (16, 1): {"pages_s": Target(10_000)},
        (4, 32): {"pages_s": Target(50_000)},
    }
    for clients, blocks in SHAPES:
        loads = _repeat(bench, table, head, clients, blocks)
        case = f"{clients} clients × {blocks} blocks, images, head"
        _rows(bench, case, loads, **targets.get((clients, blocks), {}))


def _chains(bench: Bench, tables: dict[str, Table], head: int) -> None:
    for length in CHAINS:
        table = tables[f"chain{length}"]
        for clients, blocks in ((1, 1), (4, 32)):
            loads = _repeat(bench, table, head, clients, blocks)
            _rows(bench, f"{clients} clients × {blocks} blocks, {length} records", loads)


def _lsns_and_skew(bench: Bench, table: Table, head: int) -> None:
    old = table.followed.start_lsn
    _rows(bench, "16 clients × 1 block, old LSN", _repeat(bench, table, old, 16, 1))
    _rows(bench, "16 clients × 1 block, skewed", _repeat(bench, table, head, 16, 1, "skewed"))


def _cold(bench: Bench, tables: dict[str, Table], head: int) -> None:
    for name, table in (("images", tables["flat"]), ("10 records", tables["chain10"])):
        loads = []
        for _ in range(bench.settings.rounds):
            table.stack.restart_page_server()
            loads.append(load(table, head, 4, 32, "once", 0, 0))
        _rows(bench, f"4 clients × 32 blocks, {name}, cold, in order", loads)
