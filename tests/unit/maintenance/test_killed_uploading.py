"""A store that is kept in an object store, killed at each write, sync, rename, commit and PUT.

Of what was said to be flushed nothing is lost here, of what was said to be journaled nothing on an
empty machine; and what a killed upload has left goes, or is what the next one would have made.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pagestore import keyspace
from pagestore.errors import NotFound
from pagestore.ids import DEFAULT_TENANT
from pagestore.maintenance.offsite import ABANDONED_SECONDS, Offsite
from pagestore.timeline import Repository
from pagestore.timeline.elsewhere import object_name
from pagestore.timeline.entries import LAYER, LayerEntry, Place
from tests.unit.maintenance.offsite import layer_objects, places, recover, settle
from tests.unit.maintenance.test_offsite import Kept
from tests.unit.objects import killed
from tests.unit.timeline.model import ROOT_LSN, ModelTimeline, check, image, timeline_id

WRITTEN = 10
"""LSNs that one `Kept.write` takes."""


class Killed(Kept):
    """Tells what it has been told, and is killed at a step."""

    def __init__(self, directory: Path, steps: killed.Steps) -> None:
        self.steps, self.place = steps, directory
        super().__init__(directory / "data", killed.store_of(directory, steps))

    def open(self) -> None:
        files = killed.NumberedFiles(self.steps)
        self.repository = Repository.open(
            self.directory / "store", objects=self.objects, files=files
        )
        self.offsite = Offsite(self.repository, self.directory)
        self.offsite.on_durable = lambda key: killed.say(
            self.place, "journaled", key[1].raw[-1], self.offsite.durable_lsn(key)
        )
        self.offsite.start()

    def write(self, number: int, *, flush: bool = True) -> None:
        super().write(number, flush=flush)
        killed.say(self.place, "flushed", number, self.models[number].durable)


def story(directory: Path, steps: killed.Steps) -> None:
    kept = Killed(directory, steps)
    kept.write(1)
    settle(kept.offsite)
    kept.branch(1, 2)
    kept.write(2)
    kept.write(1)
    settle(kept.offsite)
    kept.compact(1)
    settle(kept.offsite)
    kept.repository.delete(DEFAULT_TENANT, timeline_id(2))
    killed.say(directory, "deleted", 2, 0)
    settle(kept.offsite)


def as_written(parent: ModelTimeline | None, branch_lsn: int, last: int) -> ModelTimeline:
    """What a timeline has, wherever it stands."""
    model = ModelTimeline(parent, branch_lsn, branch_lsn, last)
    if parent is None:
        model.own.put([image(keyspace.rel_size(1, 2, 1, 0), ROOT_LSN, b"root")])
    for begin in range(branch_lsn, last, WRITTEN):
        model.own.put(
            [image(keyspace.rel_size(1, 2, r, 0), begin + r, b"%d" % begin) for r in range(1, 9)]
        )
    return model


def check_reads(repository: Repository, at_least: dict[int, int]) -> None:
    root: ModelTimeline | None = None
    for number in (1, 2):
        try:
            found = repository.get(DEFAULT_TENANT, timeline_id(number))
        except NotFound:
            assert at_least.get(number, 0) == 0
            continue
        last = found.last_record_lsn
        assert last >= at_least.get(number, 0)
        model = as_written(root, found.branch_lsn, last)
        root = root or model
        for lsn in range(found.branch_lsn, last + 1, 3):
            check(found.snapshot(), model, lsn)


def promised(directory: Path, what: str) -> dict[int, int]:
    """The highest LSN of each timeline that somebody was told of; 0 once it is to go."""
    found: dict[int, int] = {}
    for verb, number, lsn in killed.said(directory):
        if verb == what:
            found[int(number)] = int(lsn)
        elif verb == "deleted":
            found[int(number)] = 0
    return found


def named_objects(repository: Repository) -> set[str]:
    with repository.store.catalog.whole() as (_, found):
        return {
            object_name(key, LayerEntry.unpack(key, value, ""))
            for _, key, value in found
            if key.startswith(LAYER) and value is not None
        }


def check_recovered(directory: Path) -> None:
    """On an empty machine, from a copy: here it goes on."""
    journaled = promised(directory, "journaled")
    if not any(journaled.values()):
        return
    copy = directory / "copy"
    copy.mkdir()
    shutil.copytree(directory / "objects", copy / "objects")
    recover(killed.store_of(copy), copy / "data")
    repository = Repository.open(copy / "data" / "store", objects=killed.store_of(copy))
    # One whose deletion was not said may be gone, if only that is journaled already.
    if 2 not in {number for number, lsn in journaled.items() if lsn}:
        journaled.pop(2, None)
    check_reads(repository, journaled)
    repository.close()


def check_here(directory: Path) -> None:
    objects = killed.store_of(directory)
    repository = Repository.open(directory / "data" / "store", objects=objects)
    offsite = Offsite(repository, directory / "data")
    offsite.start()
    settle(offsite)
    check_reads(repository, promised(directory, "flushed"))
    for number in (1, 2):
        assert set(places(repository, number)) <= {Place.LOCAL | Place.REMOTE}
    newest = max((path.stat().st_mtime for path in (directory / "objects").rglob("*")), default=0)
    offsite.sweep(newest + ABANDONED_SECONDS + 1)
    assert layer_objects(objects) == named_objects(repository)
    repository.close()


def test_a_store_that_is_killed_at_any_step_goes_on_and_can_be_recovered(tmp_path: Path) -> None:
    left = killed.left_by(__name__, tmp_path / "killed")
    assert len(left) > 45, "each write, rename, sync, commit and PUT"
    for directory in left:
        check_recovered(directory)
        if (directory / "data").exists():
            check_here(directory)
    assert promised(left[-1], "flushed") == {1: ROOT_LSN + 2 * WRITTEN, 2: 0}


if __name__ == "__main__":
    killed.tell_all(story, Path(sys.argv[1]))
