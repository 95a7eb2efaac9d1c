"""Months of a store in which databases come and go: files, bytes, memory and descriptors stay
within bounds, and every page is what it was.

Time is the retention clock's alone: between two steps hours pass. All databases are branches, of a
template or of each other; they write, are flushed, get checkpoints, are restored and removed; the
store is compacted, collected and opened again as it goes. `--soak-seconds 1800` runs that for half
an hour with 200 databases; without it a few are looked at for some hundred steps.
"""

from __future__ import annotations

import gc
import os
import random
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, Lsn, TimelineId
from pagestore.keyspace import PAGE_SIZE, ValueKind
from pagestore.maintenance.collecting import collect
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import Bounds, next_job
from pagestore.maintenance.rewriting import rewrite
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.horizons import DAY, Quiet, Window
from tests.unit.layers.model import Entry
from tests.unit.timeline.model import ROOT_LSN, image, make_root, put, timeline_id

BLOCKS = 24
MANY, FEW, FEW_STEPS = 200, 12, 600
EPOCH = 7 * DAY
WINDOW = Window(2 * DAY)
MOST_CHECKPOINTS = 3
BOUNDS = Bounds(
    file_bytes=256 << 10,
    run_bytes=4 << 20,
    image_floor=128 << 10,
    rest_floor=32 << 10,
    dead_floor=32 << 10,
    image_bytes=PAGE_SIZE // 2,
)
TEMPLATE = timeline_id(1)
Pages = tuple[bytes, ...]


def block(number: int) -> bytes:
    return keyspace.rel_block(1, 2, 7, 0, number).pack()


