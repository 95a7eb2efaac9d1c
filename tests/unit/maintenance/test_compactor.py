"""When the compactor looks, works, gives way and tries again: real stores, mostly virtual time."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from pagestore import tasks
from pagestore._native import Compaction
from pagestore.errors import ResourceExhausted
from pagestore.ids import DEFAULT_TENANT
from pagestore.layers.native import LayerKind
from pagestore.maintenance import compactor as module
from pagestore.maintenance.compactor import (
    MOST_RETRY_SECONDS,
    REST_SECONDS,
    RETRY_SECONDS,
    Compactor,
)
from pagestore.maintenance.policy import Job
from pagestore.timeline import Repository, Timeline
from tests.unit import virtual_time
from tests.unit.garbage import uncollected
from tests.unit.maintenance.store import TINY, depth
from tests.unit.maintenance.test_rewriting import check_all, make, write
from tests.unit.timeline.model import ModelTimeline, timeline_id

Store = tuple[Repository, Timeline, ModelTimeline]
FULL = ResourceExhausted("STORE_FULL", "No space left")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = make(tmp_path / "store")
    yield made
    made[0].close()


def play(store: Store, story: Callable[[Compactor], Coroutine[Any, Any, None]]) -> list[int]:
    """In virtual time; how the process was ended, if it was."""
    ends: list[int] = []

    async def whole() -> None:
        compactor = Compactor(store[0], lambda timeline: None, bounds=TINY)
        running = tasks.endless(compactor.run(), "compact", end=ends.append)
        try:
            await story(compactor)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await compactor.close()

    virtual_time.play(whole())
    return ends


def kinds(timeline: Timeline) -> set[tuple[int, bool]]:
    return {(e.summary.kind, e.level > 0) for _, e, _ in timeline.own_layers()}


def test_what_is_flushed_deep_is_shallow_soon_and_settled_after_a_rest(store: Store) -> None:
    _, timeline, model = store

    async def story(compactor: Compactor) -> None:
        for _ in range(3):
            write(timeline, model, 60)
            await asyncio.sleep(3)
            assert depth(timeline.snapshot(), model.last) <= TINY.deep_weight
        write(timeline, model, 3)
        await asyncio.sleep(REST_SECONDS / 2)
        merges = compactor.totals.merges
        await asyncio.sleep(REST_SECONDS)
        assert depth(timeline.snapshot(), model.last) == 0
        assert merges >= 1
        totals = compactor.totals
        assert totals.image_passes >= 1
        assert min(totals.bytes_read, totals.bytes_merged, totals.bytes_imaged) > 0
        # The first look is where counting begins.
        assert totals.bytes_of_wal == 60 + 60 + 3
        assert 0 < totals.bytes_flushed < totals.bytes_read
        assert compactor.deepest_records == 0
        await asyncio.sleep(3)  # it has looked again
        standing = compactor.standing
        stored = sum(entry.summary.bytes for _, entry, _ in timeline.own_layers())
        assert sum(standing.levels) + standing.images == stored
        assert standing.images > 0
        assert standing.dead == 0
        assert (LayerKind.IMAGE, True) in kinds(timeline)

    assert play(store, story) == []
    check_all(timeline, model, model.last)


def test_the_first_flush_of_a_branch_counts(store: Store) -> None:
    repository, timeline, model = store
    write(timeline, model, 3)
    repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), model.last)
    branch = repository.get(DEFAULT_TENANT, timeline_id(2))
    grown = ModelTimeline(model, model.last, model.last, model.last)

    async def story(compactor: Compactor) -> None:
        await asyncio.sleep(3)
        write(branch, grown, 5)
        await asyncio.sleep(3)
        written = sum(entry.summary.bytes for _, entry, _ in branch.own_layers())
        assert compactor.totals.bytes_of_wal == 5
        assert compactor.totals.bytes_flushed == written > 0

    assert play(store, story) == []


def test_who_does_nothing_is_not_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, timeline, model = store
    write(timeline, model, 2)
    child = repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), model.last)
    looked: list[Timeline] = []
    real = Timeline.own_layers

    def own_layers(self: Timeline) -> Any:
        looked.append(self)
        return real(self)

    monkeypatch.setattr(Timeline, "own_layers", own_layers)

    async def story(compactor: Compactor) -> None:
        await asyncio.sleep(REST_SECONDS * 3)
        settled = len(looked)
        await asyncio.sleep(REST_SECONDS * 100)
        assert len(looked) == settled
        assert child not in looked

    assert play(store, story) == []


def test_what_fails_is_tried_again_with_pauses_and_holds_up_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, timeline, model = store
    write(timeline, model, 60)
    branch_lsn = model.last
    child = repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), branch_lsn)
    write(child, ModelTimeline(model, branch_lsn, branch_lsn, branch_lsn), 60)
    tried: list[float] = []
    real = module.rewrite

    def rewrite(of: Timeline, *args: Any, **more: Any) -> Any:
        if of is timeline and len(tried) < 12:
            tried.append(virtual_time.now())
            raise FULL
        return real(of, *args, **more)

    monkeypatch.setattr(module, "rewrite", rewrite)

    async def story(compactor: Compactor) -> None:
        await asyncio.sleep(RETRY_SECONDS - 2)
        assert len(tried) == 1
        assert (LayerKind.DELTA, True) in kinds(child)
        await asyncio.sleep(6 * MOST_RETRY_SECONDS)
        assert compactor.totals.failures == len(tried) == 12
        pauses = [b - a for a, b in itertools.pairwise(tried)]
        assert pauses == sorted(pauses)
        assert RETRY_SECONDS <= pauses[0] < 2 * RETRY_SECONDS
        assert pauses[-1] <= MOST_RETRY_SECONDS + 2
        assert (LayerKind.DELTA, True) in kinds(timeline)

    assert play(store, story) == []


def test_a_fault_of_the_program_ends_the_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, timeline, model = store
    write(timeline, model, 60)

    def broken(*_: Any) -> None:
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(module, "rewrite", broken)

    async def story(compactor: Compactor) -> None:
        await asyncio.sleep(5)

    assert play(store, story) == [tasks.EXIT_STATUS]


def test_a_timeline_that_is_deleted_meanwhile_is_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, timeline, model = store
    write(timeline, model, 60)
    real = module.rewrite

    def rewrite(of: Timeline, job: Job, *args: Any, **more: Any) -> Any:
        repository.delete(DEFAULT_TENANT, timeline_id(1))
        return real(of, job, *args, **more)

    monkeypatch.setattr(module, "rewrite", rewrite)

    async def story(compactor: Compactor) -> None:
        await asyncio.sleep(REST_SECONDS * 3)
        assert compactor.totals.failures == 0

    assert play(store, story) == []


class Held:
    """A rewrite that says when it is under way, and waits before it writes anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        real = module.rewrite

        def rewrite(
            timeline: Timeline, job: Job, redo: None, bounds: Any, begun: Any, *, kept: Any
        ) -> Any:
            def hold(work: Compaction) -> None:
                begun(work)
                self.begun.set()
                assert self.go.wait(30)

            return real(timeline, job, redo, bounds, hold, kept=kept)

        monkeypatch.setattr(module, "rewrite", rewrite)


