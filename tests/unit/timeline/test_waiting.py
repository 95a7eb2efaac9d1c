"""A disk that is slow to sync delays what is written to it, and no read or branch of others.

Every sync is held back by one gate (files of layers) or another (the catalog's transactions);
what must go on meanwhile is done with the gate shut.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from pagestore import keyspace
from pagestore.errors import NotFound
from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.files import Files
from pagestore.timeline import Repository, Timeline

from .model import ROOT_LSN, image, make_root, put, timeline_id

T = TypeVar("T")
KEY = keyspace.rel_size(1, 2, 3, 0)
SECONDS = 20.0


class Gate:
    """Open at first. `entered` once somebody waits at it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.entered = threading.Event()

    def shut(self) -> None:
        self.entered.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def pass_through(self) -> None:
        if not self._open.is_set():
            self.entered.set()
            assert self._open.wait(SECONDS)


class SlowFiles(Files):
    """Layer files and the catalog's transactions are durable once their gates are open."""

    def __init__(self) -> None:
        self.layers = Gate()
        self.catalog = Gate()

    def write(self, path: Path, writer: Callable[[], T]) -> T:
        summary = super().write(path, writer)
        self.layers.pass_through()
        return summary

    def commit(self, transaction: Callable[[], T]) -> T:
        self.catalog.pass_through()
        return super().commit(transaction)


class Store:
    def __init__(self, root: Path) -> None:
        self.files = SlowFiles()
        self.repository = Repository.open(root, max_idle=4, files=self.files)
        self.threads = ThreadPoolExecutor(8)
        self.root = make_root(self.repository, 1, [image(KEY, ROOT_LSN, b"root")])
        for number in range(2, 12):
            self.branch(1, number)

    def branch(self, parent: int, child: int, lsn: int = ROOT_LSN) -> Timeline:
        return self.repository.branch(DEFAULT_TENANT, timeline_id(parent), timeline_id(child), lsn)

    def get(self, number: int) -> Timeline:
        return self.repository.get(DEFAULT_TENANT, timeline_id(number))

    def delete(self, number: int) -> None:
        self.repository.delete(DEFAULT_TENANT, timeline_id(number))

    def held_at(self, gate: Gate, act: Callable[[], T]) -> Future[T]:
        """Begins `act`; returns once it waits at the gate."""
        gate.shut()
        begun = self.threads.submit(act)
        assert gate.entered.wait(SECONDS)
        return begun

    def promptly(self, act: Callable[[], T]) -> T:
        return self.threads.submit(act).result(5)

    def read_all(self) -> None:
        """Every timeline, most of which were dropped and are loaded again."""
        for number in range(2, 12):
            timeline = self.promptly(lambda number=number: self.get(number))
            assert self.promptly(timeline.snapshot).get(KEY.pack(), ROOT_LSN) == b"root"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.files.layers.open()
    made.files.catalog.open()
    made.threads.shutdown()
    made.repository.close()


def flush(timeline: Timeline) -> None:
    timeline.freeze()
    timeline.flush()


def test_while_a_branch_is_synced_all_timelines_are_read(store: Store) -> None:
    held = store.held_at(store.files.catalog, lambda: store.branch(1, 50))
    store.read_all()
    put(store.get(3), [image(KEY, 1010, b"three")], 1010)
    store.files.catalog.open()
    assert held.result(SECONDS).timeline_id == timeline_id(50)


def test_while_a_flush_is_synced_all_timelines_are_read_written_and_branched(store: Store) -> None:
    flushed = store.get(2)
    put(flushed, [image(KEY, 1010, b"two")], 1010)
    held = store.held_at(store.files.layers, lambda: flush(flushed))
    store.read_all()
    assert store.promptly(flushed.snapshot).get(KEY.pack(), 1010) == b"two"
    store.promptly(lambda: put(flushed, [image(KEY, 1020, b"more")], 1020))
    store.promptly(lambda: store.branch(1, 50))
    store.promptly(lambda: store.branch(2, 51, 1015))
    store.promptly(lambda: store.delete(3))
    store.files.layers.open()
    held.result(SECONDS)
    assert flushed.disk_consistent_lsn == 1010
    assert flushed.snapshot().get(KEY.pack(), 1020) == b"more"


def test_while_a_position_is_synced_its_timeline_takes_in_and_is_read(store: Store) -> None:
    timeline = store.get(2)
    put(timeline, [], 1010)  # records that change nothing
    held = store.held_at(store.files.catalog, lambda: flush(timeline))
    store.promptly(lambda: put(timeline, [image(KEY, 1020, b"two")], 1020))
    assert store.promptly(timeline.snapshot).get(KEY.pack(), 1020) == b"two"
    store.files.catalog.open()
    held.result(SECONDS)
    assert timeline.disk_consistent_lsn == 1010
    flush(timeline)
    assert timeline.disk_consistent_lsn == 1020


def test_while_a_parent_is_flushed_to_be_deleted_others_are_branched_and_deleted(
    store: Store,
) -> None:
    parent = store.get(2)
    put(parent, [image(KEY, 1010, b"two")], 1010)
    store.branch(2, 50, 1010)
    held = store.held_at(store.files.layers, lambda: store.delete(2))
    store.read_all()
    store.promptly(lambda: store.branch(1, 51))
    store.promptly(lambda: store.delete(3))
    store.promptly(lambda: store.branch(2, 52, 1005))  # it is not gone yet
    store.files.layers.open()
    held.result(SECONDS)
    with pytest.raises(NotFound):
        store.get(2)
    assert store.get(50).snapshot().get(KEY.pack(), 1010) == b"two"
    assert store.get(52).snapshot().get(KEY.pack(), 1010) == b"root"


def test_while_one_that_is_being_flushed_waits_to_be_deleted_others_are_branched(
    store: Store,
) -> None:
    timeline = store.get(2)
    put(timeline, [image(KEY, 1010, b"two")], 1010)
    flushing = store.held_at(store.files.layers, lambda: flush(timeline))
    deleting = store.threads.submit(store.delete, 2)
    store.promptly(lambda: store.branch(1, 50))
    store.promptly(lambda: store.delete(3))
    assert not deleting.done()
    store.files.layers.open()
    flushing.result(SECONDS)
    deleting.result(SECONDS)
    with pytest.raises(NotFound):
        store.get(2)


def test_two_that_delete_one_timeline_at_once_do_it_once(store: Store) -> None:
    held = store.held_at(store.files.catalog, lambda: store.delete(2))
    second = store.threads.submit(store.delete, 2)
    store.files.catalog.open()
    held.result(SECONDS)
    with pytest.raises(NotFound):
        second.result(SECONDS)
