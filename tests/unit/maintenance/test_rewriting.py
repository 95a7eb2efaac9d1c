"""Jobs carried out on a store: cut off at each step, killed, held up by others, refused."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pagestore import lost_found
from pagestore.errors import FailedPrecondition, InvalidInput, NotFound
from pagestore.ids import DEFAULT_TENANT
from pagestore.keyspace import ValueKind
from pagestore.layers.files import Files, layer_name
from pagestore.layers.native import LayerKind
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import GREATEST_KEY, LEAST_KEY, Images, Merge, next_job
from pagestore.maintenance.rewriting import rewrite
from pagestore.timeline import Repository, Timeline
from tests.unit.layers.model import Entry
from tests.unit.maintenance.store import BLOCKS, TINY, beginning, check, depth, key, patch, settle
from tests.unit.timeline.model import ROOT_LSN, ModelTimeline, make_root, put, timeline_id
from tests.unit.timeline.test_crashes import MOMENTS, CrashingFiles, PowerLost

KILLS = 5
FEW_FILES = replace(TINY, file_bytes=200)
"""Two or so of a merge, and of a pass."""


def entries_at(lsn: int) -> list[Entry]:
    """What the value at an LSN is says the LSN, so that a child process can be followed."""
    rng = random.Random(lsn)
    change = patch(rng.randrange(20), rng.randrange(1, 256))
    return [(key(rng.randrange(BLOCKS)), lsn, ValueKind.PATCH, 0, change)]


def write(timeline: Timeline, model: ModelTimeline, count: int) -> None:
    for lsn in range(model.last + 1, model.last + 1 + count):
        put(timeline, entries_at(lsn), lsn)
        model.own.put(entries_at(lsn))
    model.last += count
    timeline.freeze()
    timeline.flush()


def make(root: Path, files: Files | None = None) -> tuple[Repository, Timeline, ModelTimeline]:
    repository = Repository.open(root, files=files)
    timeline = make_root(repository, 1, beginning())
    model = ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
    model.own.put(beginning())
    return repository, timeline, model


def check_all(timeline: Timeline, model: ModelTimeline, last: int) -> None:
    for lsn in range(ROOT_LSN, last + 1):
        check(timeline.snapshot(), model, lsn)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Repository, Timeline, ModelTimeline]]:
    made = make(tmp_path / "store")
    yield made
    made[0].close()


def files_of(timeline: Timeline) -> set[str]:
    return {path.name for path in timeline.directory.iterdir()}


def named(timeline: Timeline) -> set[str]:
    return {layer_name(n, entry.summary.kind) for n, entry, _ in timeline.own_layers()}


def test_what_was_rewritten_reads_as_before_on_parents_and_branches(
    store: tuple[Repository, Timeline, ModelTimeline],
) -> None:
    repository, root, model = store
    write(root, model, 10)
    branch_lsn = model.last - 5
    child = repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), branch_lsn)
    child_model = ModelTimeline(model, branch_lsn, branch_lsn, branch_lsn)
    for _ in range(6):
        write(child, child_model, 20)
        write(root, model, 20)
    assert depth(child.snapshot(), child_model.last) > 15
    for timeline, its in ((root, model), (child, child_model)):
        done = settle(timeline)
        assert [type(job) for job in done[-2:]] == [Merge, Images] or len(done) > 2
        assert depth(timeline.snapshot(), its.last) == 0
        assert files_of(timeline) == named(timeline)
    check_all(root, model, model.last)
    check_all(child, child_model, child_model.last)
    # A branch's images are of what it changed, and no more.
    images = [e.summary.keys for _, e, _ in child.own_layers() if e.summary.kind == LayerKind.IMAGE]
    assert sum(images) <= BLOCKS
    # Once more there is nothing to be done.
    assert settle(child) == settle(root) == []


def test_a_branch_that_wrote_nothing_gets_no_file_and_no_job(
    store: tuple[Repository, Timeline, ModelTimeline],
) -> None:
    repository, root, model = store
    write(root, model, 60)
    child = repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), model.last)
    assert Depths().figures(child) == []
    assert settle(child) == []
    assert not child.directory.exists()


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_power_goes_at_each_step_of_a_merge_and_of_images(tmp_path: Path, moment: str) -> None:
    step, crashed = 0, True
    while crashed:
        step += 1
        files = CrashingFiles(0, moment)
        repository, timeline, model = make(tmp_path / str(step), files)
        write(timeline, model, 8)
        write(timeline, model, 8)
        files.left = step
        try:
            jobs = settle(timeline, FEW_FILES)
            crashed = False
        except PowerLost:
            pass
        repository.close()
        check_after(tmp_path / str(step), model)
    assert [type(job) for job in jobs] == [Merge, Images]
    assert 10 < step < 40


def check_after(root: Path, model: ModelTimeline) -> None:
    """It opens, reads as it did, and what was cut off is done."""
    repository = Repository.open(root)
    repository.sweep()
    timeline = repository.get(DEFAULT_TENANT, timeline_id(1))
    assert timeline.disk_consistent_lsn == model.last
    assert files_of(timeline) == named(timeline)
    for lsn in (ROOT_LSN, ROOT_LSN + 9, model.last):
        check(timeline.snapshot(), model, lsn)
    settle(timeline, FEW_FILES)
    assert depth(timeline.snapshot(), model.last) == 0
    for lsn in (ROOT_LSN, ROOT_LSN + 9, model.last):
        check(timeline.snapshot(), model, lsn)
    assert settle(timeline, FEW_FILES) == []
    repository.close()


def test_a_pass_that_was_cut_off_goes_on_and_keeps_what_it_had(
    store: tuple[Repository, Timeline, ModelTimeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, timeline, model = store
    write(timeline, model, 60)
    while True:
        job = next_job(Depths().figures(timeline), TINY, at_rest=True)
        assert job is not None
        if isinstance(job, Images):
            break
        rewrite(timeline, job, None, TINY)
    real, calls = timeline.replace_layers, iter(range(100))

    def twice(*args: object) -> None:
        if next(calls) == 2:
            raise OSError("the disk")
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(timeline, "replace_layers", twice)
    with pytest.raises(OSError, match="the disk"):
        rewrite(timeline, job, None, TINY)
    monkeypatch.undo()
    assert files_of(timeline) == named(timeline)
    write(timeline, model, 60)  # what comes meanwhile does not move the pass
    on = next_job(Depths().figures(timeline), TINY, at_rest=False)
    assert isinstance(on, Images)
    assert (on.lsn, on.inputs) == (job.lsn, job.inputs)
    assert LEAST_KEY < on.low < GREATEST_KEY
    check_all(timeline, model, model.last)
    rewrite(timeline, on, None, TINY)
    ours = [layer for layer in timeline.own_layers() if layer.entry.summary.kind == 2]
    assert sum(layer.entry.summary.keys for layer in ours if layer.entry.level > 0) == BLOCKS
    check_all(timeline, model, model.last)


def test_layers_that_are_gone_meanwhile_are_told_and_nothing_is_left(
    store: tuple[Repository, Timeline, ModelTimeline],
) -> None:
    repository, timeline, model = store
    for _ in range(3):
        write(timeline, model, 20)
    job = Merge((2, 3, 4), 1, 0)
    with pytest.raises(InvalidInput, match="no layer 77"):
        rewrite(timeline, replace(job, inputs=(2, 77)), None, TINY)

    def overtaken(work: object) -> None:
        rewrite(timeline, replace(job, inputs=(3,)), None, TINY)

    with pytest.raises(InvalidInput, match="no layer 3"):
        rewrite(timeline, job, None, TINY, overtaken)
    assert files_of(timeline) == named(timeline)
    check_all(timeline, model, model.last)
    repository.delete(DEFAULT_TENANT, timeline_id(1))
    with pytest.raises((InvalidInput, NotFound)):
        rewrite(timeline, job, None, TINY)


def test_a_cancelled_job_leaves_nothing(
    store: tuple[Repository, Timeline, ModelTimeline],
) -> None:
    _, timeline, model = store
    for _ in range(3):
        write(timeline, model, 20)
    with pytest.raises(FailedPrecondition, match="cancelled"):
        rewrite(timeline, Merge((2, 3, 4), 1, 0), None, TINY, lambda work: work.cancel())
    assert files_of(timeline) == named(timeline)


def compact_for_ever(root: Path) -> None:
    """What the child does: writes and flushes, says so on stdout, and compacts."""
    repository = Repository.open(root)
    timeline = repository.get(DEFAULT_TENANT, timeline_id(1))
    model = ModelTimeline(None, ROOT_LSN, timeline.last_record_lsn, 0)
    while True:
        write(timeline, model, 15)
        sys.stdout.write(f"{model.last}\n")
        sys.stdout.flush()
        settle(timeline, at_rest=model.last % 2 == 0)


def killed(root: Path, lines: int) -> int:
    """The last LSN that the child said was flushed, before it was killed."""
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(root)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    said += [int(line) for line in child.stdout.read().split()]
    child.wait()
    return said[-1]


def test_a_process_that_compacts_is_killed_again_and_again(tmp_path: Path) -> None:
    repository, _, _ = make(tmp_path)
    repository.close()
    for kill in range(KILLS):
        flushed = killed(tmp_path, 2 + kill)
        repository = Repository.open(tmp_path)
        repository.sweep()
        timeline = repository.get(DEFAULT_TENANT, timeline_id(1))
        last = timeline.last_record_lsn
        assert last in (flushed, flushed + 15)  # killed between the flush and the word
        assert files_of(timeline) == named(timeline)
        model = ModelTimeline(None, ROOT_LSN, last, last)
        model.own.put(beginning())
        for lsn in range(ROOT_LSN + 1, last + 1):
            model.own.put(entries_at(lsn))
        for lsn in range(ROOT_LSN, last + 1, 7):
            check(timeline.snapshot(), model, lsn)
        check(timeline.snapshot(), model, last)
        repository.close()
    # What was whole and not named yet is aside: of one kill the files of one merge at most.
    assert all(i.path.read_bytes().startswith(b"PSLAYER") for i in lost_found.found(tmp_path))


if __name__ == "__main__":
    compact_for_ever(Path(sys.argv[1]))
