"""Whatever works in the background on layers that lie in an object store alone: while that is away
it is told so in words that it waits by, and not by the core's own error, which ends the process."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pagestore import keyspace
from pagestore.errors import DataLoss, Unavailable
from pagestore.ids import DEFAULT_TENANT
from pagestore.keyspace import Kind, ValueKind
from pagestore.layers.native import store_errors
from pagestore.maintenance.collecting import collect
from pagestore.maintenance.detaching import detach
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.offsite import Offsite
from pagestore.maintenance.policy import EVERYTHING, next_job
from pagestore.maintenance.rewriting import rewrite
from pagestore.objects.store import ObjectStore
from pagestore.reader import commits
from pagestore.services.page_retention import timeline_sizes
from pagestore.timeline import Repository, Timeline, elsewhere
from pagestore.timeline.horizons import Window
from pagestore.timeline.slots import decoding_files, replication_slots
from tests.unit.maintenance.offsite import evict_all, settle
from tests.unit.maintenance.store import TINY, beginning, key, patch
from tests.unit.objects.faulty import fail, faulty
from tests.unit.timeline.model import ROOT_LSN, image, make_root, put, timeline_id

Job = Callable[[Repository, Timeline], object]


def merge(repository: Repository, timeline: Timeline) -> object:
    job = next_job(Depths().figures(timeline), TINY, at_rest=True, kept=EVERYTHING)
    assert job is not None
    return rewrite(timeline, job, None, TINY)


JOBS: dict[str, Job] = {
    "collect": lambda store, timeline: collect(store.retention, timeline, Window(1), 0),
    "merge": merge,
    "detach": lambda store, timeline: detach(store, timeline, None, threading.Event()),
    "major": lambda store, timeline: timeline.major,
    "open": lambda store, timeline: timeline.open(),
    "slots": lambda store, timeline: replication_slots(timeline.snapshot(), ROOT_LSN),
    "decoding": lambda store, timeline: list(decoding_files(timeline.snapshot(), ROOT_LSN)),
    "last commit": lambda store, timeline: commits.last(timeline.snapshot(), ROOT_LSN),
    "commit by time": lambda store, timeline: commits.by_time(timeline, 10**15),
}


def opened(directory: Path) -> tuple[Repository, Timeline, Callable[[bool], None]]:
    """A branch, and what makes the store with its and its parent's layers go and come back."""
    objects, backend, _ = faulty()
    repository = Repository.open(directory / "store", objects=objects)
    metadata = [
        image(keyspace.SETTINGS, ROOT_LSN, bytes(88)),
        image(keyspace.LAST_COMMIT, ROOT_LSN, struct.pack("<QQ", ROOT_LSN, 9)),
        image(keyspace.commit_time(5), ROOT_LSN, struct.pack("<Q", ROOT_LSN)),
        image(keyspace.Key(Kind.SLOT), ROOT_LSN, b"of no slot"),
    ]
    make_root(repository, 1, sorted([*beginning(), *metadata]))
    branch = repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), ROOT_LSN)
    for number in range(1, 7):
        lsn = ROOT_LSN + 10 * number
        changes = [(key(0), lsn + i, ValueKind.PATCH, 0, patch(i, i)) for i in range(1, 9)]
        put(
            branch,
            [image(keyspace.commit_time(lsn), lsn, struct.pack("<Q", lsn)), *changes],
            lsn + 9,
        )
        branch.freeze()
        branch.flush()
    offsite = Offsite(repository, directory)
    offsite.start()
    settle(offsite)
    evict_all(repository, offsite)
    repository.close()
    repository = Repository.open(directory / "store", objects=objects)

    def away(is_away: bool) -> None:
        backend.before = fail if is_away else lambda number, verb, name: None

    away(True)
    return repository, repository.get(DEFAULT_TENANT, timeline_id(2)), away


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_it_is_told_that_the_store_is_away_and_works_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    monkeypatch.setattr(elsewhere, "AWAY_SECONDS", 0.0)
    repository, timeline, away = opened(tmp_path)
    for _ in range(2):
        with pytest.raises(Unavailable) as told:
            job(repository, timeline)
        assert told.value.reason == "OBJECT_STORE_UNAVAILABLE"
    away(False)
    job(repository, timeline)
    repository.close()


def test_an_object_that_was_cut_off_is_named_and_all_others_are_read(tmp_path: Path) -> None:
    objects = ObjectStore.open(f"file://{tmp_path}/objects", {})
    repository = Repository.open(tmp_path / "store", objects=objects)
    for number in (1, 2):
        make_root(repository, number, sorted(beginning()))
    offsite = Offsite(repository, tmp_path)
    offsite.start()
    settle(offsite)
    evict_all(repository, offsite)
    repository.close()
    layers = tmp_path / "objects/pageserver/layers"
    (path,) = (layers / str(DEFAULT_TENANT) / str(timeline_id(1))).iterdir()
    whole = path.read_bytes()
    for size in (0, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        repository = Repository.open(tmp_path / "store", objects=objects)
        (mine,), (another,) = (
            repository.get(DEFAULT_TENANT, timeline_id(n)).own_files() for n in (1, 2)
        )
        with pytest.raises(DataLoss, match=path.name), store_errors():
            mine.verify()
        assert repository.store.elsewhere is not None
        assert path.name in repository.store.elsewhere.trouble
        another.verify()
        # Put back, it is read without a restart.
        path.write_bytes(whole)
        mine.verify()
        repository.close()


def test_a_size_that_cannot_be_reckoned_now_is_none(tmp_path: Path) -> None:
    repository, timeline, _ = opened(tmp_path)
    found = timeline_sizes(timeline)
    assert (found.logical_bytes, found.shared_bytes > 0) == (0, True)
    repository.close()
