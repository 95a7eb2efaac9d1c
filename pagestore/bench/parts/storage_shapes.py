"""Stores of made-up pages: reads at branch depth, beside siblings, and after many flushes.

Pages say nothing, and what changes them are patches, so that no redo helper is timed. A branch of a
chain changes 1% of the pages, each one time. Reads find no block in the cache of blocks; files are
in the system's, so what is counted is the processor's time. *Settled* is after compaction has done
all that it wants at rest.
"""

from __future__ import annotations

import random
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pagestore import _native, keyspace
from pagestore.bench.harness import Bench
from pagestore.bench.report import Target
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.keyspace import PAGE_SIZE, ValueKind
from pagestore.maintenance.ancestry import steps
from pagestore.maintenance.figures import Depths, ancestors
from pagestore.maintenance.policy import Bounds, next_job
from pagestore.maintenance.rewriting import rewrite
from pagestore.services.page_memory import open_layers
from pagestore.timeline import Repository, Timeline

FIRST_LSN = 1 << 24
READS = 1024
SCANNED = 64
"""Pages of one request of a scan."""
SETTLE_EVERY = 100
"""Flushes, between which the compactor looks."""
SIBLING_PAGES = 8
CHANGED = 50
"""Pages between two flushes."""
BLOCK_CACHE = 64 << 20
ALONE = "depth 0"


def key(block: int) -> bytes:
    return keyspace.rel_block(1663, 5, 16384, 0, block).pack()