def test_a_job_stands_still_while_something_is_flushed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, timeline, model = store
    write(timeline, model, 60)
    held = Held(monkeypatch)

    async def story() -> None:
        is_busy, asked = True, asyncio.Event()

        def busy() -> bool:
            asked.set()
            return is_busy

        compactor = Compactor(store[0], lambda timeline: None, busy=busy, bounds=TINY)
        working = asyncio.create_task(compactor.work_once())
        await asyncio.to_thread(held.begun.wait, 30)
        asked.clear()
        await asked.wait()
        await asyncio.sleep(0.1)  # what was asked for is done
        held.go.set()
        await asyncio.sleep(0.5)
        assert not working.done()
        assert compactor.totals.merges == 0
        is_busy = False
        assert await asyncio.wait_for(working, 30)
        assert compactor.totals.merges == 1
        await compactor.close()

    asyncio.run(story())
    assert (LayerKind.DELTA, True) in kinds(timeline)


def test_the_end_does_not_wait_for_a_job(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, timeline, model = store
    write(timeline, model, 60)
    held = Held(monkeypatch)

    async def story() -> None:
        compactor = Compactor(store[0], lambda timeline: None, bounds=TINY)
        working = asyncio.create_task(compactor.run())
        await asyncio.to_thread(held.begun.wait, 30)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        held.go.set()
        await compactor.close()

    asyncio.run(story())
    assert kinds(timeline) == {(LayerKind.IMAGE, False), (LayerKind.DELTA, False)}
    names = {path.suffix for path in timeline.directory.iterdir()}
    assert names == {".image", ".delta"}


def test_a_compaction_that_failed_holds_no_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, _, model = store
    child = repository.branch(DEFAULT_TENANT, timeline_id(1), timeline_id(2), model.last)
    write(child, ModelTimeline(model, model.last, model.last, model.last), 60)
    directory = child.directory
    del child

    def rewrite(*args: Any, **more: Any) -> Any:
        raise ResourceExhausted("STORE_FULL", "No space left")

    monkeypatch.setattr(module, "rewrite", rewrite)

    async def story(compactor: Compactor) -> None:
        await virtual_time.until(lambda: compactor.totals.failures > 0)
        assert list(directory.glob("*"))
        repository.delete(DEFAULT_TENANT, timeline_id(2))
        assert not list(directory.glob("*"))

    with uncollected():
        assert play(store, story) == []
