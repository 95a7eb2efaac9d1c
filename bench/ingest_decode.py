"""Speed of ingest's decoding and routing: WAL of plain Postgres through WalIngestor.

    python -m bench.ingest_decode

One core, one thread, from memory; the batch is cleared between feeds. Prints, for each kind of
work, WAL MB/s, records/s, nanoseconds a record, and what came out. The best of three runs.
"""

from __future__ import annotations

import argparse
import time

from pagestore import _native
from tests.plain_postgres import PlainPostgres, plain_postgres
from tests.wal_log import WalLog, empty_meta

CHUNK = 1 << 20
SEGMENT = 16 << 20
WORK = {
    "pgbench (TPC-B)": ("off", None),
    "copy": ("off", "INSERT INTO w SELECT i, repeat('x', 90) FROM generate_series(1, 700000) i"),
    "indexed updates": ("off", "UPDATE w SET v = v || 'y' WHERE a % 3 = 0"),
    "full-page images": ("on", "UPDATE w SET v = v || 'y' WHERE a % 40 = 0"),
}


def pgbench(cluster: PlainPostgres, *options: object) -> None:
    place = ("-h", cluster.root, "-p", cluster.port, "-U", "postgres")
    cluster.tool("pgbench", *place, *options, "postgres")


def logs() -> list[tuple[str, bytes, int]]:
    """(name, WAL bytes, their LSN): whole segments, one kind of work each."""
    made = []
    with plain_postgres(wal_keep_size="8GB", max_wal_size="8GB", autovacuum="off") as cluster:
        pgbench(cluster, "-i", "-s", 5)
        cluster.sql("CREATE TABLE w (a int PRIMARY KEY, v text)")
        for name, (images, sql) in WORK.items():
            cluster.sql(f"ALTER SYSTEM SET full_page_writes = {images}")
            cluster.sql("SELECT pg_reload_conf()")
            cluster.sql("CHECKPOINT")
            start = segment_start(cluster)
            if sql is None:
                pgbench(cluster, "-c", 4, "-t", 8000)
            else:
                cluster.sql(sql)
            end = segment_start(cluster)
            made.append((name, WalLog.of(cluster).slice(start, end), start))
    return made


def segment_start(cluster: PlainPostgres) -> int:
    """Ends the segment; the LSN of the next."""
    cluster.sql("CREATE TABLE IF NOT EXISTS nothing (x int)")
    cluster.sql("SELECT pg_switch_wal()")
    return -(-int(cluster.sql("SELECT pg_current_wal_lsn() - '0/0'")[0][0]) // SEGMENT) * SEGMENT


def run(data: bytes, start: int) -> tuple[float, int, int, int]:
    ingestor = _native.WalIngestor(start, 0)
    meta, batch = empty_meta(), _native.Batch()
    records = entries = made = 0
    spent = 0.0
    view = memoryview(data)
    for at in range(0, len(data), CHUNK):
        began = time.perf_counter()
        records += ingestor.feed(view[at : at + CHUNK], meta, batch).records
        spent += time.perf_counter() - began
        entries += len(batch)
        made += batch.nbytes
        meta.apply(batch)
        batch.clear()
    return spent, records, entries, made


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    heads = ("work", "WAL MB", "MB/s", "Mrec/s", "ns/rec", "entries", "out MB")
    print("{:<18}{:>8}{:>8}{:>8}{:>8}{:>10}{:>8}".format(*heads))
    for name, data, start in logs():
        spent, records, entries, made = min(run(data, start) for _ in range(3))
        size = len(data) / 1e6
        print(
            f"{name:<18}{size:>8.0f}{size / spent:>8.0f}{records / spent / 1e6:>8.2f}"
            f"{spent / records * 1e9:>8.0f}{entries:>10}{made / 1e6:>8.0f}"
        )


if __name__ == "__main__":
    main()
