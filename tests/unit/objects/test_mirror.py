"""An LMDB file is in its journal, whatever goes wrong, and its transactions never wait for that."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pagestore.errors import DataLoss, Unavailable
from pagestore.lmdbfile import changes
from pagestore.lmdbfile.changes import Batch
from pagestore.lmdbfile.whole import Change
from pagestore.objects import journal
from pagestore.objects.claims import claim
from pagestore.objects.mirror import Mirror
from pagestore.objects.store import ObjectStore
from pagestore.timeline.catalog import Catalog
from pagestore.timeline.entries import seal
from tests.unit.lmdbfile.test_changes import summed
from tests.unit.objects.faulty import fail, faulty
from tests.unit.objects.test_journal import Entries, calm, disturb, read


def put(catalog: Catalog, key: bytes, value: bytes) -> None:
    catalog.update(lambda writer: writer.put(key, seal(key, value)))


def entries(catalog: Catalog) -> Entries:
    with catalog.whole() as (_, found):
        return {(table, key): value for table, key, value in found if value is not None}


def is_even(store: ObjectStore, catalog: Catalog) -> bool:
    kept, whole = read(store)
    with catalog.whole() as (said, _):
        return kept == entries(catalog) and whole == said


def finish(mirror: Mirror) -> None:
    while mirror.step():
        pass


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(tmp_path / "catalog.lmdb")
    yield opened
    opened.close()


def test_it_has_what_the_file_has_and_says_how_far_it_is_behind(
    store: ObjectStore, catalog: Catalog, tmp_path: Path
) -> None:
    now, woken = [100.0], list[int]()
    mirror = Mirror(catalog, lambda: woken.append(1), clock=lambda: now[0])
    mirror.begin(claim(store, "part", tmp_path), "journal")
    finish(mirror)
    assert is_even(store, catalog)
    assert (mirror.behind, mirror.behind_seconds) == (0, 0.0)
    woken.clear()
    put(catalog, b"a", b"1")
    assert woken
    assert mirror.behind > 0
    now[0] += 7
    assert mirror.behind_seconds == 7.0
    finish(mirror)
    assert (mirror.behind, mirror.behind_seconds) == (0, 0.0)
    assert is_even(store, catalog)


def test_a_file_that_is_as_it_was_left_is_not_written_anew(
    store: ObjectStore, catalog: Catalog, tmp_path: Path
) -> None:
    for round_ in range(3):
        mirror = Mirror(catalog)
        mirror.begin(claim(store, "part", tmp_path), "journal")
        finish(mirror)
        put(catalog, b"%d" % round_, b"x")
        finish(mirror)
        assert is_even(store, catalog)
    assert sum(found.name.endswith("snapshot") for found in store.list("part/journal/")) == 1


def test_what_was_killed_before_it_went_up_goes_up_at_the_next_start(
    store: ObjectStore, catalog: Catalog, tmp_path: Path
) -> None:
    mirror = Mirror(catalog)
    mirror.begin(claim(store, "part", tmp_path), "journal")
    finish(mirror)
    put(catalog, b"a", b"1")
    mirror = Mirror(catalog)
    mirror.begin(claim(store, "part", tmp_path), "journal")
    finish(mirror)
    assert is_even(store, catalog)


def test_an_older_copy_is_refused_unless_it_will_do(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "catalog.lmdb"
    catalog = Catalog(path)
    put(catalog, b"a", b"1")
    catalog.close()
    older = path.read_bytes()
    catalog = Catalog(path)
    put(catalog, b"b", b"2")
    mirror = Mirror(catalog)
    mirror.begin(claim(store, "part", tmp_path), "journal")
    finish(mirror)
    catalog.close()
    path.write_bytes(older)
    path.with_name("catalog.lmdb-generation").unlink()
    catalog = Catalog(path)
    mirror = Mirror(catalog)
    with pytest.raises(DataLoss) as told:
        mirror.begin(claim(store, "part", tmp_path), "journal")
    assert told.value.reason == "OBJECT_STORE_AHEAD"
    mirror.begin(claim(store, "part", tmp_path), "journal", accept_older=True)
    finish(mirror)
    assert is_even(store, catalog)
    catalog.close()


def test_a_store_that_is_away_for_long_costs_bounded_memory(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "GREATEST_BYTES", 5000)
    store, backend, _ = faulty()
    mirror = Mirror(catalog)
    mirror._changes._greatest = 5000
    mirror.begin(claim(store, "part", tmp_path), "journal")
    finish(mirror)
    backend.before = fail
    for number in range(200):
        put(catalog, b"%d" % number, bytes(100))
        if number % 20 == 0:
            with pytest.raises(Unavailable):
                mirror.step()
        assert mirror.behind < 15000
    assert mirror.behind_seconds > 0
    calm(backend)
    finish(mirror)
    assert is_even(store, catalog)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_it_gets_even(catalog: Catalog, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store, backend, _ = faulty()
    mirror = Mirror(catalog)
    mirror.begin(claim(store, "part", tmp_path), "journal")
    for number in range(60):
        put(catalog, b"%d" % dice.randrange(9), b"%d" % number)
        disturb(backend, dice)
        with contextlib.suppress(Unavailable):
            mirror.step()
        calm(backend)
        if dice.random() < 0.2:
            finish(mirror)
            assert is_even(store, catalog)
    finish(mirror)
    assert is_even(store, catalog)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_request_the_next_process_gets_even(
    catalog: Catalog, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request of a life with snapshots, changes and removals, in turn; one store for all."""
    monkeypatch.setattr(journal, "GREATEST_REPLAY", 3)
    store, backend, _ = faulty()

    def live() -> None:
        mirror = Mirror(catalog)
        mirror.begin(claim(store, "part", tmp_path), "journal")
        for number in range(6):
            put(catalog, b"%d" % (number % 4), b"%d" % backend.requests)
            finish(mirror)

    live()
    for number in itertools.count(1):
        last = backend.requests + number

        def kill(at: int, verb: str, name: str, last: int = last) -> None:
            if at == last:
                raise Killed

        setattr(backend, when, kill)
        with contextlib.suppress(Killed):
            live()
        reached = backend.requests >= last
        calm(backend)
        kept, whole = read(store)
        assert whole.total == summed(kept)
        if not reached:
            break
    assert number > 30
    live()
    assert is_even(store, catalog)


def test_what_may_not_go_up_yet_waits_and_so_does_all_behind_it(
    store: ObjectStore, catalog: Catalog, tmp_path: Path
) -> None:
    class Gate:
        open = True

        def batches(self, batches: list[Batch]) -> int:
            held = [n for n, batch in enumerate(batches) if self._holds(batch)]
            return held[0] if held else len(batches)

        def entries(self, entries: Iterable[Change]) -> Iterator[Change]:
            return iter(entries)

        def _holds(self, batch: Batch) -> bool:
            return not self.open and any(change.key == b"held" for change in batch.changes)

    gate = Gate()
    mirror = Mirror(catalog, ready=gate)
    mirror.begin(claim(store, "part", tmp_path), "journal")
    finish(mirror)
    gate.open = False
    put(catalog, b"before", b"1")
    put(catalog, b"held", b"2")
    put(catalog, b"behind", b"3")
    finish(mirror)
    assert {key for _, key in read(store)[0]} >= {b"before"}
    assert not {key for _, key in read(store)[0]} & {b"held", b"behind"}
    assert mirror.behind > 0
    gate.open = True
    finish(mirror)
    assert is_even(store, catalog)
