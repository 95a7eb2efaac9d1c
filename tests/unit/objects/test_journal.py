"""A journal has what an LMDB file has, after any failure, and says how far it leads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore.errors import DataLoss, Unavailable
from pagestore.lmdbfile.changes import Batch
from pagestore.lmdbfile.whole import Change, Tally, Whole
from pagestore.objects import journal
from pagestore.objects.claims import Claim, claim
from pagestore.objects.journal import Journal, Replay
from pagestore.objects.store import ObjectStore
from tests.unit.objects.faulty import Memory, fail, faulty

STORE_ID = bytes(range(16))
Entries = dict[tuple[bytes, bytes], bytes]


class File:
    """An LMDB file's entries and what it says of the whole."""

    def __init__(self) -> None:
        self.entries: Entries = {}
        self.whole = Whole(1, STORE_ID, 0)
        self.history = {1: dict(self.entries)}

    def change(self, *changes: Change) -> Batch:
        tally = Tally()
        for table, key, value in changes:
            if value is None:
                tally.delete(table, key, self.entries.pop((table, key), None))
            else:
                tally.put(table, key, self.entries.get((table, key)), value)
                self.entries[table, key] = value
        self.whole = tally.after(self.whole, self.whole.transaction + 1)
        self.history[self.whole.transaction] = dict(self.entries)
        return Batch(self.whole, tally.changes)

    def all(self) -> Iterator[Change]:
        return iter([Change(*name, value) for name, value in self.entries.items()])

    def lot(self, dice: random.Random) -> Batch:
        key = b"k%d" % dice.randrange(20)
        value = None if dice.random() < 0.3 else dice.randbytes(dice.randrange(300))
        return self.change(Change(b"t", key, value))


def read(store: ObjectStore) -> tuple[Entries, Whole]:
    replay = Replay(store, "part", "journal")
    entries: Entries = {}
    for changes in replay:
        for table, key, value in changes:
            if value is None:
                entries.pop((table, key), None)
            else:
                entries[table, key] = value
    assert replay.whole is not None
    return entries, replay.whole


@pytest.fixture
def mine(store: ObjectStore, tmp_path: Path) -> Claim:
    return claim(store, "part", tmp_path)


def test_a_journal_has_what_the_file_has(any_store: ObjectStore, tmp_path: Path) -> None:
    store = any_store
    file, kept = File(), Journal(claim(store, "part", tmp_path), "journal")
    assert kept.whole is None
    assert kept.due
    file.change(Change(b"", b"a", b"1"), Change(b"table", b"", b""))
    kept.snapshot(file.whole, file.all())
    kept.append([file.change(Change(b"", b"b", b"2")), file.change(Change(b"", b"a", None))])
    assert read(store) == (file.entries, file.whole)
    assert kept.whole == file.whole


def test_an_empty_file_has_a_journal(store: ObjectStore, mine: Claim) -> None:
    file, kept = File(), Journal(mine, "journal")
    kept.snapshot(file.whole, file.all())
    assert read(store) == ({}, file.whole)


def test_a_new_generation_goes_on_and_writes_nothing_at_its_start(
    store: ObjectStore, mine: Claim, tmp_path: Path
) -> None:
    file, kept = File(), Journal(mine, "journal")
    kept.snapshot(file.whole, file.all())
    kept.append([file.change(Change(b"", b"a", b"1"))])
    before = list(store.list("part/journal/"))
    for _ in range(3):
        kept = Journal(claim(store, "part", tmp_path), "journal")
        assert kept.whole == file.whole
        assert not kept.due
    assert list(store.list("part/journal/")) == before
    kept.append([file.change(Change(b"", b"b", b"2"))])
    assert read(store) == (file.entries, file.whole)


