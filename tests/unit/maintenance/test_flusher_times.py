"""When the flusher flushes: at rest, beside ingest, before more is taken in, at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from pagestore import tasks
from pagestore.maintenance.flusher import (
    DEEP,
    IDLE_SECONDS,
    RETRY_SECONDS,
    TRICKLE_BYTES,
    TRICKLE_SECONDS,
    Flusher,
)
from pagestore.timeline import Repository
from tests.unit import virtual_time
from tests.unit.maintenance.test_flusher import EIO, FakeRepository, FakeTimeline
from tests.unit.virtual_time import VirtualLoop, now, settle, until

BOUND = 100


def play(
    *timelines: FakeTimeline,
    story: Callable[[Flusher], Coroutine[Any, Any, None]],
    bound: int = BOUND,
) -> list[int]:
    """A flusher of these timelines, in virtual time; how its process was ended, if it was."""
    ends: list[int] = []

    async def whole() -> None:
        repository = cast(Repository, FakeRepository(*timelines, bound=bound))
        flusher = Flusher(repository, bound)
        resting = asyncio.create_task(flusher.run())
        try:
            await story(flusher)
        finally:
            resting.cancel()
            await asyncio.gather(resting, return_exceptions=True)
            await flusher.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.errand.__kwdefaults__, "end", ends.append)
        virtual_time.play(whole())
    return ends


def flush_takes(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.work_seconds = seconds


def test_a_timeline_at_rest_is_flushed_and_a_busy_one_is_not() -> None:
    resting, busy = FakeTimeline(1, 10), FakeTimeline(2, 10)

    async def story(flusher: Flusher) -> None:
        flusher.touch(resting.key)
        for _ in range(20):
            flusher.touch(busy.key)
            await asyncio.sleep(IDLE_SECONDS / 5)
            assert resting.attempts == (now() >= IDLE_SECONDS + 1)
        assert (resting.attempts, busy.attempts) == (1, 0)
        await asyncio.sleep(IDLE_SECONDS + 1)
        assert (resting.attempts, busy.attempts) == (1, 1)

    assert play(resting, busy, story=story) == []


def test_what_is_taken_in_during_a_flush_is_flushed_at_its_next_rest() -> None:
    timeline = FakeTimeline(1, TRICKLE_BYTES)

    async def story(flusher: Flusher) -> None:
        flush_takes(3.0)
        flusher.touch(timeline.key)
        await asyncio.sleep(IDLE_SECONDS + 2)
        flusher.touch(timeline.key)
        await asyncio.sleep(2)  # the first one is over
        timeline.memory_bytes = TRICKLE_BYTES
        await until(lambda: timeline.attempts == 2, 2 * IDLE_SECONDS)

    assert play(timeline, story=story, bound=10 * TRICKLE_BYTES) == []


def test_a_write_every_eleven_seconds_for_a_day_leaves_a_handful_of_files() -> None:
    fleet = [FakeTimeline(number) for number in range(1, 4)]

    async def story(flusher: Flusher) -> None:
        while now() < 86_400:
            for timeline in fleet:
                timeline.memory_bytes += 20
                flusher.touch(timeline.key)
            await asyncio.sleep(11)
        assert all(20 <= timeline.attempts <= 26 for timeline in fleet)
        await asyncio.sleep(TRICKLE_SECONDS)
        assert all(timeline.memory_bytes == 0 for timeline in fleet)

    assert play(*fleet, story=story, bound=1 << 30) == []


def test_the_first_rest_after_a_long_one_is_flushed_at_once() -> None:
    timeline = FakeTimeline(1, 10)

    async def story(flusher: Flusher) -> None:
        for round_ in range(1, 4):
            timeline.memory_bytes = 10
            flusher.touch(timeline.key)
            await asyncio.sleep(IDLE_SECONDS + 2)
            assert timeline.attempts == round_
            await asyncio.sleep(TRICKLE_SECONDS)

    assert play(timeline, story=story) == []


def test_one_that_holds_much_or_is_deep_does_not_wait() -> None:
    timeline = FakeTimeline(1)

    async def story(flusher: Flusher) -> None:
        for round_ in range(1, 5):
            timeline.memory_bytes = TRICKLE_BYTES
            flusher.touch(timeline.key)
            await asyncio.sleep(IDLE_SECONDS + 2)
            assert timeline.attempts == round_
        timeline.memory_bytes, timeline.open_depth = 10, DEEP
        flusher.touch(timeline.key)
        await asyncio.sleep(2)
        assert timeline.attempts == 5

    assert play(timeline, story=story, bound=10 * TRICKLE_BYTES) == []


def test_half_the_bound_starts_a_flush_of_the_largest_beside_ingest() -> None:
    small, large = FakeTimeline(1, 20), FakeTimeline(2, 40)

    async def story(flusher: Flusher) -> None:
        flush_takes(3.0)
        await flusher.make_room()
        assert now() == 0
        await asyncio.sleep(3.1)
        assert (small.attempts, large.attempts) == (0, 1)

    assert play(small, large, story=story) == []


def test_below_half_the_bound_nothing_is_flushed_for_room() -> None:
    timeline = FakeTimeline(1, BOUND // 2)

    async def story(flusher: Flusher) -> None:
        await flusher.make_room()
        await asyncio.sleep(60)
        assert timeline.attempts == 0

    assert play(timeline, story=story) == []


def test_at_the_bound_ingest_waits_for_one_flush_at_a_time() -> None:
    timelines = [FakeTimeline(number, 60) for number in (1, 2, 3)]

    async def story(flusher: Flusher) -> None:
        flush_takes(3.0)
        await asyncio.gather(*(flusher.make_room() for _ in range(5)))
        assert now() == pytest.approx(6.0, abs=0.1)
        assert sum(item.attempts for item in timelines) == 2

    assert play(*timelines, story=story) == []


def test_who_stops_waiting_for_room_stops_no_flush() -> None:
    timeline = FakeTimeline(1, 2 * BOUND)

    async def story(flusher: Flusher) -> None:
        flush_takes(3.0)
        waiting = asyncio.create_task(flusher.make_room())
        await asyncio.sleep(1)
        waiting.cancel()
        await settle()
        await flusher.make_room()
        assert now() == pytest.approx(3.0, abs=0.1)
        assert timeline.attempts == 1

    assert play(timeline, story=story) == []


def test_a_disk_that_fails_is_tried_with_pauses() -> None:
    timeline = FakeTimeline(1, 2 * BOUND)
    timeline.error = EIO

    async def story(flusher: Flusher) -> None:
        waiting = asyncio.create_task(flusher.make_room())
        await asyncio.sleep(10 * RETRY_SECONDS)
        assert 5 <= timeline.attempts <= 21
        assert not waiting.done()
        timeline.error = None
        await waiting

    assert play(timeline, story=story) == []


def test_the_end_flushes_all_that_was_touched_and_says_each() -> None:
    timelines = [FakeTimeline(number, 10) for number in (1, 2, 3)]
    said: list[Any] = []

    async def story(flusher: Flusher) -> None:
        flusher.on_flushed = said.append
        for timeline in timelines[:2]:
            flusher.touch(timeline.key)

    assert play(*timelines, story=story) == []
    assert [item.attempts for item in timelines] == [1, 1, 0]
    assert said == [item.key for item in timelines[:2]]


def test_a_fault_of_the_program_beside_ingest_ends_the_process() -> None:
    """Nobody waits for that flush, so nobody would ever hear of it."""
    timeline = FakeTimeline(1, BOUND // 2 + 1)
    broken: Any = ValueError("no disk thought of this")
    timeline.error = broken

    async def story(flusher: Flusher) -> None:
        await flusher.make_room()
        await until(lambda: timeline.attempts > 0)
        await settle()
        timeline.error = None

    assert play(timeline, story=story) == [tasks.EXIT_STATUS]
