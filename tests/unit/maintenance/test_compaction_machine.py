"""Timelines that are written, branched, flushed, compacted, deleted and reopened in any order,
against dicts: every page at every LSN of every timeline. And whether that finds planted bugs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pagestore._native import LayerSummary, NativeError, Snapshot
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, MAX_LSN
from pagestore.maintenance import rewriting
from pagestore.maintenance.policy import Images, Job, Merge
from pagestore.timeline import Repository, Timeline
from tests.unit.maintenance.store import (
    CHAINED,
    TINY,
    beginning,
    changes,
    check,
    depth,
    settle,
)
from tests.unit.maintenance.stories import some
from tests.unit.timeline.model import ROOT_LSN, ModelTimeline, make_root, put, timeline_id

STEP = 4


class CompactionMachine(RuleBasedStateMachine):
    """Timeline 1 is a root; others branch from what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="pagestore-compaction-"))
        self.repository = Repository.open(self.root, max_idle=2)
        self.model: dict[int, ModelTimeline] = {}
        self.done: list[Job] = []

    def teardown(self) -> None:
        self.repository.close()
        shutil.rmtree(self.root)

    @initialize(
        files=st.lists(st.lists(changes, min_size=4, max_size=6), min_size=3, max_size=3),
        length=st.sampled_from([0, 2, 3]),
    )
    def begin(self, files: list[list], length: int) -> None:
        """Many stories begin with a chain, of branches in the midst of their parents' files."""
        make_root(self.repository, 1, beginning())
        self.model[1] = ModelTimeline(None, ROOT_LSN, ROOT_LSN, ROOT_LSN)
        self.model[1].own.put(beginning())
        for number in range(length):
            self.branch(number, STEP + 1 if number > 0 else 0)
            timeline, model = self.pick(number + 1)
            self.put(timeline, model, files[number])
            self.flush(timeline, model)
            self.compact(timeline, model, at_rest=True)

    def pick(self, choice: int) -> tuple[Timeline, ModelTimeline]:
        numbers = list(self.model)
        number = numbers[choice % len(numbers)]
        return self.repository.get(DEFAULT_TENANT, timeline_id(number)), self.model[number]

    @rule(
        choice=st.integers(0, 9),
        batches=st.lists(st.lists(changes, min_size=4, max_size=12), min_size=1, max_size=6),
        then=st.sampled_from(["wait", "flush", "compact", "compact", "rest"]),
    )
    def write(self, choice: int, batches: list[list], then: str) -> None:
        """Each batch but the last becomes a file."""
        timeline, model = self.pick(choice)
        for items in batches:
            if timeline.ancestor_behind() is not None:
                return
            self.flush(timeline, model)
            self.put(timeline, model, items)
        if then != "wait":
            self.flush(timeline, model)
        if then in ("compact", "rest"):
            self.compact(timeline, model, at_rest=then == "rest")

    def put(self, timeline: Timeline, model: ModelTimeline, items: list) -> None:
        entries = [
            (key, model.last + 1 + i // 2, kind, 0, payload)
            for i, (key, (kind, payload)) in enumerate(items)
        ]
        last = entries[-1][1] + STEP
        put(timeline, entries, last)
        model.own.put(entries)
        model.last = last

    def flush(self, timeline: Timeline, model: ModelTimeline) -> None:
        timeline.freeze()
        timeline.flush()
        model.durable = model.last

    def compact(self, timeline: Timeline, model: ModelTimeline, *, at_rest: bool) -> None:
        self.done += settle(timeline, CHAINED, at_rest=at_rest)
        bound = TINY.deep_weight + TINY.chain_weight
        above = 0 if model.parent is None else depth(timeline.snapshot(), model.branch_lsn)
        assert depth(timeline.snapshot(), model.last) <= bound + above

    @rule(choice=st.integers(0, 9), back=st.integers(0, 30))
    def branch(self, choice: int, back: int) -> None:
        parent, model = self.pick(choice)
        lsn = max(model.last - back, model.branch_lsn)
        if len(self.model) >= 4 or lsn > parent.last_record_lsn:
            return
        number = max(self.model) + 1
        self.repository.branch(DEFAULT_TENANT, parent.timeline_id, timeline_id(number), lsn)
        self.model[number] = ModelTimeline(model, lsn, lsn, lsn)

    @rule()
    def delete(self) -> None:
        number = max(self.model)
        if number > 1:
            self.repository.delete(DEFAULT_TENANT, timeline_id(number))
            del self.model[number]

    @rule()
    def crash(self) -> None:
        self.repository.close()
        self.repository = Repository.open(self.root, max_idle=2)
        for model in self.model.values():
            model.crash(model.durable)

    @invariant()
    def every_page_at_every_lsn(self) -> None:
        for number, model in self.model.items():
            timeline = self.repository.get(DEFAULT_TENANT, timeline_id(number))
            if timeline.ancestor_behind() is None:
                snapshot = timeline.snapshot()
                for lsn in {*range(ROOT_LSN, model.last, 3), model.branch_lsn, model.last}:
                    check(snapshot, model, lsn)


TestCompaction = CompactionMachine.TestCase
TestCompaction.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)