def test_a_snapshot_goes_up_in_parts_of_bounded_size(
    store: ObjectStore, mine: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PART_BYTES", 1000)
    file, kept = File(), Journal(mine, "journal")
    file.change(*(Change(b"t", b"%d" % key, random.randbytes(100)) for key in range(100)))
    kept.snapshot(file.whole, file.all())
    sizes = [found.size for found in store.list("part/journal/")]
    assert len(sizes) >= 10
    assert max(sizes) < 1500
    assert read(store) == (file.entries, file.whole)


def test_a_snapshot_that_was_not_ended_counts_for_nothing(
    store: ObjectStore, mine: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PART_BYTES", 100)
    file, kept = File(), Journal(mine, "journal")
    file.change(*(Change(b"t", b"%d" % key, bytes(50)) for key in range(10)))
    kept.snapshot(file.whole, file.all())
    counted = dict(file.entries), file.whole

    def ends() -> Iterator[Change]:
        yield from list(file.all())[:6]
        raise KeyboardInterrupt

    file.change(Change(b"t", b"new", b"x"))
    with pytest.raises(KeyboardInterrupt):
        kept.snapshot(file.whole, ends())
    assert read(store) == counted
    kept = Journal(claim(store, "part", tmp_path), "journal")
    assert kept.whole == counted[1]
    kept.snapshot(file.whole, file.all())
    assert read(store) == (file.entries, file.whole)


def test_what_a_journal_has_is_passed_over(store: ObjectStore, mine: Claim) -> None:
    file, kept = File(), Journal(mine, "journal")
    kept.snapshot(file.whole, file.all())
    batch = file.change(Change(b"", b"a", b"1"))
    kept.append([batch])
    count = len(list(store.list("part/journal/")))
    kept.append([batch])
    kept.append([])
    assert len(list(store.list("part/journal/"))) == count


def test_replay_is_bounded_by_snapshots_and_what_was_before_them_goes(
    any_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "GREATEST_REPLAY", 5)
    store, dice, file = any_store, random.Random(1), File()
    kept = Journal(claim(store, "part", tmp_path), "journal")
    most = 0
    for _ in range(20):
        if kept.due:
            kept.snapshot(file.whole, file.all())
            kept.prune()
        kept.append([file.lot(dice)])
        most = max(most, len(list(store.list("part/journal/"))))
        assert read(store) == (file.entries, file.whole)
    assert most <= 6
    assert len(list(store.list("part/boundary/"))) == 1


@pytest.mark.parametrize("seed", range(3))
def test_whatever_request_fails_or_loses_its_answer_what_counted_is_there(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "GREATEST_REPLAY", 4)
    monkeypatch.setattr(journal, "PART_BYTES", 300)
    dice = random.Random(seed)
    store, backend, _ = faulty()
    file, counted = File(), 0
    kept = Journal(claim(store, "part", tmp_path), "journal")
    batches: list[Batch] = []
    for _ in range(150):
        disturb(backend, dice)
        try:
            if kept.due:
                kept.snapshot(file.whole, file.all())
                counted, batches = file.whole.transaction, []
                kept.prune()
            batches.append(file.lot(dice))
            kept.append(batches)
            counted, batches = file.whole.transaction, []
        except Unavailable:
            calm(backend)
            if dice.random() < 0.3:
                # Killed: what waited is lost, the file has it.
                kept, batches = Journal(claim(store, "part", tmp_path), "journal"), []
                if kept.whole != file.whole:
                    kept.snapshot(file.whole, file.all())
                counted = file.whole.transaction
        calm(backend)
        if counted:
            entries, whole = read(store)
            assert whole.transaction >= counted
            assert entries == file.history[whole.transaction]


def disturb(backend: Memory, dice: random.Random) -> None:
    begin = backend.requests + dice.randrange(1, 12)
    end = begin + dice.choice([1, 3, 30])

    def cut(number: int, verb: str, name: str) -> None:
        if begin <= number < end:
            fail(number, verb, name)

    setattr(backend, dice.choice(["before", "after"]), cut)


def calm(backend: Memory) -> None:
    backend.before = backend.after = lambda number, verb, name: None


def test_a_damaged_object_is_named_and_nothing_of_it_read(
    store: ObjectStore, mine: Claim, tmp_path: Path
) -> None:
    file, kept = File(), Journal(mine, "journal")
    kept.snapshot(file.whole, file.all())
    kept.append([file.change(Change(b"", b"a", b"1"))])
    (path,) = (tmp_path / "objects/part/journal").rglob("*.changes")
    whole = path.read_bytes()
    for at in range(len(whole)):
        torn = bytearray(whole)
        torn[at] ^= 0x40
        path.write_bytes(torn)
        with pytest.raises(DataLoss) as told:
            read(store)
        assert told.value.reason == "OBJECT_CORRUPT"
        assert path.name in told.value.message
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataLoss):
            read(store)


def test_an_object_under_anothers_name_is_told(
    store: ObjectStore, mine: Claim, tmp_path: Path
) -> None:
    file, kept = File(), Journal(mine, "journal")
    kept.snapshot(file.whole, file.all())
    for key in (b"a", b"b"):
        kept.append([file.change(Change(b"", key, b"1"))])
    first, second = sorted((tmp_path / "objects/part/journal").rglob("*.changes"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataLoss, match="another object than its name"):
        read(store)


def test_a_journal_with_a_gap_is_refused(store: ObjectStore, mine: Claim, tmp_path: Path) -> None:
    file, kept = File(), Journal(mine, "journal")
    kept.snapshot(file.whole, file.all())
    for key in (b"a", b"b", b"c"):
        kept.append([file.change(Change(b"", key, b"1"))])
    _, second, _ = sorted((tmp_path / "objects/part/journal").rglob("*.changes"))
    second.unlink()
    with pytest.raises(DataLoss) as told:
        read(store)
    assert told.value.reason == "JOURNAL_INCOMPLETE"
