"""What a repository promises of many timelines: cost, isolation, memory, threads."""

from __future__ import annotations

import gc
import os
import threading
import timeit
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore._native import Batch
from pagestore.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutOfRange,
)
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.keyspace import ValueKind
from pagestore.timeline import Repository, Timeline
from tests.unit.layers.model import Entry, batch_of, page

from .model import HIGH, LOW, ROOT_LSN, image, make_root, put, timeline_id

KEY = keyspace.rel_size(1, 2, 3, 0)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    opened = Repository.open(tmp_path, open_layer_bytes=1 << 20, max_idle=16)
    yield opened
    opened.close()


def root(repository: Repository) -> Timeline:
    return make_root(repository, 1, [image(KEY, ROOT_LSN, b"root")])


def branch(repository: Repository, parent: int, child: int, lsn: int) -> Timeline:
    return repository.branch(DEFAULT_TENANT, timeline_id(parent), timeline_id(child), lsn)


def read(timeline: Timeline, lsn: int | None = None) -> bytes | None:
    lsn = timeline.last_record_lsn if lsn is None else lsn
    return timeline.snapshot().get(KEY.pack(), lsn)


def test_where_a_timeline_stands_is_known_without_loading_it(tmp_path: Path) -> None:
    for _ in range(2):
        repository = Repository.open(tmp_path)
        if not repository.list(None):
            root(repository)
            branch(repository, 1, 2, 1000)
            repository.close()
            continue
        key = DEFAULT_TENANT, timeline_id(2)
        assert repository.reached(*key) == 1000
        assert repository.loaded() == []
        put(repository.get(*key), [image(KEY, 1010, b"ten")], 1010)
        assert repository.reached(*key) == 1010
        repository.delete(*key)
        repository.delete(DEFAULT_TENANT, timeline_id(1))
        for number in (1, 2, 3):
            with pytest.raises(NotFound):
                repository.reached(DEFAULT_TENANT, timeline_id(number))
        repository.close()


def test_a_branch_reads_its_parent_up_to_the_branch_lsn_only(repository: Repository) -> None:
    parent = root(repository)
    put(parent, [image(KEY, 1010, b"ten")], 1010)
    child = branch(repository, 1, 2, 1005)
    put(parent, [image(KEY, 1020, b"more")], 1020)  # in the same open layer
    assert read(child, 10**9) == b"root"
    put(child, [image(KEY, 1007, b"mine")], 1007)
    assert (read(parent), read(child)) == (b"more", b"mine")
    assert (read(parent, 1009), read(child, 1006)) == (b"root", b"root")
    parent.freeze()
    parent.flush()
    assert (read(parent), read(child)) == (b"more", b"mine")
    grandchild = branch(repository, 2, 3, 1006)
    assert read(grandchild) == b"root"


def test_a_branch_writes_no_file_and_a_bounded_number_of_bytes(
    repository: Repository, tmp_path: Path
) -> None:
    parent = root(repository)
    put(parent, [image(keyspace.rel_size(1, 2, i, 0), 1010, b"size") for i in range(5000)], 1010)
    parent.freeze()
    parent.flush()
    for number in range(2, 40):
        child = branch(repository, 1 if number % 2 else number - 1, number, 1010)
        assert child.physical_bytes < 1024
        assert not child.directory.exists()


def test_a_deep_chain_of_branches_reads_as_fast_lists_do(repository: Repository) -> None:
    root(repository)
    for number in range(2, 302):
        branch(repository, number - 1, number, ROOT_LSN)
    deepest = repository.get(DEFAULT_TENANT, timeline_id(301))
    assert read(deepest) == b"root"
    assert deepest.earliest_lsn == ROOT_LSN
    assert len(deepest.files()) == 1  # of 300 ancestors, only what holds something


def test_idle_timelines_are_not_kept(repository: Repository, tmp_path: Path) -> None:
    root(repository)
    for number in range(2, 202):
        branch(repository, 1, number, ROOT_LSN)
        read(repository.get(DEFAULT_TENANT, timeline_id(number)))
    gc.collect()
    assert len(repository._loaded) <= 17
    held = repository.get(DEFAULT_TENANT, timeline_id(2))
    for number in range(3, 202):
        repository.get(DEFAULT_TENANT, timeline_id(number))
    assert repository.get(DEFAULT_TENANT, timeline_id(2)) is held
    assert len(repository.list(DEFAULT_TENANT)) == 201
    assert repository.list(TenantId(bytes(16))) == []


