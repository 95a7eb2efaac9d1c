"""A damaged layer is made again of WAL: of commits, whose every value is known."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.client.walservice import WalPiece
from pagestore.errors import DataLoss, FailedPrecondition, OutOfRange, PagestoreError
from pagestore.ids import DEFAULT_TENANT, Lsn, TimelineId
from pagestore.ingest import rebuilding
from pagestore.ingest.apply import TimelineIngest
from pagestore.ingest.rebuilding import Rebuilder
from pagestore.ingest.waiters import TimelineKey
from pagestore.ingest.wal_copies import ArchivedCopy
from pagestore.keyspace import ValueKind
from pagestore.lost_found import DIRECTORY
from pagestore.maintenance.policy import Merge
from pagestore.objects import archived_wal
from pagestore.objects.archived_wal import Archived
from pagestore.pg_control_values import pack_settings
from pagestore.pgformat import wal
from pagestore.pgformat.versions import OLDEST
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import Horizon
from pagestore.timeline.scrub import Scrubbed
from pagestore.v1 import page_pb2
from tests.unit.layers.model import batch_of
from tests.unit.maintenance.store import TINY, settle
from tests.unit.objects.faulty import faulty
from tests.unit.timeline.test_crashes import MOMENTS, PowerLost

from ..maintenance.test_repairing import Repairing
from .fakes import START

KEY: TimelineKey = (DEFAULT_TENANT, TimelineId(b"r" * 16))
LOW, HIGH = keyspace.Key(0).pack(), keyspace.Key(keyspace.Kind.SLRU_PAGE).pack()
PAST_PAGES = keyspace.Key(keyspace.Kind.REL_BLOCK).pack()
XACT, NOOP = (1, 0x00), (0, 0x20)


class Log:
    """Commits, with a record between that leaves no value."""

    def __init__(self) -> None:
        self.data, self.ends, self._prev = b"", [START], START - 64

    def write(self, first_xid: int, count: int) -> int:
        for xid in range(first_xid, first_xid + count):
            self._put(NOOP, 0, bytes(40))
            self._put(XACT, xid, struct.pack("<q", xid * 1_000_000))
        self._put(NOOP, 0, bytes(40))
        return self.ends[-1]

    def _put(self, kind: tuple[int, int], xid: int, main: bytes) -> None:
        body = wal.record_body(main)
        record = wal.record_bytes(*kind, xid, self._prev, body)
        piece, self._prev, end = wal.lay_out(self.ends[-1], record, system_id=1)
        self.data += piece
        self.ends.append(end)

    def part(self, start: int, end: int) -> bytes:
        return self.data[start - START : end - START]


class Copy:
    """Somebody who has the log, or what is left of it."""

    name = "a copy"

    def __init__(self, log: Log, oldest: int = START) -> None:
        self.log, self.oldest = log, oldest
        self.flipped = -1
        self.reads: list[tuple[int, int]] = []

    def starts(self, key: TimelineKey) -> Iterable[int]:
        return ()

    async def read(self, key: TimelineKey, start: int, end: int) -> AsyncGenerator[WalPiece, None]:
        self.reads.append((start, end))
        if start < self.oldest:
            raise OutOfRange("LSN_TOO_OLD", "It was dropped.")
        data = bytearray(self.log.part(start, end))
        if start <= self.flipped < end:
            data[self.flipped - start] ^= 1
        for at in range(0, len(data), 700):
            yield WalPiece(start + at, bytes(data[at : at + 700]))


class Store:
    """A timeline of three layers and a root, flushed one by one."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, Log()
        self.repository = Repository.open(root)
        settings = page_pb2.ControlSettings(catalog_version=OLDEST.catalog_version)
        entries = [(keyspace.SETTINGS.pack(), START, ValueKind.IMAGE, 0, pack_settings(settings))]
        with self.repository.create_root(*KEY, START, START - 64) as made:
            made.put(batch_of(entries))
            made.commit()
        for part in range(3):
            at = self.log.ends[-1]
            end = self.log.write(1000 + 200 * part, 150)
            TimelineIngest(self.timeline, None).take(at, self.log.part(at, end))
            self.timeline.freeze()
            self.timeline.flush()
        self.before = self.read()
        self.chains_before = self.chains()

    @property
    def timeline(self) -> Timeline:
        return self.repository.get(*KEY)

    def reopen(self, **options: object) -> None:
        self.repository.close()
        self.repository = Repository.open(self.root, **options)  # type: ignore[arg-type]

    def layers(self) -> list[Path]:
        return sorted(self.timeline.directory.glob("*.delta"))

    def read(self) -> list[object]:
        """All that there is, at some LSNs; but not which transactions had begun by a commit, which
        an ingest that begins anew only knows rounded up."""
        snapshot = self.timeline.snapshot()
        lsns = (*self.log.ends[::60], self.log.ends[-1])
        pages = b"".join(snapshot.scan_keys(HIGH, PAST_PAGES, lsns[-1]))
        assert pages
        begun = keyspace.Key(keyspace.Kind.LAST_COMMIT).pack()
        return [
            [
                [(key, value[:8] if key == begun else value) for key, value in found]
                for found in (snapshot.scan(LOW, HIGH, lsn) for lsn in lsns)
            ],
            [snapshot.read_pages(pages, lsn) for lsn in lsns[1:]],
        ]

    def chains(self) -> dict[bytes, object]:
        snapshot, last = self.timeline.snapshot(), self.log.ends[-1]
        keys = snapshot.scan_keys(LOW, b"\xff" * 18, last)
        return {key: snapshot.chain(key, last) for key in keys}

    def damaged(self) -> list[Scrubbed]:
        return [item for item in self.repository.scrub(None) if item.failure is not None]

    def rebuild(self, *copies: object) -> list[Scrubbed]:
        rebuilder = Rebuilder(self.repository, copies, lambda _: None)  # type: ignore[arg-type]
        return [asyncio.run(rebuilder.rebuild(item)) for item in self.damaged()]

    def refused(self, *copies: object) -> PagestoreError:
        with pytest.raises(PagestoreError) as caught:
            self.rebuild(*copies)
        return caught.value

    def aside(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((self.root / DIRECTORY).glob("*"))]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store")
    yield made
    made.repository.close()


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("damaging", [flip, Path.unlink])
@pytest.mark.parametrize("number", range(3))
def test_what_it_had_is_read_again_without_a_restart(
    store: Store, number: int, damaging: Callable[[Path], object]
) -> None:
    store.reopen()
    path = store.layers()[number]
    damaging(path)
    damaged = [path.read_bytes()] if path.exists() else []
    with pytest.raises(Exception, match=path.name):
        store.read()
    copy = Copy(store.log)
    (found,) = store.rebuild(copy)
    assert (found.path, found.source) == (str(path), "WAL of a copy")
    assert store.aside() == damaged
    assert not path.exists()
    assert store.read() == store.before
    assert store.chains() == store.chains_before, "nothing stands there twice"
    assert store.damaged() == []
    (start, end), *_ = copy.reads
    assert start >= store.log.ends[300 * number], "no more than there is of the layer"
    assert end <= store.log.ends[-1]
    store.reopen()
    store.repository.sweep()
    assert store.read() == store.before
    assert store.aside() == damaged


