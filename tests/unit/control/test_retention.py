"""What is kept of the past: what the page server is told, and what goes by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pagestore.client.points import AtCheckpoint, AtTime, Head
from pagestore.control.records import EventRecord, RetentionRecord, TimelineState, Verb
from pagestore.control.retention import (
    DEFAULT,
    LOOK_SECONDS,
    TELL_SECONDS,
    Retention,
    Wanted,
    checked,
    left_at,
    wanted,
)
from pagestore.errors import InvalidInput, NotFound, OutOfRange
from pagestore.ids import TimelineId
from tests.unit.control.fakes import TENANT, Plane, play

DAY = 86_400_000_000
T1, T2 = TimelineId(b"1" * 16), TimelineId(b"2" * 16)


def retention_of(plane: Plane, days_later: float = 0.0) -> Retention:
    """As it will be so many days after what has happened."""
    return Retention(
        plane.state,
        plane.pages,  # type: ignore[arg-type]
        plane.plane._timelines,
        plane.plane._turns,
        clock=lambda: (
            max(record.created_micros for record in every_event(plane)) + int(days_later * DAY)
        ),
    )


def every_event(plane: Plane) -> list[EventRecord]:
    view = plane.state.view()
    names = [record.name for record in view.databases(TENANT)]
    return [event for name in names for event in view.events(TENANT, name)]


def test_only_what_is_special_is_told(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.plane.databases.create(TENANT, "app")
        await plane.plane.databases.create(TENANT, "other")
        assert wanted(plane.state.view()) == {}
        app = plane.record().timeline
        first = await plane.plane.past.checkpoint(TENANT, "app", "first")
        await plane.plane.retention.change(TENANT, "app", RetentionRecord(seconds=5, wal_bytes=6))
        said = Wanted(RetentionRecord(seconds=5, wal_bytes=6), (first.lsn,))
        assert wanted(plane.state.view()) == {(TENANT, app): said}
        await plane.plane.retention.change(TENANT, "app", None)
        assert wanted(plane.state.view()) == {(TENANT, app): Wanted(None, (first.lsn,))}
        await plane.plane.past.delete_checkpoint(TENANT, "app", "first")
        assert wanted(plane.state.view()) == {}

    play(tmp_path, story)


def test_of_a_removed_database_with_branches_only_those_hold_history(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.plane.databases.create(TENANT, "app")
        await plane.plane.databases.wake(TENANT, "app")
        plane.commit("one")
        app = plane.record().timeline
        await plane.plane.databases.branch(TENANT, "app", "try", Head())
        await plane.plane.databases.remove(TENANT, "app")
        assert wanted(plane.state.view()) == {(TENANT, app): Wanted(unnamed=True)}
        await plane.plane.databases.remove(TENANT, "try")
        await plane.settled()
        assert wanted(plane.state.view()) == {}

    play(tmp_path, story)


def test_all_is_told_at_first_and_then_what_changes_and_that_nothing_does(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.plane.databases.create(TENANT, "app")
        made = await plane.plane.past.checkpoint(TENANT, "app", "first")
        running = asyncio.create_task(retention_of(plane).run())
        await asyncio.sleep(LOOK_SECONDS)
        told = plane.pages.told
        assert [(item.all, len(item.timelines)) for item in told] == [(True, 1)]
        assert told[0].window.seconds == DEFAULT.seconds
        assert list(told[0].timelines[0].points) == [made.lsn]
        await asyncio.sleep(TELL_SECONDS + LOOK_SECONDS)
        assert [(item.all, len(item.timelines)) for item in told[1:]] == [(False, 0)]
        await plane.plane.past.delete_checkpoint(TENANT, "app", "first")
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert [list(item.points) for item in told[-1].timelines] == [[]]
        plane.pages.away = True
        await asyncio.sleep(2 * TELL_SECONDS)
        plane.pages.away = False
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert told[-1].all, "nobody knows what it has heard"
        running.cancel()

    play(tmp_path, story)


def test_checkpoints_go_when_their_time_is_over_and_others_stay(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.plane.databases.create(TENANT, "app")
        past, now = plane.plane.past, plane.record().created_micros
        await past.checkpoint(TENANT, "app", "for-good")
        await past.checkpoint(TENANT, "app", "month", expires_micros=now + 30 * DAY)
        await retention_of(plane, 29).let_go()
        assert len(plane.state.view().checkpoints(TENANT, "app")) == 2
        await past.checkpoint(TENANT, "app", "month", expires_micros=now + 32 * DAY)
        await retention_of(plane, 31).let_go()
        assert len(plane.state.view().checkpoints(TENANT, "app")) == 2, "it was kept for longer"
        await retention_of(plane, 33).let_go()
        assert [item.name for item in plane.state.view().checkpoints(TENANT, "app")] == ["for-good"]
        last = plane.state.view().events(TENANT, "app")[-1]
        assert (last.verb, last.checkpoint) == (Verb.DELETE_CHECKPOINT, "month")
        with pytest.raises(NotFound):
            await past.restore(TENANT, "app", AtCheckpoint("month"))

    play(tmp_path, story)


def test_what_a_move_left_goes_with_the_window_and_undo_still_goes_to_marks(
    tmp_path: Path,
) -> None:
    async def story(plane: Plane) -> None:
        await plane.plane.databases.create(TENANT, "app")
        await plane.plane.databases.wake(TENANT, "app")
        past, view = plane.plane.past, plane.state.view()
        plane.commit("one")
        await past.checkpoint(TENANT, "app", "good")
        plane.commit("two")
        first = plane.record().timeline
        await past.restore(TENANT, "app", AtCheckpoint("good"))
        plane.commit("three")
        second = plane.record().timeline
        await past.undo(TENANT, "app")
        await retention_of(plane, 6.9).let_go()
        assert {first, second} <= plane.live()
        await retention_of(plane, 7.1).let_go()
        await plane.settled()
        assert [item.name for item in view.checkpoints(TENANT, "app")] == ["good"]
        assert first in plane.live(), "a checkpoint stands on it"
        left = view.timeline(second)
        assert left is None or left.state is TimelineState.DROPPED
        during = [event for event in view.events(TENANT, "app") if event.timeline == second]
        with pytest.raises(OutOfRange) as refusal:
            await past.restore(TENANT, "app", AtTime(during[0].created_micros))
        assert refusal.value.reason == "POINT_TOO_OLD"
        plane.commit("four")
        await past.undo(TENANT, "app")
        assert plane.content() == ["one"]

    play(tmp_path, story)


def test_a_longer_window_of_its_own_holds_what_moves_left(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.plane.databases.create(TENANT, "app")
        await plane.plane.databases.wake(TENANT, "app")
        plane.commit("one")
        await plane.plane.past.checkpoint(TENANT, "app", "good")
        plane.commit("two")
        await plane.plane.past.restore(TENANT, "app", AtCheckpoint("good"))
        month = RetentionRecord(seconds=30 * 86400)
        await plane.plane.retention.change(TENANT, "app", month)
        await retention_of(plane, 29).let_go()
        assert len(plane.state.view().checkpoints(TENANT, "app")) == 2
        await retention_of(plane, 31).let_go()
        assert len(plane.state.view().checkpoints(TENANT, "app")) == 1

    play(tmp_path, story)


def test_a_window_goes_with_its_name_and_follows_it(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await plane.plane.databases.create(TENANT, "app")
        await plane.plane.retention.change(TENANT, "app", RetentionRecord(seconds=5))
        await plane.plane.databases.rename(TENANT, "app", "new")
        assert plane.plane.retention.of(TENANT, "new").seconds == 5
        assert plane.plane.retention.of(TENANT, "app") == DEFAULT
        await plane.plane.databases.remove(TENANT, "new")
        assert plane.state.view().retentions() == []

    play(tmp_path, story)


def test_when_a_name_left_its_timelines() -> None:
    def event(verb: Verb, timeline: TimelineId, at: int) -> EventRecord:
        return EventRecord(verb=verb, timeline=timeline, lsn=1, created_micros=at)

    log = [event(Verb.CREATE, T1, 1), event(Verb.CHECKPOINT, T1, 2)]
    assert left_at(log) == {}
    log += [event(Verb.RESTORE, T2, 3), event(Verb.CHECKPOINT, T2, 4)]
    assert left_at(log) == {T1: 3}
    log += [event(Verb.UPGRADE, T1, 9)]
    assert left_at(log) == {T2: 9}


@pytest.mark.parametrize(("seconds", "wal_bytes"), [(-1, 0), (1e10, 0), (float("nan"), 0), (1, -1)])
def test_impossible_windows_are_refused(seconds: float, wal_bytes: int) -> None:
    with pytest.raises(InvalidInput) as refusal:
        checked(seconds, wal_bytes)
    assert refusal.value.reason == "INVALID_RETENTION"
    assert "e+" not in refusal.value.message
    assert checked(0, 0) == RetentionRecord(seconds=0)
