"""pgbench's tables, updated ten times over: reads, space and writes, beside freshly loaded ones.

All accounts are updated, a third at random each time, so the WAL is many times the data. It is
taken in by this process, flushed, read, compacted until the policy wants no more at rest, and read
again; meanwhile, too. A second store is loaded from the cluster's final files. Then history is
given up, and compaction and collection do what they want. Reads are of single pages at random, at
the head, with no block in memory; merges are timed by what the processor gave them.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pagestore import _native, keyspace
from pagestore.bench.harness import BULK, OURS, Bench
from pagestore.bench.plain import BINDIR, PlainCluster, pgbench
from pagestore.bench.report import Target
from pagestore.bench.stack import end_of_wal
from pagestore.ids import DEFAULT_TENANT, Lsn, TimelineId
from pagestore.ingest.apply import TimelineIngest
from pagestore.ingest.importer import Importer
from pagestore.layers.native import LayerKind
from pagestore.maintenance.collecting import drop_unneeded
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import Bounds, next_job
from pagestore.maintenance.rewriting import rewrite
from pagestore.pgformat import wal
from pagestore.reader.redo import RedoHelpers
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import Horizon
from pagestore.transfer.pgdata import read_pgdata

CHUNK = 1 << 20
OPEN_LAYER_BYTES = 32 << 20
READS = 300
UPDATES = 30
"""Of a third of all accounts each."""
CODECS = {"LZ4": 0, "zstd": Bounds().zstd}
BLOCK_CACHE = 64 << 20
FRESH, WORKED = "freshly loaded", "after updates"


@dataclass(frozen=True)
class Loaded:
    repository: Repository
    timeline: Timeline
    folder: Path

    @classmethod
    def of(cls, folder: Path, data: Path) -> Loaded:
        repository, timeline = Repository.open(folder), TimelineId.generate()
        importer = Importer(repository.create_root)
        for chunk in read_pgdata(data, DEFAULT_TENANT, timeline):
            importer.take(chunk)
        importer.finish()
        return cls(repository, repository.get(DEFAULT_TENANT, timeline), folder)

    @property
    def bytes(self) -> int:
        return self.timeline.physical_bytes

    def close(self) -> None:
        self.repository.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def wal_between(data: Path, start: int, end: int) -> bytes:
    """The WAL of a stopped cluster, which kept all its segments."""
    files = sorted(path for path in (data / "pg_wal").iterdir() if len(path.name) == 24)
    name = files[0].name
    begin = int(name[8:16], 16) << 32 | int(name[16:], 16) * wal.SEGMENT_SIZE
    whole = b"".join(path.read_bytes() for path in files)
    return whole[start - begin : end - begin]


def work(cluster: PlainCluster, updates: int) -> None:
    for number in range(updates):
        cluster.sql(
            "UPDATE pgbench_accounts SET abalance = abalance + 1"
            f" WHERE hashint4(aid + {number}) % 3 = 0"
        )
    pgbench(cluster.conninfo, "-n", "-c", 2, "-t", 100 * updates)


def take_in(timeline: Timeline, data: bytes, start: int, redo: _native.RedoPool) -> None:
    ingest = TimelineIngest(timeline, redo)
    for at in range(0, len(data), CHUNK):
        ingest.take(start + at, data[at : at + CHUNK])
        if timeline.memory_bytes > OPEN_LAYER_BYTES:
            timeline.freeze()
            timeline.flush()
    timeline.freeze()
    timeline.flush()


class Settling:
    """Compaction, and what it wrote."""

    def __init__(self, loaded: Loaded, redo: _native.RedoPool) -> None:
        self._loaded, self._redo = loaded, redo
        self.written = 0

    def run(self) -> None:
        bounds, depths, timeline = Bounds(), Depths(), self._loaded.timeline
        while True:
            kept = self._loaded.repository.retention.retained(timeline)
            files = depths.figures(timeline, kept)
            job = next_job(files, bounds, at_rest=True, kept=kept)
            if job is not None:
                self.written += rewrite(timeline, job, self._redo, bounds, kept=kept).written
            if not drop_unneeded(timeline, kept) and job is None:
                return


class Reader:
    """Of single pages at random."""

    def __init__(self, timeline: Timeline, keys: list[bytes], redo: _native.RedoPool) -> None:
        self._timeline, self._keys, self._redo = timeline, keys, redo
        self._rng = random.Random(1)

    def times(self, count: int) -> list[float]:
        """Microseconds of each; of whatever layers there are at that moment."""
        head, found = self._timeline.last_record_lsn, []
        for one in self._rng.choices(self._keys, k=count):
            began = time.perf_counter()
            self._timeline.snapshot().read_pages(one, head, self._redo)
            found.append((time.perf_counter() - began) * 1e6)
        return found

    def mean(self) -> float:
        return sum(self.times(READS)) / READS

    def p99(self, count: int) -> float:
        return sorted(self.times(count))[count * 99 // 100]


def run(bench: Bench) -> None:
    updates = UPDATES if bench.settings.store_branches > 100 else 2
    _native.set_store_limits(block_cache_bytes=0)
    try:
        with (
            RedoHelpers(BINDIR, size=2) as helpers,
            bench.loaded(bench.settings.store_scale, **BULK) as cluster,
        ):
            _measure(bench, cluster, helpers.pool, updates)
    finally:
        _native.set_store_limits(block_cache_bytes=BLOCK_CACHE)


def _measure(bench: Bench, cluster: PlainCluster, redo: _native.RedoPool, updates: int) -> None:
    cluster.stop()
    start = end_of_wal(cluster)
    loaded = Loaded.of(bench.place("worked"), cluster.data)
    imported = loaded.bytes
    cluster.start()
    work(cluster, updates)
    keys = _accounts(cluster)
    cluster.stop()
    data = wal_between(cluster.data, start, end_of_wal(cluster))
    take_in(loaded.timeline, data, start, redo)
    flushed = loaded.bytes - imported
    fresh = Loaded.of(bench.place("fresh"), cluster.data)
    bench.row("storage", "WAL beside the data", OURS, "x", [len(data) / fresh.bytes], better="more")
    _throughput(bench, loaded.timeline)
    readers = {
        FRESH: Reader(fresh.timeline, keys, redo),
        WORKED: Reader(loaded.timeline, keys, redo),
    }
    settling = Settling(loaded, redo)
    _read_meanwhile(bench, readers[WORKED], settling)
    taken = bench.take_turns({name: reader.mean for name, reader in readers.items()})
    case = "cold read, settled"
    bench.row("storage", case, FRESH, "µs a page", taken[FRESH])
    bench.row(
        *("storage", case, WORKED, "µs a page", taken[WORKED]),
        target=Target(1 / 0.9, "≥ 0.9 × as fast"),
        relative_to=FRESH,
    )
    amplified = (flushed + settling.written) / len(data)
    bench.row("storage", "write amplification", OURS, "x", [amplified], target=Target(4))
    _space(bench, loaded, fresh, settling)
    loaded.close()
    fresh.close()


def _accounts(cluster: PlainCluster) -> list[bytes]:
    [[number, blocks]] = cluster.sql(
        "SELECT pg_relation_filenode('pgbench_accounts'),"
        " pg_relation_size('pgbench_accounts') / 8192"
    )
    [[database]] = cluster.sql("SELECT oid FROM pg_database WHERE datname = 'postgres'")
    whose = 1663, int(database), int(number), 0
    return [keyspace.rel_block(*whose, block).pack() for block in range(int(blocks))]


def _read_meanwhile(bench: Bench, reader: Reader, settling: Settling) -> None:
    """The 99th of a hundred reads, before compaction begins and while it is at work."""
    quiet = [reader.p99(READS) for _ in range(bench.settings.rounds)]
    thread = threading.Thread(target=settling.run)
    thread.start()
    busy: list[float] = []
    while thread.is_alive() or not busy:
        busy.append(reader.p99(READS))
    thread.join()
    case = "cold read, p99"
    bench.row("storage", case, "before compaction", "µs", quiet)
    bench.row(
        *("storage", case, "while it runs", "µs", busy),
        target=Target(2),
        relative_to="before compaction",
    )


def _space(bench: Bench, loaded: Loaded, fresh: Loaded, settling: Settling) -> None:
    """With no history kept at all."""
    timeline, case = loaded.timeline, "space, no history kept"
    bench.row("storage", "space, all history kept", WORKED, "MB", [loaded.bytes / 1e6])
    loaded.repository.retention.move(timeline, Horizon(Lsn(timeline.disk_consistent_lsn)))
    settling.run()
    bench.row("storage", case, FRESH, "MB", [fresh.bytes / 1e6])
    bench.row(
        *("storage", case, WORKED, "MB", [loaded.bytes / 1e6]),
        target=Target(1.3),
        relative_to=FRESH,
    )


def _throughput(bench: Bench, timeline: Timeline) -> None:
    layers = [
        layer for _, entry, layer in timeline.own_layers() if entry.summary.kind == LayerKind.DELTA
    ]
    size = sum(layer.summary.bytes for layer in layers)
    merges: dict[str, Callable[[], float]] = {
        name: lambda level=level: _merged(bench, timeline, level, size)  # type: ignore[misc]
        for name, level in CODECS.items()
    }
    for name, values in bench.take_turns(merges).items():
        bench.row(
            *("storage", "merges, one core", name, "MB/s of layers", values),
            better="more",
            target=Target(150),
        )


def _merged(bench: Bench, timeline: Timeline, level: int, size: int) -> float:
    """MB of inputs a second of this thread's processor time."""
    layers = [
        layer for _, entry, layer in timeline.own_layers() if entry.summary.kind == LayerKind.DELTA
    ]
    folder = bench.place("merged")
    folder.mkdir()
    merge = _native.Compaction(layers, timeline.snapshot(), None, file_bytes=32 << 20)
    began, number = time.thread_time(), 1
    while True:
        path = folder / str(number)
        if merge.write(path, bytes(16), bytes(16), number, level=level) is None:
            break
        number += 1
    seconds = time.thread_time() - began
    shutil.rmtree(folder)
    return size / 1e6 / max(seconds, 1e-9)