def test_all_of_them_at_once(store: Store) -> None:
    store.reopen()
    for path in store.layers():
        flip(path)
    assert len(store.rebuild(Copy(store.log))) == 3
    assert store.read() == store.before


def test_of_wal_in_the_object_store(store: Store) -> None:
    """It begins where the journal leads: behind the last value before the layer."""
    objects, _, _ = faulty()
    begin, end = store.log.ends[600 + 2], store.log.ends[-1]
    for first, last in ((begin, begin + 3000), (begin + 3000, end)):
        piece = Archived(first, store.log.part(first, last), 1, 1)
        archived_wal.put(objects, bytes(16), KEY, 1, piece)
    flip(store.layers()[2])
    store.reopen()
    (found,) = store.rebuild(Copy(store.log, oldest=2**60), ArchivedCopy(objects, bytes(16)))
    assert found.source == "WAL of the object store"
    assert store.read() == store.before


def test_wal_that_is_gone_or_damaged_makes_no_layer(store: Store) -> None:
    store.reopen()
    path = store.layers()[1]
    flip(path)
    damaged = path.read_bytes()
    wrong = Copy(store.log)
    wrong.flipped = store.log.ends[400] + 30
    for copies in ([], [Copy(store.log, oldest=2**60)], [wrong]):
        error = store.refused(*copies)
        assert (error.reason, type(error)) == ("WAL_INCOMPLETE", DataLoss)
    assert path.read_bytes() == damaged
    assert len(store.layers()) == 3
    assert store.aside() == []
    # One after the other is asked.
    assert len(store.rebuild(wrong, Copy(store.log))) == 1