_some = partial(some, steps=12)


def forgotten_input(patch: pytest.MonkeyPatch) -> None:
    """A merge leaves one of its inputs out, and takes it away."""
    real = rewriting.Compaction

    def work(layers: list, *args: Any, **more: Any) -> Any:
        return real(
            layers if more.get("image_lsn") or len(layers) < 3 else layers[1:], *args, **more
        )

    patch.setattr(rewriting, "Compaction", work)


def image_of_an_lsn_before(patch: pytest.MonkeyPatch) -> None:
    """Images show what was there one LSN below the one that they stand at."""
    real = rewriting.Compaction

    def work(layers: list, snapshot: Snapshot, *args: Any, **more: Any) -> Any:
        if lsn := more.get("image_lsn"):
            snapshot = Snapshot().over(snapshot, lsn - 1)
        return real(layers, snapshot, *args, **more)

    patch.setattr(rewriting, "Compaction", work)


def merge_that_says_too_little(patch: pytest.MonkeyPatch) -> None:
    """A merge's coverage ends one LSN too early."""
    real = rewriting.LayerEntry.fresh

    def fresh(summary: LayerSummary, level: int = 0) -> Any:
        kind, least, greatest, first, last, *rest = summary
        if kind == 1 and level > 0 and first < last:
            last -= 1
        return real(LayerSummary((kind, least, greatest, first, last, *rest)), level)

    patch.setattr(rewriting.LayerEntry, "fresh", fresh)


def what_ancestors_did_later(patch: pytest.MonkeyPatch) -> None:
    """Images of ancestors are made from all that these have, not from what the branch sees."""
    real = rewriting.Compaction

    def work(layers: list, snapshot: Snapshot, *args: Any, **more: Any) -> Any:
        if min(more.get("uppers", ()), default=MAX_LSN) < MAX_LSN:
            snapshot = Snapshot(snapshot.files())
        return real(layers, snapshot, *args, **more)

    patch.setattr(rewriting, "Compaction", work)


@pytest.mark.parametrize(
    "bug",
    [
        forgotten_input,
        image_of_an_lsn_before,
        merge_that_says_too_little,
        what_ancestors_did_later,
    ],
)
def test_planted_bugs_are_found(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises((AssertionError, PagestoreError, NativeError)):
        run_state_machine_as_test(CompactionMachine, settings=_some(400))


def test_the_machine_merges_and_makes_images() -> None:
    """Else it would say nothing of them."""
    done: list[Job] = []

    class Counting(CompactionMachine):
        def teardown(self) -> None:
            done.extend(self.done)
            super().teardown()

    run_state_machine_as_test(Counting, settings=_some(20))
    assert sum(isinstance(job, Images) for job in done) >= 5
    assert sum(isinstance(job, Images) and job.reach > 0 for job in done) >= 5
    assert sum(isinstance(job, Merge) and len(job.inputs) > 2 for job in done) >= 5