class Pages:
    """A store with a root whose relation has so many pages."""

    def __init__(self, folder: Path, pages: int) -> None:
        self.repository = Repository.open(folder)
        self.count = pages
        self.rng = random.Random(1)
        self.root = self._root()

    def _root(self) -> Timeline:
        name = TimelineId.generate()
        with self.repository.create_root(DEFAULT_TENANT, name, FIRST_LSN, FIRST_LSN - 8) as root:
            batch = _native.Batch()
            size = keyspace.rel_size(1663, 5, 16384, 0).pack(), struct.pack("<I", self.count)
            batch.put(size[0], FIRST_LSN, ValueKind.IMAGE, 0, size[1])
            root.put(batch)
            for block in range(self.count):
                batch = _native.Batch()
                batch.put(key(block), FIRST_LSN, ValueKind.IMAGE, 0, self.page())
                root.put(batch)
            return root.commit()

    def page(self) -> bytes:
        """As one that was patched, so that no codec finds those that were are of another kind."""
        page = bytearray(self.rng.randbytes(PAGE_SIZE // 2) + bytes(PAGE_SIZE // 2))
        for at, length, _, value in struct.iter_unpack("<HHBB", self.patch()):
            page[at : at + length] = bytes([value]) * length
        return bytes(page)

    def branch(self, parent: Timeline) -> Timeline:
        tenant, child = DEFAULT_TENANT, TimelineId.generate()
        lsn = parent.last_record_lsn
        return self.repository.branch(tenant, parent.timeline_id, child, lsn)

    def change(self, timeline: Timeline, pages: int) -> None:
        """A patch of each of so many pages, in one file."""
        lsn: int = timeline.last_record_lsn
        batch = _native.Batch()
        for block in self.rng.sample(range(self.count), min(pages, self.count)):
            lsn += 8
            batch.put(key(block), lsn, ValueKind.PATCH, 0, self.patch())
        timeline.append(batch, lsn, lsn - 8)
        timeline.freeze()
        timeline.flush()

    def patch(self) -> bytes:
        """About as long as a record is. All change the same bytes, so that a page that was changed
        often costs a codec no more than it did at first."""
        draw = self.rng.randrange
        return b"".join(struct.pack("<HHBB", draw(256), 8, 255, draw(256)) for _ in range(16))

    def settle(self, timeline: Timeline, *, at_rest: bool = True) -> None:
        bounds, depths = Bounds(), Depths()
        above = ancestors(timeline, bounds.deep_branch)
        while True:
            job = next_job(
                depths.figures(timeline),
                bounds,
                at_rest=at_rest,
                ancestors=above,
                steps=steps(timeline),
            )
            if job is None:
                return
            rewrite(timeline, job, None, bounds)

    def random_reads(self, timeline: Timeline) -> Callable[[], float]:
        snapshot, head = timeline.snapshot(), timeline.last_record_lsn

        def read() -> float:
            """Microseconds of this core a page: nothing here waits for a disk."""
            keys = [key(self.rng.randrange(self.count)) for _ in range(READS)]
            began = time.thread_time()
            for one in keys:
                snapshot.read_pages(one, head)
            return (time.thread_time() - began) / READS * 1e6

        return read

    def scan(self, timeline: Timeline) -> Callable[[], float]:
        snapshot, head = timeline.snapshot(), timeline.last_record_lsn
        keys = [
            b"".join(key(b) for b in range(at, min(at + SCANNED, self.count)))
            for at in range(0, self.count, SCANNED)
        ]

        def read() -> float:
            began = time.thread_time()
            for some in keys:
                snapshot.read_pages(some, head)
            return (time.thread_time() - began) / self.count * 1e6

        return read


def run(bench: Bench) -> None:
    _native.set_store_limits(block_cache_bytes=0, open_files=open_layers())
    try:
        with _pages(bench) as pages:
            _depths(bench, pages)
        with _pages(bench) as pages:
            _siblings(bench, pages)
        with _pages(bench) as pages:
            _flushes(bench, pages)
    finally:
        _native.set_store_limits(block_cache_bytes=BLOCK_CACHE)


@contextmanager
def _pages(bench: Bench) -> Iterator[Pages]:
    folder = bench.place("store")
    pages = Pages(folder, bench.settings.store_pages)
    try:
        yield pages
    finally:
        pages.repository.close()
        shutil.rmtree(folder, ignore_errors=True)


def _depths(bench: Bench, pages: Pages) -> None:
    chain, wanted = [pages.root], bench.settings.depths
    for _ in range(max(wanted)):
        chain.append(pages.branch(chain[-1]))
        pages.change(chain[-1], max(1, pages.count // 100))
    at = {ALONE: pages.root, **{f"depth {depth}": chain[depth] for depth in wanted}}
    _compare(bench, pages, at, "before", 1.5)
    for timeline in chain:
        pages.settle(timeline)
    _compare(bench, pages, at, "settled", 1.1)


def _siblings(bench: Bench, pages: Pages) -> None:
    """One branch, read before there are any others and with them all, in turns: the snapshot of
    before stays as it is."""
    one = pages.branch(pages.root)
    pages.change(one, SIBLING_PAGES)
    alone = {"alone": pages.random_reads(one)}, {"alone": pages.scan(one)}
    for _ in range(bench.settings.siblings):
        pages.change(pages.branch(pages.root), SIBLING_PAGES)
    name = f"{bench.settings.siblings} siblings"
    last = pages.branch(pages.root)
    pages.change(last, SIBLING_PAGES)
    _rows(bench, "random read beside siblings", alone[0] | {name: pages.random_reads(last)}, 1.1)
    _rows(bench, "scan beside siblings", alone[1] | {name: pages.scan(last)}, 1.1)


def _flushes(bench: Bench, pages: Pages) -> None:
    """A timeline whose work was flushed again and again, compacted as it goes."""
    one = pages.branch(pages.root)
    pages.change(one, 1)
    pages.settle(one)
    for number in range(bench.settings.flushes):
        pages.change(one, CHANGED)
        if number % SETTLE_EVERY == 0:
            pages.settle(one, at_rest=False)
    pages.settle(one)
    name = f"{bench.settings.flushes} flushes"
    fresh = {"fresh": pages.random_reads(pages.root), name: pages.random_reads(one)}
    _rows(bench, "random read after flushes", fresh, 1.1)
    _rows(
        bench, "scan after flushes", {"fresh": pages.scan(pages.root), name: pages.scan(one)}, 1.1
    )
    bench.row("storage", "files after flushes", name, "files", [float(one.layer_count)])


def _compare(
    bench: Bench, pages: Pages, at: Mapping[str, Timeline], when: str, most: float
) -> None:
    reads = {name: pages.random_reads(timeline) for name, timeline in at.items()}
    _rows(bench, f"random read at depth, {when}", reads, most)
    scans = {name: pages.scan(timeline) for name, timeline in at.items()}
    _rows(bench, f"scan at depth, {when}", scans, most)


def _rows(bench: Bench, case: str, systems: Mapping[str, Callable[[], float]], most: float) -> None:
    """The first is what the others are held against."""
    taken = bench.take_turns(systems)
    first = next(iter(taken))
    bench.row("storage", case, first, "µs CPU a page", taken.pop(first))
    for name, values in taken.items():
        bench.row(
            *("storage", case, name, "µs CPU a page", values),
            target=Target(most),
            relative_to=first,
        )
