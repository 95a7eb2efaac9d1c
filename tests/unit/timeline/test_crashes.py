"""The power goes at each step by which something becomes durable.

A story is told: a root is imported, written, flushed, branched; the branch is written and
flushed; the root's layers are replaced by one; both are deleted. Every file step and every
catalog transaction of it is a place to crash: before it, after it, or in the midst of a file's
bytes; and a rename whose directory was not synced yet may be there or not. Afterwards the store
must open, every timeline must stand where it was last durable or later, read as it was then, and
nothing else may be on disk but in lost+found.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from pagestore import keyspace
from pagestore.errors import NotFound
from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.files import Files, layer_name
from pagestore.timeline import Repository
from tests.unit.layers.model import batch_of

from .model import ROOT_LSN, ModelTimeline, check, compact, image, make_root, put, timeline_id

T = TypeVar("T")
MOMENTS = ("before", "after", "torn", "unsynced")


class PowerLost(BaseException):
    """Not an Exception: no clean-up code runs after it, as none would."""


class CrashingFiles(Files):
    """Real steps; at the n-th, at some moment of it, the power goes."""

    def __init__(self, step: int, moment: str) -> None:
        self.left = step
        self.moment = moment
        self.renamed: list[tuple[Path, Path]] = []  # and not yet synced

    def _step(self, act: Callable[[], T], tear: Callable[[], None] | None = None) -> T:
        self.left -= 1
        if self.left != 0:
            return act()
        if self.moment == "before":
            raise PowerLost
        act()
        if self.moment == "torn" and tear is not None:
            tear()
        if self.moment == "unsynced":
            for source, target in self.renamed:
                target.rename(source)
        raise PowerLost

    def write(self, path: Path, writer: Callable[[], T]) -> T:
        def tear() -> None:
            if path.exists():  # else there was nothing to write
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

        return self._step(lambda: super(CrashingFiles, self).write(path, writer), tear)

    def rename(self, source: Path, target: Path) -> None:
        def act() -> None:
            super(CrashingFiles, self).rename(source, target)
            self.renamed.append((source, target))

        self._step(act)

    def sync_directory(self, path: Path) -> None:
        def act() -> None:
            super(CrashingFiles, self).sync_directory(path)
            self.renamed = [pair for pair in self.renamed if pair[1].parent != path]

        self._step(act)

    def remove(self, path: Path) -> None:
        self._step(lambda: super(CrashingFiles, self).remove(path))

    def commit(self, transaction: Callable[[], T]) -> T:
        return self._step(lambda: super(CrashingFiles, self).commit(transaction))


class Story:
    """Tells it, and notes in the model what has been acknowledged and what might be durable."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.timelines: dict[int, ModelTimeline] = {}  # acknowledged
        self.begun: dict[int, ModelTimeline] = {}  # and those that might be there
        self.deleting: set[int] = set()

    def tell(self) -> None:
        root = self.add(1, ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN))
        entries = [image(keyspace.rel_size(1, 2, 1, 0), ROOT_LSN, b"root")]
        root.own.put(entries)
        builder = self.repository.create_root(DEFAULT_TENANT, timeline_id(1), ROOT_LSN, 900)
        builder.put(batch_of(entries))
        builder.commit()
        self.timelines[1] = root
        self.write(1)
        self.flush(1)
        self.write(1)
        child = self.add(2, ModelTimeline(root, root.last - 5, root.last - 5, root.last - 5))
        self.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), child.branch_lsn)
        self.timelines[2] = child
        self.write(2)
        self.flush(1)
        self.flush(2)
        self.compact(1)
        self.write(2)
        self.delete(1)
        self.flush(2)
        self.delete(2)

    def add(self, number: int, model: ModelTimeline) -> ModelTimeline:
        self.begun[number] = model
        return model

    def write(self, number: int) -> None:
        model = self.timelines[number]
        entries = [
            image(keyspace.rel_size(1, 2, rel, 0), model.last + rel, b"%d" % model.last)
            for rel in range(1, 9)
        ]
        put(self.repository.get(DEFAULT_TENANT, timeline_id(number)), entries, model.last + 10)
        model.own.put(entries)
        model.last += 10

    def flush(self, number: int) -> None:
        timeline = self.repository.get(DEFAULT_TENANT, timeline_id(number))
        timeline.freeze()
        timeline.flush()
        self.timelines[number].durable = self.timelines[number].last

    def compact(self, number: int) -> None:
        timeline = self.repository.get(DEFAULT_TENANT, timeline_id(number))
        compact(timeline, self.timelines[number])

    def delete(self, number: int) -> None:
        self.deleting.add(number)
        self.repository.delete(DEFAULT_TENANT, timeline_id(number))
        self.timelines[number].hidden = True


