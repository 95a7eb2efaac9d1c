"""Leases by a clock of their own; durable before they are granted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from pagestore.errors import InvalidInput, NotFound, ResourceExhausted
from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.files import Files
from pagestore.timeline import Repository
from pagestore.timeline.leases import LONGEST_SECONDS, Leases

from .model import ROOT_LSN, make_root, timeline_id

KEY = (DEFAULT_TENANT, timeline_id(1))
OTHER = (DEFAULT_TENANT, timeline_id(2))
T = TypeVar("T")


class CountedFiles(Files):
    """Counts transactions; refuses them when it is told to."""

    def __init__(self) -> None:
        self.commits = 0
        self.full = False

    def commit(self, transaction: Callable[[], T]) -> T:
        if self.full:
            raise ResourceExhausted("STORE_FULL", "the disk says no")
        self.commits += 1
        return super().commit(transaction)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """A store with a root and a branch, and its leases, that can be closed and opened again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.files = CountedFiles()
        self.open()
        make_root(self.repository, 1, [(b"\1" + bytes(17), ROOT_LSN, 1, 0, b"root")])
        self.repository.branch(*KEY, timeline_id(2), ROOT_LSN)

    def open(self) -> None:
        self.repository = Repository.open(self.root, files=self.files, clock=self.clock)

    @property
    def leases(self) -> Leases:
        return self.repository.leases

    def reopen(self) -> None:
        self.repository.close()
        self.open()

    def entries(self) -> list[tuple[int, int]]:
        return [(lsn, end) for *_, lsn, end in self.repository._store.catalog.leases()]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    found = Kept(tmp_path)
    yield found
    found.repository.close()


def test_a_lease_holds_its_lsn_until_it_expires_and_is_never_shortened(kept: Kept) -> None:
    leases = kept.leases
    assert leases.take(KEY, 50, 10) == 1010
    assert leases.take(KEY, 50, 5) == 1010
    assert leases.take(KEY, 40, 30) == 1030
    assert (leases.held(KEY), leases.held(OTHER)) == ([40, 50], [])
    kept.clock.now = 1011
    assert leases.held(KEY) == [40]
    assert leases.take(KEY, 50, 5) == 1016
    leases.forget(KEY)
    assert leases.held(KEY) == []


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_SECONDS + 1])
def test_a_lease_of_no_or_endless_time_is_refused(kept: Kept, seconds: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 86400 seconds"):
        kept.leases.take(KEY, 50, seconds)


def test_a_lease_outlives_the_page_server(kept: Kept) -> None:
    kept.leases.take(KEY, 50, 100)
    kept.leases.take(OTHER, 60, 10)
    kept.reopen()
    assert (kept.leases.held(KEY), kept.leases.held(OTHER)) == ([50], [60])
    assert kept.leases.take(KEY, 50, 10) == 1100
    kept.clock.now = 1050
    kept.reopen()
    assert (kept.leases.held(KEY), kept.leases.held(OTHER)) == ([50], [])
    assert kept.entries() == [(50, 1100)]  # what has ended is gone from the catalog


def test_a_store_opens_on_a_full_disk_with_leases_that_have_ended(kept: Kept) -> None:
    kept.leases.take(KEY, 50, 10)
    kept.clock.now = 1011
    kept.files.full = True
    kept.reopen()
    assert kept.leases.held(KEY) == []
    kept.files.full = False
    kept.reopen()
    assert kept.entries() == []


def test_what_has_ended_goes_with_the_next_lease(kept: Kept) -> None:
    for lsn in range(50, 60):
        kept.leases.take(KEY, lsn, 10)
    kept.clock.now = 1011
    kept.leases.take(KEY, 70, 10)
    assert kept.entries() == [(70, 1021)]


def test_a_lease_that_is_not_durable_is_not_granted(kept: Kept) -> None:
    kept.leases.take(KEY, 50, 10)
    kept.files.full = True
    for lsn in (50, 51):
        with pytest.raises(ResourceExhausted, match="says no"):
            kept.leases.take(KEY, lsn, 100)
    kept.files.full = False
    kept.clock.now = 1011
    assert kept.leases.held(KEY) == []


def test_a_lease_that_ends_no_later_writes_nothing(kept: Kept) -> None:
    kept.leases.take(KEY, 50, 100)
    before = kept.files.commits
    assert kept.leases.take(KEY, 50, 100) == kept.leases.take(KEY, 50, 7) == 1100
    assert kept.files.commits == before


def test_the_leases_of_a_timeline_go_with_it(kept: Kept) -> None:
    kept.leases.take(KEY, 50, 100)
    kept.leases.take(OTHER, 60, 100)
    kept.repository.delete(*KEY)  # hidden: the branch reads through it
    assert kept.leases.held(KEY) == []
    assert kept.entries() == [(60, 1100)]
    with pytest.raises(NotFound):
        kept.leases.take(KEY, 50, 10)
    kept.repository.delete(*OTHER)
    assert kept.entries() == []


def test_leases_are_taken_from_many_threads(kept: Kept) -> None:
    def take(first: int) -> None:
        for lsn in range(first, first + 10):
            kept.leases.take(KEY, lsn, 100)

    threads = [threading.Thread(target=take, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [100 * n + i for n in range(4) for i in range(10)]
    assert kept.leases.held(KEY) == expected
    assert [lsn for lsn, _ in kept.entries()] == expected
