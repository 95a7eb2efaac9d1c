"""A writer that stands still at any request, while another one takes its place.

The old writer's life is run once for each of its requests, and stands still just before, or just
behind, that request. Meanwhile successors live their whole life, as many as it takes for the
old one's claim to be forgotten. Then the old one goes on as if nothing had been. What was said to
count must be in the journal at the end, nothing else may have been done, and every layer that the
journal names must be there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition
from pagestore.lmdbfile.whole import Change
from pagestore.objects import journal
from pagestore.objects.claims import Claim, claim
from pagestore.objects.journal import Journal
from pagestore.objects.store import ObjectStore
from tests.unit.objects.faulty import Memory, faulty
from tests.unit.objects.test_journal import Entries, File, read

ROUNDS = 6


class Part:
    """One life of a writer: each round puts a layer up, names it in place of the last one, and
    deletes that as soon as this counts."""

    def __init__(self, store: ObjectStore, directory: Path) -> None:
        self.store = store
        self.claim = claim(store, "part", directory, take_over=True)
        self.journal = Journal(self.claim, "journal")
        self.said: list[bytes] = []
        self.counted = 0
        self.file = self._found()

    def _found(self) -> File:
        file = File()
        if self.journal.whole is not None:
            file.entries, file.whole = read(self.store)
        else:
            self.journal.snapshot(file.whole, file.all())
        return file

    def live(self, rounds: int = ROUNDS) -> None:
        for _ in range(rounds):
            layer = b"layers/%d-%d" % (len(self.said), self.claim.generation)
            self.said.append(layer)
            self.store.create(layer.decode(), b"pages")
            key = b"of %d" % self.claim.generation
            before = self.file.entries.get((b"", key))
            self.journal.append([self.file.change(Change(b"", key, layer))])
            self.counted = len(self.said)
            if before is not None:
                self.store.delete([before.decode()])
            if self.journal.due:
                self.journal.snapshot(self.file.whole, self.file.all())
                self.journal.prune()


def stalled(directory: Path, number: int, when: str, successors: int) -> tuple[bool, list[str]]:
    """The old one stands still at its request `number`.

    Returns:
        Whether it came that far; what was found wrong.
    """
    store, backend, _ = faulty()
    old = Part(store, directory)
    old.live(2)
    at, reached = backend.requests + number, False
    lives: list[Part] = []

    def still(request: int, verb: str, name: str) -> None:
        nonlocal reached
        if request == at:
            reached = True
            backend.before = backend.after = lambda number, verb, name: None
            for _ in range(successors):
                lives.append(Part(store, directory))
                lives[-1].live()

    setattr(backend, when, still)
    with contextlib.suppress(FailedPrecondition):
        old.live()
    backend.before = backend.after = lambda number, verb, name: None
    entries, _ = read(store)
    wrong = harmed(backend, entries, [old, *lives])
    return reached, wrong


def harmed(backend: Memory, entries: Entries, lives: list[Part]) -> list[str]:
    named = {layer.decode() for layer in entries.values()}
    wrong = [f"{layer} is named, and is gone" for layer in named - set(backend.objects)]
    # What did not count may be there too.
    return wrong + [
        f"what counted of generation {life.claim.generation} is not there"
        for life in lives
        if not named.intersection(map(bytes.decode, life.said[life.counted - 1 :]))
    ]


def all_stalls(tmp_path: Path, judge: Callable[[list[str]], object]) -> int:
    """At each request, before and behind it, with one successor and with three."""
    runs = 0
    for successors in (1, 3):
        for when in ("before", "after"):
            for number in range(1, 500):
                directory = tmp_path / f"{successors}-{when}-{number}"
                directory.mkdir()
                reached, wrong = stalled(directory, number, when, successors)
                judge(wrong)
                runs += 1
                if not reached:
                    break
    return runs


@pytest.fixture(autouse=True)
def short_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "GREATEST_REPLAY", 3)


def test_a_writer_that_stands_still_anywhere_does_no_harm(tmp_path: Path) -> None:
    def judge(wrong: list[str]) -> None:
        assert not wrong

    assert all_stalls(tmp_path, judge) > 100


def found(tmp_path: Path) -> set[str]:
    seen: set[str] = set()
    all_stalls(tmp_path, seen.update)
    return seen


def test_a_writer_that_does_not_look_after_its_create_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "_look", lambda self: None)
    assert any("gone" in wrong for wrong in found(tmp_path))


def test_a_writer_that_looks_before_its_create_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = Journal._be_sure

    def looks_first(self: Journal) -> None:
        self.claim.check()
        sure(self)

    monkeypatch.setattr(Journal, "_look", lambda self: None)
    monkeypatch.setattr(Journal, "_be_sure", looks_first)
    assert any("gone" in wrong for wrong in found(tmp_path))


def test_a_boundary_that_was_forgotten_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Claim, "boundary", lambda self: (0, 0))
    # Who has been forgotten misses his own claim, too.
    monkeypatch.setattr(Claim, "check_store", lambda self: None)
    assert any("gone" in wrong for wrong in found(tmp_path))
