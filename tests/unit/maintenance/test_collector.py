"""When timelines are collected: in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from pagestore.errors import ResourceExhausted
from pagestore.ids import DEFAULT_TENANT
from pagestore.maintenance import collector as module
from pagestore.maintenance.collecting import Collected
from pagestore.maintenance.collector import (
    BELIEVED_SECONDS,
    LEAST_PAUSE,
    LONGEST_PAUSE,
    LOOK_SECONDS,
    SETTLE_SECONDS,
    Agenda,
    Collector,
    pause_of,
)
from pagestore.timeline import Repository
from pagestore.timeline.horizons import DAY, LEAST_SECONDS, Window
from tests.unit import virtual_time
from tests.unit.timeline.model import timeline_id
from tests.unit.virtual_time import now

KEY = DEFAULT_TENANT, timeline_id(1)
OTHER = DEFAULT_TENANT, timeline_id(2)


def test_what_somebody_did_counts_at_once_and_writing_after_a_while() -> None:
    agenda = Agenda()
    agenda.note(KEY, 100)
    assert agenda.due(100 + SETTLE_SECONDS - 1) == []
    agenda.note(KEY, 101, now=True)
    assert agenda.due(101) == [KEY]
    agenda.looked(KEY, 102, 500)
    agenda.note(KEY, 103)
    assert agenda.due(601) == [], "it was looked at, and writes all the time"
    assert agenda.due(602) == [KEY]
    agenda.looked(KEY, 602, None)
    assert agenda.due(10**9) == []


def test_the_longest_due_comes_first() -> None:
    agenda = Agenda()
    agenda.note(OTHER, 7, now=True)
    agenda.note(KEY, 5, now=True)
    agenda.note(OTHER, 6, now=True)
    assert agenda.due(8) == [KEY, OTHER]


def test_a_window_is_looked_at_each_fiftieth_of_it() -> None:
    assert pause_of(Window(7 * DAY)) == LONGEST_PAUSE
    assert pause_of(Window(3600)) == 72
    assert pause_of(Window(0)) == LEAST_PAUSE


def test_a_window_by_bytes_is_looked_at_as_it_is_written_and_when_the_rest_is_old_enough() -> None:
    window = Window(7 * DAY, wal_bytes=1000)
    assert pause_of(window, kept_bytes=1000) == LONGEST_PAUSE
    assert pause_of(window, kept_bytes=1001) == LEAST_SECONDS
    assert pause_of(Window(7 * DAY), kept_bytes=1001) == LONGEST_PAUSE

    async def story(collector: Collector, repository: FakeRepository) -> None:
        repository.answers = [Collected(more_later=True, kept_bytes=2000)] * 100
        collector.told(window)
        for _ in range(30):
            collector.note(KEY)
            await asyncio.sleep(SETTLE_SECONDS / 3)
        assert len(repository.looks) > 300 / (2 * SETTLE_SECONDS)
        count = len(repository.looks)
        await asyncio.sleep(SETTLE_SECONDS + LEAST_SECONDS + 2 * LOOK_SECONDS)
        assert len(repository.looks) > count + 1, "nobody wrote meanwhile"

    play(story)


class FakeRetention:
    def window(self, key: object) -> Window | None:
        return None


class FakeRepository:
    """What a collector needs of one; `looks` says when which timeline was collected, and how."""

    def __init__(self) -> None:
        self.retention = FakeRetention()
        self.looks: list[tuple[float, Window | None]] = []
        self.answers: list[Collected | Exception] = []

    def with_layers(self) -> list[Any]:
        return [KEY]

    def kept(self, *key: object) -> object:
        return self

    def collect(
        self, _retention: object, _timeline: object, window: Any, _least: int, _quiet: object
    ) -> Collected:
        self.looks.append((now(), window))
        answer = self.answers.pop(0) if self.answers else Collected()
        if isinstance(answer, Exception):
            raise answer
        return answer


def play(story: Callable[[Collector, FakeRepository], Coroutine[Any, Any, None]]) -> None:
    repository = FakeRepository()

    async def whole() -> None:
        collector = Collector(cast(Repository, repository))
        running = asyncio.create_task(collector.run())
        try:
            await story(collector, repository)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "collect", repository.collect)
        virtual_time.play(whole())


def test_all_are_looked_at_after_a_start_and_once_an_hour() -> None:
    async def story(_: Collector, repository: FakeRepository) -> None:
        await asyncio.sleep(2 * LONGEST_PAUSE + 10 * SETTLE_SECONDS)
        times = [at for at, _ in repository.looks]
        assert len(times) == 3
        assert times[1] - times[0] >= LONGEST_PAUSE

    play(story)


def test_cutoffs_stay_where_they_are_while_nobody_says_what_is_to_be_kept() -> None:
    async def story(collector: Collector, repository: FakeRepository) -> None:
        collector.note(KEY, now=True)
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert [window for _, window in repository.looks] == [None]
        collector.told(Window(9))
        collector.note(KEY, now=True)
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert repository.looks[-1][1] == Window(9)
        await asyncio.sleep(BELIEVED_SECONDS)
        collector.note(KEY, now=True)
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert repository.looks[-1][1] is None

    play(story)


def test_what_fails_is_tried_again_and_what_is_left_is_looked_at_as_time_goes() -> None:
    async def story(collector: Collector, repository: FakeRepository) -> None:
        repository.answers = [
            ResourceExhausted("STORE_FULL", "No space."),
            Collected(3, 3000, more_later=True),
            Collected(1, 1000),
        ]
        collector.told(Window(50 * 60))
        collector.note(KEY, now=True)
        await asyncio.sleep(3 * SETTLE_SECONDS + LEAST_PAUSE)
        assert len(repository.looks) == 3
        first, second, third = (at for at, _ in repository.looks)
        assert second - first == pytest.approx(LEAST_PAUSE, abs=LOOK_SECONDS)
        assert third - second == pytest.approx(60, abs=LOOK_SECONDS)
        assert (collector.collected_layers, collector.collected_bytes) == (4, 4000)
        await asyncio.sleep(LONGEST_PAUSE / 2)
        assert len(repository.looks) == 3, "nothing is left to come"

    play(story)
