"""Images of what ancestors changed: which, how often, and that they read as before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.native import LayerKind
from pagestore.maintenance.ancestry import layers_above, steps
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import (
    GREATEST_KEY,
    LEAST_KEY,
    Bounds,
    Figures,
    Images,
    Step,
    next_job,
)
from pagestore.timeline import Repository, Timeline
from tests.unit.maintenance.store import CHAINED, beginning, check, settle
from tests.unit.maintenance.test_rewriting import write
from tests.unit.timeline.model import ROOT_LSN, ModelTimeline, make_root, timeline_id

BOUNDS = Bounds()
MANY = BOUNDS.loose_branches


def reach(above: list[Step], keys: int = 100, level: int = 0, *, at_rest: bool = True) -> int:
    """Of the images that a branch with a flushed file, and maybe older images, gets."""
    files = [Figures(7, LayerKind.DELTA, 0, 10, 19, LEAST_KEY, GREATEST_KEY, 5000, keys)]
    if level:
        old = Figures(6, LayerKind.IMAGE, level, 9, 9, LEAST_KEY, GREATEST_KEY, 1 << 20, 300)
        files.append(old)
    job = next_job(files, BOUNDS, at_rest=at_rest, ancestors=len(above), steps=above)
    return job.reach if isinstance(job, Images) else -1


def test_a_branch_of_enough_branches_has_images_of_them_all() -> None:
    some = [Step(100)] * (MANY - 1)
    assert reach(some) == MANY - 1
    assert reach(some[1:]) == 0, "its own alone"
    assert reach([Step(0), *some, Step(0)]) == MANY + 1, "who changed nothing costs nothing"
    assert reach([Step(0)] * MANY) == 0
    assert reach(some, at_rest=False) == -1
    assert reach(some, level=2) == -1, "once"
    assert reach(some, level=1) == MANY - 1


MOST = int(100 * MANY * BOUNDS.taken_in)
"""Keys that may be taken in by `MANY` timelines of 100."""


def test_nothing_is_copied_of_what_is_large_or_was_imported() -> None:
    some = [Step(100)] * (MANY - 1)
    assert reach([*some, Step(100, base=True), *some]) == MANY - 1
    assert reach([*some, Step(MOST + 1), *some]) == MANY - 1
    assert reach([*some, Step(MOST), Step(1)]) == MANY + 1
    assert reach([Step(int(100 * BOUNDS.taken_in) + 1), *some]) == 0


def test_older_images_are_taken_in_with_what_they_reach_while_they_are_not_too_large() -> None:
    some = [Step(100)] * (MANY - 1)
    covered = [Step(10**6), Step(10**6, base=True)]
    assert reach([*some, Step(MOST, reach=2), *covered, Step(1)]) == MANY + 3
    assert reach([*some, Step(MOST + 1, reach=2), *covered, Step(1)]) == MANY - 1
    # Those below them are no longer few that lie loose.
    assert reach([*some[1:], Step(1, reach=1), Step(1), *some]) == 0


@dataclass
class Link:
    """Of a chain on paper: pages that it changed, and those in its images of `reach` ancestors."""

    pages: set[int]
    reach: int = 0
    images: frozenset[int] = frozenset()

    @property
    def step(self) -> Step:
        return Step(len(self.images or self.pages), self.reach)


@pytest.mark.parametrize("share", [100, 10, 1])
def test_a_chain_of_500_costs_a_bounded_factor_and_a_read_meets_few(share: int) -> None:
    """Each changes 100 of 10,000 pages, or of fewer or very many more."""
    rng, pages = random.Random(share), 10_000 * 100 // share
    chain: list[Link] = []  # the newest first
    copied = 0
    for _ in range(500):
        link = Link({rng.randrange(pages) for _ in range(100)})
        got = reach([other.step for other in chain], len(link.pages))
        if got > 0:
            taken = frozenset(link.pages.union(*(other.pages for other in chain[:got])))
            link.reach, link.images = got, taken
            copied += len(taken)
        chain.insert(0, link)
        assert places(chain) <= MANY + 6
    changed = sum(len(link.pages) for link in chain)
    assert copied <= 4 * changed


def places(chain: list[Link]) -> int:
    """How many timelines a read has to look at, at worst."""
    met = at = 0
    while at < len(chain):
        met, at = met + 1, at + 1 + chain[at].reach
    return met


Chain = list[tuple[Timeline, ModelTimeline]]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    made = Repository.open(tmp_path / "store", max_idle=3)
    yield made
    made.close()


def make_chain(repository: Repository, length: int) -> Chain:
    """Each branches before the last of what its parent writes."""
    root = make_root(repository, 1, beginning())
    model = ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
    model.own.put(beginning())
    chain = [(root, model)]
    for number in range(2, length + 2):
        parent, its = chain[-1]
        write(parent, its, 3)
        lsn = its.last
        child = repository.branch(DEFAULT_TENANT, parent.timeline_id, timeline_id(number), lsn)
        chain.append((child, ModelTimeline(its, lsn, lsn, lsn)))
        write(parent, its, 2)
    write(*chain[-1], 3)
    return chain


def check_chain(chain: Chain) -> None:
    for timeline, model in chain:
        for lsn in range(model.branch_lsn, model.last + 1):
            check(timeline.snapshot(), model, lsn)


def levels(timeline: Timeline) -> set[int]:
    own = [entry for _, entry, _ in timeline.own_layers()]
    return {entry.level for entry in own if entry.summary.kind == LayerKind.IMAGE}


def test_all_of_a_chain_reads_as_before_whatever_parents_wrote_after_the_branch(
    repository: Repository,
) -> None:
    chain = make_chain(repository, 30)
    for timeline, _ in chain:
        settle(timeline, CHAINED)
    check_chain(chain)
    reaching = [timeline for timeline, _ in chain if max(levels(timeline), default=0) > 1]
    assert len(reaching) > 5
    assert max(max(levels(timeline)) for timeline in reaching) > 20
    # And the last has few that a read would look at.
    last = list(steps(chain[-1][0]))
    assert len(last) == 30
    assert last[-1].base
    for timeline, model in chain[20:]:
        write(timeline, model, 4)
        settle(timeline, CHAINED)
    check_chain(chain)


def test_what_branched_before_the_images_of_its_parent_does_not_see_them(
    repository: Repository,
) -> None:
    chain = make_chain(repository, 12)
    parent = chain[-2][0]
    settle(parent, CHAINED)
    assert max(levels(parent)) > 1
    [nearest, *_] = steps(chain[-1][0])
    assert (nearest.reach, nearest.keys > 0) == (0, True)
    listed = layers_above(chain[-1][0], 1)
    assert {layer.summary.kind for layer, _ in listed} == {LayerKind.DELTA}
    assert {upto for _, upto in listed} == {chain[-1][1].branch_lsn}


def test_images_of_ancestors_that_were_cut_off_go_on_with_the_same_ones(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_chain(repository, 12)
    timeline, _ = chain[-1]
    real, calls = timeline.replace_layers, iter(range(100))

    def twice(*args: object) -> None:
        if next(calls) == 2:
            raise OSError("the disk")
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(timeline, "replace_layers", twice)
    with pytest.raises(OSError, match="the disk"):
        settle(timeline, CHAINED)
    monkeypatch.undo()
    [level] = levels(timeline)
    assert level > 1
    job = next_job(Depths().figures(timeline), CHAINED, at_rest=False)
    assert isinstance(job, Images)
    assert (job.level, job.low > LEAST_KEY) == (level, True)
    settle(timeline, CHAINED)
    assert levels(timeline) == {level}
    check_chain(chain)


def test_a_branch_of_seconds_has_no_images(repository: Repository) -> None:
    timeline, _ = make_chain(repository, 12)[-1]
    assert settle(timeline, replace(CHAINED, image_floor=10**9), at_rest=False) == []
    assert levels(timeline) == set()
