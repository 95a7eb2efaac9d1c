"""What compaction costs and gives: WAL of plain Postgres through a store, before, after, and fresh.

    python -m bench.compaction [--scale 2] [--updates 8]

pgbench's tables are imported; all accounts are updated, a third at random each time, so that the
WAL is several times the data. The store is flushed and read, compacted until the policy wants no
more (at rest), and read again; and a second store is loaded from the cluster's final files. Reads
are of single pages at random, at the head, with no block in memory (files are in the system's
cache), in turns. Then the throughput of merges alone, by codec, on one core: of the flushed layers
of the same WAL, MB of their files a second of processor time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pagestore import _native, keyspace
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.ingest.apply import TimelineIngest
from pagestore.ingest.importer import Importer
from pagestore.keyspace import ValueKind
from pagestore.layers.native import LayerKind
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import Bounds, next_job
from pagestore.maintenance.rewriting import Rewritten, rewrite
from pagestore.oracle.replay import end_of_wal
from pagestore.reader.redo import RedoHelpers
from pagestore.timeline import Repository, Timeline
from pagestore.transfer.pgdata import read_pgdata
from tests.plain_postgres import BINDIR, PlainPostgres, plain_postgres
from tests.wal_log import WalLog

CHUNK = 1 << 20
OPEN_LAYER_BYTES = 32 << 20
READS = 400
ROUNDS = 15
WHOLE = (ValueKind.IMAGE, ValueKind.ZERO, ValueKind.TOMBSTONE)


def load(store: Path, data: Path) -> tuple[Repository, Timeline]:
    repository, timeline = Repository.open(store), TimelineId.generate()
    importer = Importer(repository.create_root)
    for chunk in read_pgdata(data, DEFAULT_TENANT, timeline):
        importer.take(chunk)
    importer.finish()
    return repository, repository.get(DEFAULT_TENANT, timeline)


def work(cluster: PlainPostgres, updates: int) -> None:
    for i in range(updates):
        cluster.sql(
            f"UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE hashint4(aid + {i}) % 3 = 0"
        )
    place = ("-h", cluster.root, "-p", cluster.port, "-U", "postgres")
    cluster.tool("pgbench", *place, "-n", "-c", "2", "-t", "5000", "postgres")


def take_in(timeline: Timeline, wal: bytes, start: int, redo: _native.RedoPool) -> None:
    ingest = TimelineIngest(timeline, redo)
    for at in range(0, len(wal), CHUNK):
        ingest.take(start + at, wal[at : at + CHUNK])
        if timeline.memory_bytes > OPEN_LAYER_BYTES:
            timeline.freeze()
            timeline.flush()
    timeline.freeze()
    timeline.flush()


def depths(timeline: Timeline, keys: list[bytes]) -> list[int]:
    """Records that a read at the head applies."""
    snapshot, head = timeline.snapshot(), timeline.last_record_lsn
    return [sum(kind not in WHOLE for _, kind, _, _ in snapshot.chain(key, head)) for key in keys]


def settle(timeline: Timeline, redo: _native.RedoPool, bounds: Bounds) -> list[Rewritten]:
    done = []
    while (job := next_job(Depths().figures(timeline), bounds, at_rest=True)) is not None:
        began, cpu = time.perf_counter(), time.thread_time()
        done.append(rewrite(timeline, job, redo, bounds))
        print(
            f"  {type(job).__name__:<7} of {len(job.inputs):>3}: {done[-1].read / 1e6:6.1f} to"
            f" {done[-1].written / 1e6:6.1f} MB, {done[-1].images:>6} images,"
            f" {time.perf_counter() - began:5.1f} s, {time.thread_time() - cpu:5.1f} of this core"
        )
    return done


def reader(timeline: Timeline, keys: list[bytes], redo: _native.RedoPool) -> Callable[[], float]:
    snapshot, rng = timeline.snapshot(), random.Random(1)
    head = timeline.last_record_lsn

    def read() -> float:
        """Microseconds a page."""
        some = [rng.choice(keys) for _ in range(READS)]
        began = time.perf_counter()
        for key in some:
            snapshot.read_pages(key, head, redo)
        return (time.perf_counter() - began) / READS * 1e6

    read()
    return read


def in_turns(readers: dict[str, Callable[[], float]]) -> None:
    _native.set_store_limits(block_cache_bytes=0)
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, read in readers.items():
            times[name].append(read())
    for name, found in times.items():
        print(f"  {name:<24} {statistics.median(found):8.1f} us a page")


def throughput(timeline: Timeline, folder: Path) -> None:
    layers = [
        layer for _, entry, layer in timeline.own_layers() if entry.summary.kind == LayerKind.DELTA
    ]
    size = sum(layer.summary.bytes for layer in layers)
    for level in (0, -5, -3, 1):
        merge = _native.Compaction(layers, timeline.snapshot(), None, file_bytes=32 << 20)
        cpu, written, number = time.thread_time(), 0, 1
        while True:
            path = folder / f"{level}.{number}"
            made = merge.write(path, bytes(16), bytes(16), number, level=level)
            if made is None:
                break
            written, number = written + made.bytes, number + 1
        cpu = time.thread_time() - cpu
        name = f"zstd {level}" if level else "LZ4"
        print(
            f"  {name:<8} {len(layers)} files of {size / 1e6:.0f} MB to {written / 1e6:.0f} MB:"
            f" {size / cpu / 1e6:.0f} MB/s"
        )


def measure(folder: Path, scale: int, updates: int) -> None:
    with (
        RedoHelpers(BINDIR, size=1) as helpers,
        plain_postgres(full_page_writes="off", wal_keep_size="8GB", max_wal_size="8GB") as cluster,
    ):
        place = ("-h", cluster.root, "-p", cluster.port, "-U", "postgres")
        cluster.tool("pgbench", *place, "-i", "-q", "-F", "50", "-s", scale, "postgres")
        cluster.stop()
        start = end_of_wal(cluster.data)
        repository, timeline = load(folder / "store", cluster.data)
        imported = timeline.physical_bytes
        cluster.start()
        work(cluster, updates)
        [[number, blocks]] = cluster.sql(
            "SELECT pg_relation_filenode('pgbench_accounts'),"
            " pg_relation_size('pgbench_accounts') / 8192"
        )
        [[database]] = cluster.sql("SELECT oid FROM pg_database WHERE datname = 'postgres'")
        cluster.stop()
        wal = WalLog.of(cluster).slice(start, end_of_wal(cluster.data))
        take_in(timeline, wal, start, helpers.pool)
        fresh_repository, fresh = load(folder / "fresh", cluster.data)
        numbers = 1663, int(database), int(number), 0
        keys = [keyspace.rel_block(*numbers, block).pack() for block in range(int(blocks))]
        flushed = timeline.physical_bytes - imported
        print(f"data {imported / 1e6:.0f} MB stored, WAL {len(wal) / 1e6:.0f} MB, ", end="")
        print(f"flushed {flushed / 1e6:.0f} MB in {timeline.layer_count} files")
        out = folder / "out"
        out.mkdir()
        throughput(timeline, out)
        before = depths(timeline, keys)
        in_turns(
            {
                "flushed": reader(timeline, keys, helpers.pool),
                "fresh": reader(fresh, keys, helpers.pool),
            }
        )
        done = settle(timeline, helpers.pool, replace(Bounds(), image_floor=8 << 20))
        after = depths(timeline, keys)
        for name, found in (("before", before), ("after", after)):
            print(f"  records a read {name}: {statistics.mean(found):.1f}, at most {max(found)}")
        written = sum(each.written for each in done)
        print(
            f"  written for {len(wal) / 1e6:.0f} MB of WAL: {(written + flushed) / 1e6:.0f} MB,",
            end="",
        )
        print(f" {(written + flushed) / len(wal):.2f} x; refused {sum(d.refused for d in done)}")
        in_turns(
            {
                "settled": reader(timeline, keys, helpers.pool),
                "fresh": reader(fresh, keys, helpers.pool),
            }
        )
        repository.close()
        fresh_repository.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--updates", type=int, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.scale, options.updates)


if __name__ == "__main__":
    main()
