"""The flusher's policy, on timelines that fail as they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pagestore.errors import NotFound, PagestoreError, ResourceExhausted, Unavailable
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.maintenance.flusher import Flusher
from pagestore.timeline import Repository

FAST = 0.02
EIO = Unavailable("IO_ERROR", "store/x.delta: Input/output error")
FULL = ResourceExhausted("STORE_FULL", "No space left")
GONE = NotFound("TIMELINE_NOT_FOUND", "deleted")


class FakeTimeline:
    def __init__(self, number: int, memory_bytes: int = 0) -> None:
        self.tenant_id = DEFAULT_TENANT
        self.timeline_id = TimelineId(number.to_bytes(16, "big"))
        self.memory_bytes = memory_bytes
        self.error: PagestoreError | None = None
        self.attempts = 0
        self.open_depth = 0

    @property
    def key(self) -> Any:
        return self.tenant_id, self.timeline_id

    @property
    def can_shrink(self) -> bool:
        return self.memory_bytes > 0

    def freeze(self) -> None:
        pass

    def flush(self) -> None:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.memory_bytes = 0


class FakeRepository:
    def __init__(self, *timelines: FakeTimeline, bound: int = 100) -> None:
        self.timelines = list(timelines)
        self.bound = bound

    def get(self, *key: object) -> FakeTimeline:
        return next(t for t in self.timelines if t.key == key)

    @property
    def memory_bytes(self) -> int:
        return sum(t.memory_bytes for t in self.timelines)

    def in_memory(self) -> list[FakeTimeline]:
        return sorted(self.timelines, key=lambda t: -t.memory_bytes)

    def pressure(self) -> FakeTimeline | None:
        return self.in_memory()[0] if self.memory_bytes > self.bound else None


def with_flusher(
    repository: FakeRepository, story: Callable[[Flusher], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        flusher = Flusher(
            cast(Repository, repository), repository.bound, idle_seconds=FAST, retry_seconds=FAST
        )
        resting = asyncio.create_task(flusher.run())
        try:
            await asyncio.wait_for(story(flusher), 10)
        finally:
            resting.cancel()
            await asyncio.gather(resting, return_exceptions=True)
            await flusher.close()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(FAST / 4)


def test_a_flush_that_fails_with_eio_is_tried_again_and_told_meanwhile() -> None:
    for error in (EIO, FULL):
        timeline = FakeTimeline(1, 10)
        timeline.error = error

        async def story(
            flusher: Flusher, timeline: FakeTimeline = timeline, error: PagestoreError = error
        ) -> None:
            flusher.touch(timeline.key)
            await until(lambda: timeline.attempts >= 3)
            assert flusher.failure(timeline.key) == error.message
            timeline.error = None
            await until(lambda: timeline.memory_bytes == 0)
            await until(lambda: flusher.failure(timeline.key) == "")

        with_flusher(FakeRepository(timeline), story)


def test_one_that_failed_is_tried_again_though_it_is_never_at_rest() -> None:
    timeline = FakeTimeline(1, 60)
    timeline.error = EIO

    async def story(flusher: Flusher) -> None:
        flusher.touch(timeline.key)
        await flusher.make_room()
        await until(lambda: flusher.failure(timeline.key) != "")
        timeline.error = None
        while flusher.failure(timeline.key):
            flusher.touch(timeline.key)
            await asyncio.sleep(0)

    with_flusher(FakeRepository(timeline), story)


def test_one_that_fails_holds_up_nobody_else() -> None:
    failing, other = FakeTimeline(1, 10), FakeTimeline(2, 10)
    failing.error = EIO

    async def story(flusher: Flusher) -> None:
        flusher.touch(failing.key)
        flusher.touch(other.key)
        await until(lambda: other.memory_bytes == 0)
        assert flusher.failure(other.key) == ""

    with_flusher(FakeRepository(failing, other), story)


def test_under_pressure_the_next_largest_makes_room_for_one_that_fails() -> None:
    largest, other = FakeTimeline(1, 90), FakeTimeline(2, 60)
    largest.error = EIO

    async def story(flusher: Flusher) -> None:
        await flusher.make_room()
        assert other.memory_bytes == 0
        assert largest.attempts >= 1

    with_flusher(FakeRepository(largest, other), story)


def test_who_wants_to_add_waits_until_the_disk_works_again() -> None:
    timeline = FakeTimeline(1, 150)
    timeline.error = EIO

    async def story(flusher: Flusher) -> None:
        waiting = asyncio.create_task(flusher.make_room())
        await until(lambda: timeline.attempts >= 2)
        assert not waiting.done()
        timeline.error = None
        await waiting

    with_flusher(FakeRepository(timeline), story)


def test_a_deleted_timeline_is_forgotten() -> None:
    timeline = FakeTimeline(1, 10)
    timeline.error = GONE

    async def story(flusher: Flusher) -> None:
        flusher.touch(timeline.key)
        await until(lambda: timeline.attempts == 1)
        await asyncio.sleep(5 * FAST)
        assert timeline.attempts == 1
        assert flusher.failure(timeline.key) == ""

    with_flusher(FakeRepository(timeline), story)