def test_wal_of_another_history_is_refused(store: Store) -> None:
    """As long, and whole, but with a commit less."""
    store.reopen()
    path = store.layers()[0]
    flip(path)
    other = Log()
    other.write(1000, 140)
    other._put(NOOP, 0, bytes(8))
    other.write(1141, 9)
    assert len(other.data) == store.log.ends[301] - START
    error = store.refused(Copy(other))
    assert (error.reason, "is not what" in error.message) == ("LAYER_CORRUPT", True)
    assert path.exists()
    assert len(store.layers()) == 3


def test_wal_that_ends_early_is_refused(store: Store) -> None:
    merge(store)
    store.reopen()
    path = store.layers()[0]
    flip(path)
    short = Copy(store.log)
    short.log = Log()
    short.log.data = store.log.data[:-3000]
    assert "only up to" in store.refused(short).message
    assert path.exists()


def test_a_whole_file_is_left_alone(store: Store) -> None:
    path = store.layers()[0]
    raw = path.read_bytes()
    flip(path)
    store.reopen()
    (found,) = store.damaged()
    path.write_bytes(raw)
    rebuilder = Rebuilder(store.repository, [Copy(store.log)], lambda _: None)
    with pytest.raises(PagestoreError) as caught:
        asyncio.run(rebuilder.rebuild(found))
    assert caught.value.reason == "LAYER_IN_USE"
    assert path.read_bytes() == raw
    assert len(store.layers()) == 3


def test_history_that_is_not_kept_is_not_made_again(store: Store) -> None:
    flip(store.layers()[1])
    store.reopen()
    store.repository.retention.move(store.timeline, Horizon(Lsn(store.log.ends[-1])))
    error = store.refused(Copy(store.log))
    assert isinstance(error, FailedPrecondition)
    assert "history is kept" in error.message


def merge(store: Store) -> None:
    """All layers, as the compactor would: in files so small that there are several."""
    bounds = replace(TINY, file_bytes=8000, image_floor=1 << 40)
    assert any(isinstance(job, Merge) for job in settle(store.timeline, bounds))


def test_of_a_merged_run_all_files_are_made_anew(store: Store) -> None:
    merge(store)
    store.reopen()
    files = store.layers()
    assert len(files) > 2
    assert store.read() == store.before
    flip(files[1])
    files[2].unlink()
    damaged = files[1].read_bytes()
    store.reopen()
    found, *more = store.damaged()
    assert len(more) == 1
    rebuilder = Rebuilder(store.repository, [Copy(store.log)], lambda _: None)
    assert asyncio.run(rebuilder.rebuild(found)).path == str(files[1])
    assert store.read() == store.before
    assert store.damaged() == []
    assert store.aside() == [damaged]
    store.reopen()
    store.repository.sweep()
    assert len(store.layers()) == 1
    assert store.read() == store.before


def test_more_wal_than_there_is_room_for_is_not_taken_in(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "MOST_WAL_BYTES", 1000)
    flip(store.layers()[1])
    store.reopen()
    assert store.refused(Copy(store.log)).reason == "NOT_REBUILDABLE"


def test_images_are_not_made_again(store: Store) -> None:
    (image,) = store.timeline.directory.glob("*.image")
    flip(image)
    store.reopen()
    error = store.refused(Copy(store.log))
    assert (error.reason, "may be gone" in error.message) == ("NOT_REBUILDABLE", True)


def killed_at(root: Path, step: int, moment: str) -> bool:
    store = Store(root)
    path = store.layers()[1]
    flip(path)
    damaged = path.read_bytes()
    store.reopen(files=Repairing(step, moment))
    try:
        store.rebuild(Copy(store.log))
        crashed = False
    except PowerLost:
        crashed = True
    store.reopen()
    store.repository.sweep()
    store.rebuild(Copy(store.log))  # or it was
    assert store.read() == store.before
    assert store.damaged() == []
    assert len(store.layers()) == 3
    assert damaged in store.aside()
    assert not list(root.glob("*/*/*.tmp"))
    store.repository.close()
    return crashed


@pytest.mark.parametrize("moment", MOMENTS)
def test_one_that_was_killed_is_finished_by_the_next(tmp_path: Path, moment: str) -> None:
    step = 1
    while killed_at(tmp_path / str(step), step, moment):
        step += 1
    assert step > 5