def half(rng: random.Random) -> bytes:
    """A page of which a codec leaves half."""
    return rng.randbytes(PAGE_SIZE // 2) + bytes(PAGE_SIZE // 2)


@dataclass
class Database:
    name: TimelineId
    pages: Pages
    checkpoints: dict[int, Pages] = field(default_factory=dict)
    quiet: Quiet = field(default_factory=Quiet)


@dataclass(frozen=True)
class Look:
    files: int
    bytes: int
    memory: int
    descriptors: int
    databases: int


class Months:
    """A store and what should be in it."""

    def __init__(self, folder: Path, most: int, seed: int) -> None:
        self.folder, self.most = folder, most
        self.rng = random.Random(seed)
        self.now = 1_700_000_000.0
        self.repository = self.opened()
        self.depths = Depths()
        self.template: Pages = tuple(half(self.rng) for _ in range(BLOCKS))
        self.databases: list[Database] = []
        size = image(keyspace.rel_size(1, 2, 7, 0), ROOT_LSN, struct.pack("<I", BLOCKS))
        pages = [
            (block(n), ROOT_LSN, ValueKind.IMAGE, 0, page) for n, page in enumerate(self.template)
        ]
        make_root(self.repository, 1, [size, *pages])

    def opened(self) -> Repository:
        return Repository.open(self.folder, max_idle=32, clock=lambda: self.now)

    def step(self) -> None:
        self.now += self.rng.expovariate(1 / 3600)
        if len(self.databases) < self.most and self.rng.random() < 0.3:
            self.create()
        if not self.databases:
            return
        database = self.rng.choice(self.databases)
        draw = self.rng.random()
        if draw < 0.05 + 0.2 * (len(self.databases) >= self.most):
            self.remove(database)
        elif draw < 0.15 and database.checkpoints:
            self.restore(database)
        elif draw < 0.35:
            self.checkpoint(database)
        else:
            self.write(database)
            self.upkeep(self.timeline(database))
            self.collect(database)
        if self.rng.random() < 0.02:
            self.look_at_all()
        if self.rng.random() < 0.004:
            self.restart()

    def timeline(self, database: Database) -> Timeline:
        return self.repository.get(DEFAULT_TENANT, database.name)

    def create(self) -> None:
        source, lsn, pages = TEMPLATE, Lsn(ROOT_LSN), self.template
        if self.databases and self.rng.random() < 0.4:
            other = self.rng.choice(self.databases)
            source, pages = other.name, other.pages
            lsn = self.timeline(other).last_record_lsn
        self.branch(source, lsn, pages)

    def branch(self, source: TimelineId, lsn: int, pages: Pages) -> Database:
        made = Database(TimelineId(self.rng.randbytes(16)), pages)
        self.repository.branch(DEFAULT_TENANT, source, made.name, lsn)
        self.databases.append(made)
        return made

    def remove(self, database: Database) -> None:
        self.repository.delete(DEFAULT_TENANT, database.name)
        self.databases.remove(database)

    def restore(self, database: Database) -> None:
        """The name goes on with a branch; the timeline that it had goes."""
        lsn = self.rng.choice(list(database.checkpoints))
        self.branch(database.name, lsn, database.checkpoints[lsn])
        self.remove(database)

    def checkpoint(self, database: Database) -> None:
        timeline = self.timeline(database)
        database.checkpoints[timeline.last_record_lsn] = database.pages
        while len(database.checkpoints) > MOST_CHECKPOINTS:
            del database.checkpoints[min(database.checkpoints)]
        own = [lsn for lsn in database.checkpoints if lsn > timeline.branch_lsn]
        assert self.repository.retention.tell(timeline, WINDOW, own) == []

    def write(self, database: Database) -> None:
        """Transactions, and most times a file of them."""
        timeline, pages = self.timeline(database), list(database.pages)
        for _ in range(self.rng.randrange(1, 20)):
            lsn = timeline.last_record_lsn + 8
            number = self.rng.randrange(BLOCKS)
            put(timeline, [self.change(pages, number, lsn), self.commit(lsn)], lsn)
        database.pages = tuple(pages)
        if self.rng.random() < 0.8:
            timeline.freeze()
            timeline.flush()

    def change(self, pages: list[bytes], number: int, lsn: int) -> Entry:
        if self.rng.random() < 0.1:
            pages[number] = half(self.rng)
            return block(number), lsn, ValueKind.IMAGE, 0, pages[number]
        at, value = self.rng.randrange(8000), lsn // 8 % 251
        page = bytearray(pages[number])
        page[at] = value
        pages[number] = bytes(page)
        patch = struct.pack("<HHBB", at, 1, 0xFF, value)
        return block(number), lsn, ValueKind.PATCH, 0, patch

    def commit(self, lsn: int) -> Entry:
        self.now += 0.01
        return image(keyspace.commit_time(int(self.now * 1e6)), lsn, struct.pack("<Q", lsn))

    def upkeep(self, timeline: Timeline) -> None:
        for _ in range(40):
            kept = self.repository.retention.retained(timeline)
            files = self.depths.figures(timeline, kept)
            at_rest = self.rng.random() < 0.3
            job = next_job(files, BOUNDS, at_rest=at_rest, kept=kept)
            if job is None:
                return
            rewrite(timeline, job, None, BOUNDS, kept=kept)
        raise AssertionError("compaction comes to no end")

    def collect(self, database: Database) -> None:
        collect(self.repository.retention, self.timeline(database), WINDOW, quiet=database.quiet)

    def look_at_all(self) -> None:
        """As once an hour: those that nobody names, too, which their branches need."""
        for key in self.repository.with_layers():
            timeline = self.repository.kept(*key)
            if timeline.ancestor_behind() is None:
                self.upkeep(timeline)
                collect(self.repository.retention, timeline, WINDOW)

    def restart(self) -> None:
        for database in self.databases:
            timeline = self.timeline(database)
            timeline.freeze()
            timeline.flush()
        self.repository.close()
        self.repository = self.opened()
        for database in self.databases:
            database.quiet = Quiet()

    def check(self, database: Database) -> None:
        timeline = self.timeline(database)
        keys = b"".join(map(block, range(BLOCKS)))
        own = {lsn: p for lsn, p in database.checkpoints.items() if lsn > timeline.branch_lsn}
        for lsn, pages in {**own, timeline.last_record_lsn: database.pages}.items():
            self.repository.retention.check(timeline, lsn)
            assert timeline.snapshot().read_pages(keys, lsn) == b"".join(pages)

    def look(self) -> Look:
        gc.collect()
        sizes = [
            (Path(folder) / name).stat().st_size
            for folder, _, names in os.walk(self.folder)
            for name in names
        ]
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        return Look(len(sizes), sum(sizes), resident, descriptors, len(self.databases))


@pytest.fixture
def soak_seconds(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--soak-seconds"))


def epochs(months: Months, seconds: float) -> Iterator[Look]:
    """A look at each week's end."""
    ends, week, steps = time.monotonic() + seconds, months.now + EPOCH, 0
    while steps < FEW_STEPS or time.monotonic() < ends:
        months.step()
        steps += 1
        if months.now >= week:
            week += EPOCH
            months.look_at_all()
            months.check(months.rng.choice(months.databases))
            yield months.look()


def test_a_store_of_months_stays_within_bounds(tmp_path: Path, soak_seconds: float) -> None:
    most = MANY if soak_seconds else FEW
    seed = int(os.environ.get("PAGESTORE_SOAK_SEED", "1"))
    months = Months(tmp_path / "store", most, seed)
    looks = []
    try:
        for look in epochs(months, soak_seconds):
            looks.append(look)
            # Pages as they are, as window and checkpoints keep them, and what is not gone yet.
            states = 2 + MOST_CHECKPOINTS
            assert look.bytes <= states * most * BLOCKS * PAGE_SIZE + (16 << 20), look
            assert look.files <= 30 * most + 50, look
            assert look.descriptors <= 400, look
        for database in months.databases:
            months.check(database)
    except PagestoreError as error:
        raise AssertionError(f"PAGESTORE_SOAK_SEED={seed}: {error.message}") from error
    finally:
        months.repository.close()
    some = looks[:: max(1, len(looks) // 12)]
    sys.stdout.writelines([f"{len(looks)} weeks\n", *(f"{look}\n" for look in some)])
    assert len(looks) >= 2
    if soak_seconds >= 60:
        _is_flat(looks)


def _is_flat(looks: list[Look]) -> None:
    """The second half is no more than the first was, from where all databases were there. How many
    files are open changes from week to week, below a limit."""
    full = [look for look in looks if look.databases >= MANY * 0.9]
    early, late = full[: len(full) // 2], full[len(full) // 2 :]
    for what in ("files", "bytes", "memory"):
        before = max(getattr(look, what) for look in early)
        assert max(getattr(look, what) for look in late) <= 1.3 * before, what