def check_after_crash(root: Path, story: Story) -> None:
    repository = Repository.open(root)
    repository.sweep()
    try:
        for number, model in story.begun.items():
            try:
                timeline = repository.get(DEFAULT_TENANT, timeline_id(number))
            except NotFound:
                assert number not in story.timelines or number in story.deleting
                continue
            assert not model.hidden
            assert model.durable <= timeline.last_record_lsn <= model.last
            assert timeline.last_record_lsn == timeline.disk_consistent_lsn
            if timeline.ancestor_behind() is None:
                check(timeline.snapshot(), model, timeline.last_record_lsn)
        catalog = repository._store.catalog
        named = {
            root / str(tenant) / str(timeline) / layer_name(number, layer.summary.kind)
            for tenant, timeline, _ in catalog.timelines()
            for number, layer in catalog.layers(tenant, timeline)
        }
        assert {path for path in root.glob("*/*/*") if path.is_file()} == named
    finally:
        repository.close()


def run(root: Path, step: int, moment: str) -> bool:
    """False when the story ended before the crash."""
    files = CrashingFiles(step, moment)
    repository = Repository.open(root, files=files)
    story = Story(repository)
    try:
        story.tell()
    except PowerLost:
        crashed = True
    else:
        crashed = False
    repository.close()
    check_after_crash(root, story)
    return crashed


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_store_opens_after_a_crash_at_every_step(tmp_path: Path, moment: str) -> None:
    step = 1
    while run(tmp_path / str(step), step, moment):
        step += 1
    assert step > 25


def test_what_a_crashed_flush_left_is_flushed_again(tmp_path: Path) -> None:
    """A failed step that is not a crash: the layer stays readable and flush can be repeated."""
    for step in range(1, 30):
        files = FailingFiles(step)
        with_repository = Repository.open(tmp_path / str(step), files=files)
        model = ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
        entries = [image(keyspace.rel_size(1, 2, 1, 0), ROOT_LSN, b"root")]
        model.own.put(entries)
        timeline = make_root(with_repository, 1, entries)
        model.last += 10
        later = [(keyspace.rel_block(1, 2, 2, 0, 0).pack(), ROOT_LSN + 3, 2, 0, b"a record")]
        model.own.put(later)
        put(timeline, later, model.last)
        files.armed = True
        timeline.freeze()
        failed = False
        try:
            timeline.flush()
        except OSError:
            failed = True
        check(timeline.snapshot(), model, model.last)
        timeline.flush()
        assert timeline.disk_consistent_lsn == model.last
        check(timeline.snapshot(), model, model.last)
        assert timeline.memory_bytes == 0
        with_repository.close()
        reopened = Repository.open(tmp_path / str(step))
        again = reopened.get(DEFAULT_TENANT, timeline_id(1))
        assert again.last_record_lsn == model.last
        check(again.snapshot(), model, model.last)
        reopened.close()
        if not failed:
            assert step == 5  # the transaction had been made
            return


class FailingFiles(CrashingFiles):
    """The n-th step after arming fails, once, after it was done or half done."""

    def __init__(self, step: int) -> None:
        super().__init__(step, "after")
        self.armed = False

    def _step(self, act: Callable[[], T], tear: Callable[[], None] | None = None) -> T:
        if not self.armed:
            return act()
        self.left -= 1
        result = act()
        if self.left == 0:
            raise OSError("the disk says no")
        return result
