"""Layers in the place of others, as a compaction makes them: all at once, and nobody notices."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pagestore import keyspace, lost_found
from pagestore.errors import InvalidInput, NotFound
from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.files import Files, layer_name
from pagestore.timeline import Repository, Timeline

from .model import ROOT_LSN, ModelTimeline, check, compact, image, make_root, put, timeline_id
from .test_crashes import FailingFiles


class Pair:
    """A root with five layers, and a branch in the midst of them that has two of its own."""

    def __init__(self, root: Path, files: Files | None = None) -> None:
        self.repository = Repository.open(root, files=files)
        first = [image(keyspace.rel_size(1, 2, 1, 0), ROOT_LSN, b"root")]
        self.root = make_root(self.repository, 1, first)
        self.root_model = ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
        self.root_model.own.put(first)
        for _ in range(5):
            self.write(self.root, self.root_model)
        lsn = ROOT_LSN + 25
        self.child = self.repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), lsn)
        self.child_model = ModelTimeline(self.root_model, lsn, lsn, lsn)
        for _ in range(2):
            self.write(self.child, self.child_model)

    def write(self, timeline: Timeline, model: ModelTimeline) -> None:
        entries = [
            image(keyspace.rel_size(1, 2, rel, 0), model.last + rel, b"%d" % model.last)
            for rel in range(1, 9)
        ]
        put(timeline, entries, model.last + 10)
        model.own.put(entries)
        model.last += 10
        timeline.freeze()
        timeline.flush()

    def check(self) -> None:
        for timeline, model in ((self.root, self.root_model), (self.child, self.child_model)):
            for lsn in range(ROOT_LSN, model.last + 1, 3):
                check(timeline.snapshot(), model, lsn)


def names(timeline: Timeline) -> list[str]:
    return sorted(path.name for path in timeline.directory.iterdir())


def test_readers_read_the_same_before_and_after(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.check()
    compact(pair.root, pair.root_model)
    assert names(pair.root) == [layer_name(1, 2), layer_name(7, 1)]
    assert pair.root.layer_count == 2
    pair.check()
    compact(pair.child, pair.child_model)
    assert names(pair.child) == [layer_name(3, 1)]
    pair.write(pair.root, pair.root_model)
    pair.write(pair.child, pair.child_model)
    pair.check()
    pair.repository.close()
    reopened = Repository.open(tmp_path)
    pair.root, pair.child = (reopened.get(DEFAULT_TENANT, timeline_id(n)) for n in (1, 2))
    pair.check()
    assert [layer.level for _, layer in reopened._store.catalog.layers(*key(pair.root))] == [
        0,
        1,
        0,
    ]
    reopened.close()


def key(timeline: Timeline) -> tuple:
    return timeline.tenant_id, timeline.timeline_id


def test_files_stay_while_an_older_snapshot_reads_them(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    older = pair.child.snapshot()
    compact(pair.root, pair.root_model)
    seen = [layer_name(1, 2), *(layer_name(number, 1) for number in (2, 3, 4))]
    assert names(pair.root) == [*seen, layer_name(7, 1)]
    for lsn in range(ROOT_LSN, pair.child_model.last + 1, 3):
        check(older, pair.child_model, lsn)
    del older
    assert names(pair.root) == [layer_name(1, 2), layer_name(7, 1)]
    pair.check()
    pair.repository.close()


def test_what_was_replaced_and_still_read_goes_after_a_crash(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "store")
    older = pair.child.snapshot()
    compact(pair.root, pair.root_model)
    stray = pair.root.directory / layer_name(99, 1)
    stray.write_bytes(b"a stranger")
    shutil.copytree(tmp_path / "store", tmp_path / "crashed")  # with the files that are read
    assert len(names(pair.root)) == 6
    del older
    pair.repository.close()
    pair.repository = Repository.open(tmp_path / "crashed")
    pair.root, pair.child = (pair.repository.get(DEFAULT_TENANT, timeline_id(n)) for n in (1, 2))
    pair.repository.sweep()
    assert names(pair.root) == [layer_name(1, 2), layer_name(7, 1)]
    assert [item.path.read_bytes() for item in lost_found.found(tmp_path / "crashed")] == [
        b"a stranger"
    ]
    pair.check()
    pair.repository.close()


def test_names_of_what_was_replaced_do_not_pile_up(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    catalog = pair.repository._store.catalog
    for _ in range(4):
        pair.write(pair.root, pair.root_model)
        before = len(names(pair.root)) - 1  # all but the image
        compact(pair.root, pair.root_model)
        assert len(catalog.replaced(*key(pair.root))) == before
    assert before == 2
    pair.repository.close()


def test_space_is_counted_as_it_is(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    before = pair.root.physical_bytes
    compact(pair.root, pair.root_model)
    assert pair.root.physical_bytes < before
    record = pair.repository._store.catalog.timeline(*key(pair.root))
    assert record is not None
    files = sum(path.stat().st_size for path in pair.root.directory.iterdir())
    assert (record.layer_bytes, record.layer_count) == (files, 2)
    pair.repository.close()


def test_a_layer_that_is_not_the_timelines_is_refused(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with pytest.raises(InvalidInput, match="no layer 77"):
        pair.root.replace_layers([2, 77], [])
    assert pair.root.layer_count == 6
    pair.check()
    pair.repository.delete(DEFAULT_TENANT, timeline_id(2))
    with pytest.raises(NotFound):
        pair.child.replace_layers([1], [])
    pair.repository.close()


def test_a_transaction_that_seemed_to_fail_counts(tmp_path: Path) -> None:
    files = FailingFiles(5)  # the last step of a compaction
    pair = Pair(tmp_path, files)
    files.armed = True
    compact(pair.root, pair.root_model)
    assert files.left <= 0
    files.armed = False
    assert names(pair.root) == [layer_name(1, 2), layer_name(7, 1)]
    pair.check()
    pair.repository.close()


def test_numbers_are_given_once(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    taken = [pair.root.reserve_number() for _ in range(3)]
    assert taken == [7, 8, 9]
    pair.write(pair.root, pair.root_model)
    assert names(pair.root)[-1] == layer_name(10, 1)
    pair.repository.close()
