"""Page truth after compaction: what was merged and what got images reads as plain Postgres's own
replay, on the timeline, on branches of it, and on a branch that has taken in WAL of its own.

The page server stands still meanwhile, and all its timelines are compacted as far as bounds that
are much tighter than its own go, with its own redo.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pagestore.ids import DEFAULT_TENANT, TimelineId, format_lsn
from pagestore.layers.native import LayerKind
from pagestore.maintenance.figures import Depths
from pagestore.maintenance.policy import RECORD_WEIGHT, Bounds, Merge, next_job
from pagestore.maintenance.rewriting import Rewritten, rewrite
from pagestore.reader.redo import RedoHelpers
from pagestore.timeline import Repository, Timeline
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
)


def settle(timeline: Timeline, helpers: RedoHelpers, bounds: Bounds) -> list[tuple[str, Rewritten]]:
    done = []
    while (job := next_job(Depths().figures(timeline), bounds, at_rest=True)) is not None:
        done.append((type(job).__name__, rewrite(timeline, job, helpers.pool, bounds)))
    return done


def merge_all(timeline: Timeline, helpers: RedoHelpers) -> Rewritten:
    """Of all that was flushed, whatever the policy thinks of it."""
    numbers = [n for n, e, _ in timeline.own_layers() if e.summary.kind == LayerKind.DELTA]
    return rewrite(timeline, Merge(tuple(numbers), 1, 0), helpers.pool, TIGHT)


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
            for kind, done in settle(timeline, helpers, TIGHT):
                counted[kind] += 1
                counted["images"] += done.images
                assert done.refused == 0
            assert merged.refused == 0
            assert settle(timeline, helpers, replace(TIGHT, image_floor=0)) == []
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
        made.wait()
        on_branch.wait()
        where = f"PAGESTORE_TRUTH_SEED={SEED}"
        for lsn in (early, made.draw(1, SEED)[0], end):
            with made.replayed(lsn) as data:
                asked = [made] if lsn < early else [made, on_branch]
                if lsn == early:
                    asked.append(replace(made, timeline=fork))
                for one in asked:
                    compared = one.compare(data, lsn, branches=1 if lsn == end else 0)
                    assert not compared.differences, "\n".join(
                        [f"{format_lsn(lsn)}, {where}", *compared.differences[:20]]
                    )