def test_what_is_closed_has_no_file_open_though_it_held_something_in_memory(tmp_path: Path) -> None:
    """At once: a collection may be long in coming, and descriptors are few."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            repository = Repository.open(tmp_path / "store")
            if not repository.list(DEFAULT_TENANT):
                make_root(repository, 1, [image(KEY, ROOT_LSN, b"root")])
            timeline = repository.get(DEFAULT_TENANT, timeline_id(1))
            put(timeline, [image(KEY, 1010, b"ten")], 1010)
            assert read(timeline, ROOT_LSN) == b"root"  # of a file
            assert open_below(tmp_path)
            repository.close()
            del repository, timeline
            assert open_below(tmp_path) == []
    finally:
        gc.enable()


def open_below(directory: Path) -> list[str]:
    names = (os.path.realpath(path) for path in Path("/proc/self/fd").iterdir())
    return [name for name in names if name.startswith(f"{directory}/")]


def test_the_least_recently_used_timeline_is_dropped_first(repository: Repository) -> None:
    root(repository)
    used = weakref.ref(branch(repository, 1, 2, ROOT_LSN))
    unused = weakref.ref(branch(repository, 1, 3, ROOT_LSN))
    for number in range(4, 100):
        branch(repository, 1, number, ROOT_LSN)
        repository.get(DEFAULT_TENANT, timeline_id(2))
    assert (used() is not None, unused()) == (True, None)


def test_the_earliest_lsn_costs_the_same_at_any_depth(repository: Repository) -> None:
    root(repository)
    for number in range(2, 1002):
        branch(repository, number - 1, number, ROOT_LSN)
    shallow = repository.get(DEFAULT_TENANT, timeline_id(2))
    deepest = repository.get(DEFAULT_TENANT, timeline_id(1001))

    def microseconds(timeline: Timeline) -> float:
        return min(timeit.repeat(lambda: timeline.earliest_lsn, number=100, repeat=20)) * 1e4

    assert deepest.earliest_lsn == ROOT_LSN
    assert microseconds(deepest) < 5 * microseconds(shallow)


def test_pressure_names_the_largest_until_memory_is_within_its_bound(
    repository: Repository,
) -> None:
    root(repository)
    timelines = [branch(repository, 1, number, ROOT_LSN) for number in range(2, 6)]
    for number, timeline in enumerate(timelines):
        entries: list[Entry] = [
            (keyspace.rel_block(1, 2, 3, 0, i).pack(), 1010, ValueKind.IMAGE, 0, page(number))
            for i in range(20 * (number + 1))
        ]
        put(timeline, entries, 1010)
    assert repository.memory_bytes > 1 << 20
    flushed = []
    while (victim := repository.pressure()) is not None:
        assert victim.freeze()
        victim.flush()
        flushed.append(victim)
    assert flushed[0] is timelines[-1]
    assert repository.memory_bytes <= 1 << 20
    assert set(repository.in_memory()) == set(timelines) - set(flushed)
    for timeline in timelines:
        timeline.freeze()
        timeline.flush()
    assert repository.memory_bytes == 0
    assert repository.in_memory() == []


def test_a_record_that_takes_several_batches_is_not_cut_by_a_flush(repository: Repository) -> None:
    timeline = root(repository)
    timeline.append(batch_of([image(KEY, 1050, b"half")]), ROOT_LSN, 900)
    assert not timeline.can_shrink
    assert not timeline.freeze()
    timeline.flush()
    assert timeline.disk_consistent_lsn == ROOT_LSN
    assert read(timeline) == b"root"
    timeline.append(batch_of([image(KEY, 1050, b"whole")]), 1050, 1000)
    assert read(timeline) == b"whole"
    assert timeline.freeze()
    timeline.flush()
    assert (timeline.disk_consistent_lsn, timeline.prev_record_lsn) == (1050, 1000)


def test_what_can_be_read_does_not_change(repository: Repository) -> None:
    timeline = root(repository)
    put(timeline, [image(KEY, 1010, b"ten")], 1020)
    for entries, last in ([image(KEY, 1020, b"late")], 1030), ([], 1019):
        with pytest.raises(InvalidInput, match="too late"):
            put(timeline, entries, last)
    assert (read(timeline), timeline.last_record_lsn) == (b"ten", 1020)


def test_an_import_is_all_or_nothing(repository: Repository, tmp_path: Path) -> None:
    other = TimelineId.generate()
    builder = repository.create_root(DEFAULT_TENANT, other, 500, 400)
    with pytest.raises(AlreadyExists):
        repository.create_root(DEFAULT_TENANT, other, 500, 400)
    blocks = [
        (keyspace.rel_block(1, 2, 3, 0, i).pack(), 500, ValueKind.ZERO, 0, b"") for i in range(9)
    ]
    builder.put(batch_of(blocks))
    builder.put(batch_of([image(keyspace.rel_size(1, 2, 3, 0), 500, b"\x09\0\0\0")]))  # goes back
    with pytest.raises(NotFound):
        repository.get(DEFAULT_TENANT, other)
    builder.abort()
    assert not (tmp_path / str(DEFAULT_TENANT) / str(other)).exists()
    with pytest.raises(FailedPrecondition):
        builder.commit()
    with repository.create_root(DEFAULT_TENANT, other, 500, 400) as again:
        again.put(batch_of(blocks))
        again.put(batch_of([image(keyspace.rel_size(1, 2, 3, 0), 500, b"\x09\0\0\0")]))
        timeline = again.commit()
    assert (timeline.layer_count, timeline.last_record_lsn, timeline.prev_record_lsn) == (
        2,
        500,
        400,
    )
    assert len(timeline.snapshot().scan(LOW, HIGH, 500)) == 10
    wrong = repository.create_root(DEFAULT_TENANT, TimelineId.generate(), 500, 400)
    wrong.put(batch_of([image(KEY, 499, b"before")]))
    with pytest.raises(InvalidInput):
        wrong.commit()
    wrong.abort()


def test_bad_arguments_are_refused_by_name(repository: Repository) -> None:
    root(repository)
    branch(repository, 1, 2, ROOT_LSN)
    with pytest.raises(AlreadyExists):
        branch(repository, 2, 1, ROOT_LSN)
    with pytest.raises(OutOfRange, match="ingested up to"):
        branch(repository, 1, 3, ROOT_LSN + 1)
    with pytest.raises(OutOfRange, match="begins at 0/3E8; 0/3E7 is older"):
        branch(repository, 1, 3, ROOT_LSN - 1)
    with pytest.raises(NotFound):
        branch(repository, 77, 3, ROOT_LSN)
    with pytest.raises(InvalidInput):
        branch(repository, 1, 0, ROOT_LSN)
    with pytest.raises(NotFound):
        repository.get(TenantId(bytes(16)), timeline_id(1))
    with pytest.raises(NotFound):
        repository.delete(DEFAULT_TENANT, timeline_id(77))


def test_a_reader_keeps_what_a_delete_removes(repository: Repository, tmp_path: Path) -> None:
    timeline = root(repository)
    directory = timeline.directory
    snapshot = timeline.snapshot()
    repository.delete(DEFAULT_TENANT, timeline_id(1))
    assert snapshot.get(KEY.pack(), ROOT_LSN) == b"root"
    with pytest.raises(NotFound):
        timeline.append(Batch(), 2000, 1990)
    del snapshot, timeline
    gc.collect()
    assert not directory.exists()


def test_readers_writers_and_flushers_do_not_disturb_each_other(repository: Repository) -> None:
    """One thread appends, one flushes, one branches; readers see whole batches always."""
    timeline = root(repository)
    keys = [keyspace.rel_size(1, 2, rel, 0) for rel in range(10, 14)]
    put(timeline, [image(key, 1001, b"%08d" % 1001) for key in keys], 1001)
    stop, failures, rounds = threading.Event(), [], Counter[int]()

    def guard(act) -> None:  # type: ignore[no-untyped-def]
        try:
            while not stop.is_set():
                act()
                rounds[threading.get_ident()] += 1
        except BaseException as error:
            failures.append(error)
            stop.set()

    def flush() -> None:
        timeline.freeze()
        timeline.flush()

    def check(reader: Timeline) -> None:
        lsn = reader.last_record_lsn
        found = [reader.snapshot().get(key.pack(), lsn) for key in keys]
        assert found == [b"%08d" % lsn] * 4

    numbers = iter(range(2, 10**6))

    def branch_and_read() -> None:
        child = branch(repository, 1, next(numbers), timeline.last_record_lsn)
        check(child)
        repository.delete(DEFAULT_TENANT, child.timeline_id)

    threads = [
        threading.Thread(target=guard, args=(act,))
        for act in (flush, lambda: check(timeline), branch_and_read)
    ]
    for thread in threads:
        thread.start()
    lsn = 1001
    while (len(rounds) < 3 or min(rounds.values()) < 40) and not stop.is_set():
        lsn += 1
        put(timeline, [image(key, lsn, b"%08d" % lsn) for key in keys], lsn)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert timeline.layer_count > 1
