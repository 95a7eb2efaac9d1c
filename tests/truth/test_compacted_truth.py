"""Page truth after compaction: what was merged and what got images reads as plain Postgres's own
replay, on the timeline, on branches of it, and on a branch that has taken in WAL of its own.

The page server stands still meanwhile, and all its timelines are compacted as far as bounds that
are much tighter than its own go, with its own redo. Then history is given up, as far as a window of
nothing and one checkpoint let it: what is left out by merges and collected is read by nobody, and
what is kept reads as before.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pagestore.ids import DEFAULT_TENANT, Lsn, TimelineId, format_lsn
from pagestore.layers.native import LayerKind
from pagestore.maintenance.ancestry import steps
from pagestore.maintenance.collecting import drop_unneeded
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import (
    EVERYTHING,
    LEAST_KEY,
    RECORD_WEIGHT,
    Bounds,
    Images,
    Merge,
    next_job,
)
from pagestore.maintenance.rewriting import Rewritten, rewrite
from pagestore.reader.redo import RedoHelpers
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.entries import Horizon
from pagestore.timeline.retained import Retained
from tests.plain_postgres import BINDIR
from tests.truth.history import WAIT_SECONDS, History, append, history
from tests.truth.test_page_truth import SEED
from tests.truth.workloads import BY_NAME

TIGHT = Bounds(
    file_bytes=1 << 20,
    factor=1.0,
    open_weight=4 * RECORD_WEIGHT,
    chain_weight=8 * RECORD_WEIGHT,
    deep_weight=16 * RECORD_WEIGHT,
    rest_part=0.0,
    rest_floor=0,
    settled_bytes=1 << 20,
    dead_floor=1,
    rest_dead_part=0.01,
)


def settle(
    timeline: Timeline, helpers: RedoHelpers, bounds: Bounds, kept: Retained = EVERYTHING
) -> list[tuple[str, Rewritten]]:
    done = []
    while True:
        job = next_job(Depths().figures(timeline, kept), bounds, at_rest=True, kept=kept)
        if job is None:
            return done
        done.append((type(job).__name__, rewrite(timeline, job, helpers.pool, bounds, kept=kept)))


def merge_all(timeline: Timeline, helpers: RedoHelpers) -> Rewritten:
    """Of all that was flushed, whatever the policy thinks of it."""
    numbers = [n for n, e, _ in timeline.own_layers() if e.summary.kind == LayerKind.DELTA]
    return rewrite(timeline, Merge(tuple(numbers), 1, 0), helpers.pool, TIGHT)


def images_of_ancestors(timeline: Timeline, helpers: RedoHelpers) -> Rewritten:
    """Of what it has changed, and all that came before it did up to where they part."""
    deltas = [
        (n, e.summary.last_lsn)
        for n, e, _ in timeline.own_layers()
        if e.summary.kind == LayerKind.DELTA
    ]
    numbers, lsns = zip(*deltas, strict=True)
    above = len(list(steps(timeline)))
    job = Images(numbers, Lsn(max(lsns)), LEAST_KEY, 1, reach=above)
    return rewrite(timeline, job, helpers.pool, TIGHT)


def compact(made: History, timelines: list[TimelineId]) -> Counter[str]:
    """What was done, and how many images were made in it."""
    counted: Counter[str] = Counter()
    assert made.pages.stop() == 0
    repository = Repository.open(made.pages.data_dir / "store")
    with RedoHelpers(BINDIR) as helpers:
        for name in timelines:
            timeline = repository.get(DEFAULT_TENANT, name)
            merged = merge_all(timeline, helpers)
            counted["images in merges"] += merged.images
            if name != made.timeline:
                counted["of ancestors"] += images_of_ancestors(timeline, helpers).images
                counted["Images"] += 1
            for kind, done in settle(timeline, helpers, TIGHT):
                counted[kind] += 1
                counted["images"] += done.images
                assert done.refused == 0
            assert merged.refused == 0
            assert settle(timeline, helpers, replace(TIGHT, image_floor=0)) == []
    repository.close()
    made.pages.start()
    return counted


def give_history_up(made: History, timelines: list[TimelineId], point: Lsn) -> Counter[str]:
    """All but what is read at the end, at a checkpoint, and where a branch leaves its parent."""
    counted: Counter[str] = Counter()
    assert made.pages.stop() == 0
    repository = Repository.open(made.pages.data_dir / "store")
    with RedoHelpers(BINDIR) as helpers:
        for name in timelines:
            timeline = repository.get(DEFAULT_TENANT, name)
            counted["before"] += timeline.physical_bytes
            if point > timeline.branch_lsn:
                repository.retention.tell(timeline, None, [point])
            repository.retention.move(timeline, Horizon(Lsn(timeline.disk_consistent_lsn)))
            kept = repository.retention.retained(timeline)
            # A merge first, while there still is something for it to leave out.
            numbers = [n for n, e, _ in timeline.own_layers() if e.summary.kind == LayerKind.DELTA]
            merged = rewrite(timeline, Merge(tuple(numbers), 1, 0), helpers.pool, TIGHT, kept=kept)
            counted["dead"] += merged.dead
            counted["collected"] += len(drop_unneeded(timeline, kept))
            for _, done in settle(timeline, helpers, TIGHT, kept):
                counted["dead later"] += done.dead
            counted["collected"] += len(drop_unneeded(timeline, kept))
            counted["after"] += timeline.physical_bytes
    repository.close()
    made.pages.start()
    return counted


@pytest.mark.parametrize(
    "name", ["pgbench", pytest.param("indexed_updates", marks=pytest.mark.slow)]
)
def test_pages_stay_what_plain_postgres_makes_of_the_wal(name: str) -> None:
    with history(BY_NAME[name], "--data-checksums") as made:
        early, end = made.record_end(made.start + len(made.wal) // 3), made.end
        branch, fork = (made.stack.branch(made.timeline, early) for _ in range(2))
        wal = made.wal[early - made.start :]
        made.stack.wait(append(made.stack, branch, early, wal), WAIT_SECONDS)
        on_branch = replace(made, timeline=branch)
        on_branch.wait()
        counted = compact(made, [made.timeline, branch])
        assert counted["images in merges"] > 20
        assert counted["Images"] >= 2
        assert counted["of ancestors"] > 200
        made.wait()
        on_branch.wait()
        between = made.draw(1, SEED)[0]
        on_fork = replace(made, timeline=fork)
        compare(made, on_branch, on_fork, (early, between, end))
        counted = give_history_up(made, [made.timeline, branch], between)
        assert counted["dead"] > 1000
        assert counted["after"] < counted["before"], counted
        made.wait()
        on_branch.wait()
        compare(made, on_branch, on_fork, (early, between, end))


def compare(made: History, on_branch: History, on_fork: History, lsns: tuple[Lsn, ...]) -> None:
    """The last is the end; the first is where both branches are."""
    early, end = lsns[0], lsns[-1]
    for lsn in lsns:
        with made.replayed(lsn) as data:
            asked = [made] if lsn < early else [made, on_branch]
            if lsn == early:
                asked.append(on_fork)
            for one in asked:
                compared = one.compare(data, lsn, branches=1 if lsn == end else 0)
                assert not compared.differences, "\n".join(
                    [f"{format_lsn(lsn)}, PAGESTORE_TRUTH_SEED={SEED}", *compared.differences[:20]]
                )
