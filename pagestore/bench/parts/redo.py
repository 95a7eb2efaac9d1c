"""What a page by redo costs, by the pooled helper.

Chains of heap records of a plain Postgres's WAL, as ingest makes them, cut to the last 1, 10 and
100 records over a base made from those before. Microseconds a page as the pool itself measures
its calls, so without Python's own part: one page a call (its latency), and 64 (pipelined).
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections import defaultdict

from pagestore import _native
from pagestore.bench.harness import BULK, OURS, Bench
from pagestore.bench.plain import BINDIR, USER, PlainCluster
from pagestore.bench.report import Target
from pagestore.bench.stack import end_of_wal
from pagestore.keyspace import SETTINGS, WILL_INIT, Key, Kind, ValueKind
from pagestore.pg_control_values import pack_settings
from pagestore.pgformat.wal import SEGMENT_SIZE, segment_name
from pagestore.postgres.cluster import read_control
from pagestore.reader.redo import RedoHelpers
from pagestore.v1 import page_pb2

Item = tuple[int, int, int, bytes]
Request = tuple[bytes, bytes | None, list[Item]]
LENGTHS = (1, 10, 100)
PAGES_A_CALL = (1, 64)
TARGETS = {(10, 64): Target(15), (100, 64): Target(45)}
ROWS_PER_SCALE = 3000
CHUNK = 1 << 20


def run(bench: Bench) -> None:
    with bench.plain(**BULK) as cluster:
        chains = _chains(cluster, max(ROWS_PER_SCALE * bench.settings.scale, 2000))
    user = USER if os.geteuid() == 0 else None
    with RedoHelpers(BINDIR, run_as=user) as helpers:
        for length in LENGTHS:
            requests = [_cut(helpers, key, items, length) for key, items in chains.items()]
            for pages in PAGES_A_CALL:
                cost = functools.partial(_cost, bench, helpers, requests, pages)
                bench.row(
                    *("redo", f"{length} records, {pages} pages a call", OURS, "µs a page"),
                    bench.take_turns({OURS: cost})[OURS],
                    target=TARGETS.get((length, pages)),
                )


def _chains(cluster: PlainCluster, rows: int) -> dict[bytes, list[Item]]:
    """The records of heap pages that hold at least a hundred, from the page's first on."""
    cluster.sql("CREATE TABLE t (id int, v text)")
    cluster.stop()
    start = end_of_wal(cluster)
    previous = read_control(cluster.data).checkpoint_lsn
    cluster.start()
    cluster.sql(f"INSERT INTO t SELECT i, repeat('x', 20) FROM generate_series(1, {rows}) i")
    cluster.stop()
    batch = _native.Batch()
    ingestor = _native.WalIngestor(start, previous)
    meta = _meta_of(cluster)
    found: dict[bytes, list[Item]] = defaultdict(list)
    wal = _wal(cluster, start, end_of_wal(cluster))
    for at in range(0, len(wal), CHUNK):
        ingestor.feed(wal[at : at + CHUNK], meta, batch)
        for index in range(len(batch)):
            key, lsn, kind, flags, payload = batch[index]
            if key[0] == Kind.REL_BLOCK and kind in (ValueKind.RECORD, ValueKind.PATCH):
                found[key].append((lsn, kind, flags, payload))
        meta.apply(batch)
        batch.clear()
    return {
        key: items[: max(LENGTHS)]
        for key, items in found.items()
        if len(items) >= max(LENGTHS) and items[0][2] & WILL_INIT and Key.unpack(key).fork == 0
    }


def _meta_of(cluster: PlainCluster) -> _native.MetaTable:
    """Nothing but of which Postgres the WAL is."""
    meta = _native.MetaTable()
    catalog_version = read_control(cluster.data).catalog_version
    settings = page_pb2.ControlSettings(catalog_version=catalog_version)
    meta.put(SETTINGS.pack(), pack_settings(settings))
    return meta


def _wal(cluster: PlainCluster, start: int, end: int) -> bytes:
    first = start // SEGMENT_SIZE * SEGMENT_SIZE
    segments = (
        (cluster.data / "pg_wal" / segment_name(1, lsn)).read_bytes()
        for lsn in range(first, end, SEGMENT_SIZE)
    )
    return b"".join(segments)[start - first : end - first]


def _cut(helpers: RedoHelpers, key: bytes, items: list[Item], length: int) -> Request:
    base = helpers.pool.apply(key, None, items[:-length]) if length < len(items) else None
    return (key, base, items[-length:])


def _cost(bench: Bench, helpers: RedoHelpers, requests: list[Request], pages: int) -> float:
    """Microseconds a page: the median over calls."""
    costs = []
    at = 0
    until = time.monotonic() + bench.settings.seconds / 4
    while time.monotonic() < until:
        call = [requests[(at + i) % len(requests)] for i in range(pages)]
        at += pages
        before = helpers.pool.stats()["busy_seconds"]
        _, fault = helpers.pool.apply_many(call)
        if fault is not None:
            raise RuntimeError(fault[1])
        costs.append((helpers.pool.stats()["busy_seconds"] - before) / pages * 1e6)
    return statistics.median(costs)
