"""What nobody reads any more is left out: by merges, and by passes of images that become one."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.ids import DEFAULT_TENANT, Lsn
from pagestore.keyspace import PAGE_SIZE, ValueKind
from pagestore.layers.files import Files
from pagestore.layers.native import LayerKind
from pagestore.maintenance.collecting import drop_unneeded
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import Bounds, Images, Job, Merge, next_job
from pagestore.maintenance.rewriting import rewrite
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import Horizon
from tests.unit.layers.model import Entry
from tests.unit.timeline.model import ROOT_LSN, image, make_root, put, timeline_id
from tests.unit.timeline.test_crashes import MOMENTS, CrashingFiles, PowerLost

BLOCKS = 64
SMALL = Bounds(
    file_bytes=64 << 10,
    run_bytes=4 << 20,
    image_floor=256 << 10,
    rest_floor=16 << 10,
    dead_floor=16 << 10,
    image_bytes=PAGE_SIZE,
)

FEW_FILES = replace(SMALL, file_bytes=200 << 10)


def block(number: int, relation: int = 7) -> bytes:
    return keyspace.rel_block(1, 2, relation, 0, number).pack()


def size(blocks: int, lsn: int, relation: int = 7) -> Entry:
    return image(keyspace.rel_size(1, 2, relation, 0), lsn, struct.pack("<I", blocks))


def page(lsn: int, number: int) -> bytes:
    """That no codec makes smaller, and that says what it is."""
    return random.Random(lsn << 16 | number).randbytes(PAGE_SIZE)


class Store:
    """A root with a relation of `BLOCKS` blocks, each of them a page that no other has."""

    def __init__(self, root: Path, files: Files | None = None) -> None:
        self.repository = Repository.open(root, files=files)
        if not self.repository.list(None):
            pages = [
                (block(n), ROOT_LSN, ValueKind.IMAGE, 0, page(ROOT_LSN, n)) for n in range(BLOCKS)
            ]
            make_root(self.repository, 1, [size(BLOCKS, ROOT_LSN), *pages])
        self.newest = dict.fromkeys(range(BLOCKS), ROOT_LSN)

    @property
    def timeline(self) -> Timeline:
        return self.repository.get(DEFAULT_TENANT, timeline_id(1))

    def write(self, numbers: list[int]) -> None:
        """A record each, a file of all."""
        lsn = self.timeline.last_record_lsn
        for number in numbers:
            lsn += 1
            entry = block(number), lsn, ValueKind.IMAGE, 0, page(lsn, number)
            put(self.timeline, [entry], lsn)
            self.newest[number] = lsn
        self.timeline.freeze()
        self.timeline.flush()

    def move(self, lsn: int) -> None:
        self.repository.retention.move(self.timeline, Horizon(Lsn(lsn)))

    def collect(self) -> int:
        return len(drop_unneeded(self.timeline, self.repository.retention.retained(self.timeline)))

    def next_job(self, *, at_rest: bool = True) -> Job | None:
        kept = self.repository.retention.retained(self.timeline)
        files = Depths().figures(self.timeline, kept)
        return next_job(files, SMALL, at_rest=at_rest, kept=kept)

    def do(self, job: Job, bounds: Bounds = SMALL) -> None:
        kept = self.repository.retention.retained(self.timeline)
        rewrite(self.timeline, job, None, bounds, kept=kept)

    def settle(self, *, at_rest: bool = True) -> list[Job]:
        """Compaction and collection in turns, until neither has anything to do."""
        done: list[Job] = []
        while True:
            job = self.next_job(at_rest=at_rest)
            if job is not None:
                self.do(job)
                done.append(job)
            if self.collect() == 0 and job is None:
                return done
            assert len(done) < 60, "it comes to no end"

    def check(self) -> None:
        head = self.timeline.last_record_lsn
        keys = [block(number) for number in range(BLOCKS)]
        pages = self.timeline.snapshot().read_pages(b"".join(keys), head)
        for number, lsn in self.newest.items():
            assert pages[number * PAGE_SIZE : (number + 1) * PAGE_SIZE] == page(lsn, number)

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.timeline.directory.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store")
    yield made
    made.repository.close()


def updates(store: Store, times: int, seed: int = 1) -> None:
    rng = random.Random(seed)
    for _ in range(times * 4):
        store.write(rng.choices(range(BLOCKS), k=BLOCKS // 4))
        store.move(store.timeline.last_record_lsn)
        store.settle(at_rest=False)


def test_after_updates_of_ten_times_the_data_space_is_what_it_was(store: Store) -> None:
    fresh = store.bytes
    updates(store, 10)
    busy = store.bytes
    store.settle()
    store.check()
    assert store.bytes <= 1.3 * fresh
    assert busy <= 2.5 * fresh
    assert store.settle() == []


def test_a_checkpoint_keeps_what_it_reads_and_no_more(store: Store) -> None:
    fresh = store.bytes
    updates(store, 3)
    point, then = store.timeline.last_record_lsn, dict(store.newest)
    store.repository.retention.tell(store.timeline, None, [point])
    updates(store, 5, seed=2)
    store.settle()
    # Its own images and what has changed since, each page as a whole; and those of today.
    assert store.bytes <= 3.2 * fresh
    store.check()
    keys = b"".join(block(number) for number in range(BLOCKS))
    pages = store.timeline.snapshot().read_pages(keys, point)
    assert pages == b"".join(page(then[number], number) for number in range(BLOCKS))
    store.repository.retention.tell(store.timeline, None, [])
    store.settle()
    assert store.bytes <= 1.3 * fresh


def test_a_merge_leaves_out_what_nobody_reads(store: Store) -> None:
    for _ in range(4):
        store.write([1, 2, 1])
    deltas = [n for n, e, _ in store.timeline.own_layers() if e.summary.kind == LayerKind.DELTA]
    store.move(store.timeline.last_record_lsn - 1)
    store.do(Merge(tuple(deltas), 1, 0))
    [merged] = [e for _, e, _ in store.timeline.own_layers() if e.summary.kind == LayerKind.DELTA]
    assert merged.summary.entries == 3, "the newest of both, and one that the cutoff reads"
    assert merged.summary.first_lsn == ROOT_LSN + 1, "it stands for all that its inputs did"
    store.check()


def test_what_is_dropped_gives_its_bytes_back(store: Store) -> None:
    """A relation that is no more, beside one that is, in the same files."""
    lsn = store.timeline.last_record_lsn + 1
    gone = [(block(n, 8), lsn, ValueKind.IMAGE, 0, page(lsn, n)) for n in range(BLOCKS)]
    put(store.timeline, [size(BLOCKS, lsn, 8), *gone], lsn)
    store.write(list(range(8)))
    size_8 = keyspace.rel_size(1, 2, 8, 0).pack()
    lsn = store.timeline.last_record_lsn + 1
    put(store.timeline, [(size_8, lsn, ValueKind.TOMBSTONE, 0, b"")], lsn)
    store.write([60])
    before = store.bytes
    store.move(store.timeline.last_record_lsn)
    store.settle()
    assert before - store.bytes >= 0.9 * BLOCKS * PAGE_SIZE
    store.check()
    # With the last of it goes what says that it is no more.
    deltas = [n for n, e, _ in store.timeline.own_layers() if e.summary.kind == LayerKind.DELTA]
    if deltas:
        store.do(Merge(tuple(deltas), 1, 0))
    head = store.timeline.last_record_lsn
    assert store.timeline.snapshot().get(size_8, head) is None
    assert store.timeline.snapshot().chain(size_8, head) == []


def test_of_the_times_of_commits_the_last_before_the_cutoff_stays(store: Store) -> None:
    for second in range(1, 21):
        lsn = store.timeline.last_record_lsn + 1
        time = keyspace.commit_time(second * 1_000_000)
        put(store.timeline, [image(time, lsn, struct.pack("<Q", lsn))], lsn)
        if second % 5 == 0:
            store.write([second])
    store.move(ROOT_LSN + 12)
    deltas = [n for n, e, _ in store.timeline.own_layers() if e.summary.kind == LayerKind.DELTA]
    store.do(Merge(tuple(deltas), 1, 0))
    low, high = keyspace.kind_range(keyspace.Kind.COMMIT_TIME)
    left = store.timeline.snapshot().scan_keys(low, high, store.timeline.last_record_lsn)
    seconds = [keyspace.commit_time_micros(keyspace.Key.unpack(bytes(k))) // 10**6 for k in left]
    assert seconds == list(range(10, 21))


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_power_goes_at_each_step_while_passes_become_one(tmp_path: Path, moment: str) -> None:
    step, crashed = 0, True
    while crashed:
        step += 1
        root = tmp_path / str(step)
        files = CrashingFiles(0, moment)
        store = Store(root, files)
        for begin in (0, 30, 10):
            store.write(list(range(begin, begin + 30)))
            while isinstance(job := store.next_job(), Merge):
                store.do(job, FEW_FILES)
            assert isinstance(job, Images)
            store.do(job, FEW_FILES)
        store.move(store.timeline.last_record_lsn)
        job = store.next_job()
        assert isinstance(job, Images)
        assert job.replaces
        files.left = step
        try:
            store.do(job, FEW_FILES)
            crashed = False
        except PowerLost:
            pass
        store.repository.close()
        after = Store(root)
        after.newest = store.newest
        after.repository.sweep()
        after.check()
        after.settle()
        after.check()
        assert after.bytes <= 1.3 * BLOCKS * PAGE_SIZE
        after.repository.close()
    assert step > 6


def test_what_is_kept_becomes_less_while_passes_become_one(store: Store) -> None:
    """A collection takes an input of it meanwhile, and a checkpoint goes."""
    for begin in (0, 30, 10):
        store.write(list(range(begin, begin + 30)))
        while (job := store.next_job()) is not None and not (
            isinstance(job, Images) and job.replaces
        ):
            store.do(job)
    store.repository.retention.tell(store.timeline, None, [ROOT_LSN + 5])
    store.move(store.timeline.last_record_lsn)
    job = store.next_job()
    assert isinstance(job, Images)
    assert job.replaces
    kept = store.repository.retention.retained(store.timeline)

    def meanwhile(work: object) -> None:
        store.repository.retention.tell(store.timeline, None, [])
        store.write([1])
        store.move(store.timeline.last_record_lsn)
        store.collect()

    rewrite(store.timeline, job, None, SMALL, meanwhile, kept=kept)
    store.check()
    store.settle()
    store.check()
