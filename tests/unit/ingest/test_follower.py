"""Which safekeeper is followed, and what becomes of a stream that breaks, lies or stalls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from pagestore.errors import FailedPrecondition, NotFound, OutOfRange, PagestoreError
from pagestore.ingest.follower import (
    FIRST_PAUSE,
    LINGER_MS,
    LONGEST_PAUSE,
    REPAIRED_SECONDS,
    SILENCE_SECONDS,
)
from pagestore.ingest.pacing import PACE_SECONDS
from pagestore.ingest.sources import STALL_SECONDS
from tests.unit.ingest.fakes import (
    AWAY,
    START,
    Read,
    World,
    fails,
    pauses,
    play,
)
from tests.unit.virtual_time import VirtualLoop, now, settle, until

DROPPED = OutOfRange("LSN_TOO_OLD", "That WAL has been dropped.")


def grow(count: int, first: float = FIRST_PAUSE) -> list[tuple[float, float]]:
    """Between which bounds so many pauses in a row lie."""
    longest = [min(first * 2**number, LONGEST_PAUSE) for number in range(count)]
    return [(0.5 * item, item + 0.01) for item in longest]


def lie_within(found: list[float], bounds: list[tuple[float, float]]) -> bool:
    return all(low <= item <= high for item, (low, high) in zip(found, bounds, strict=True))


# Whom to follow


def test_who_is_furthest_is_followed(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        behind, ahead = world.sources
        log = world.logs[key]
        log.write(3)
        await behind.tell(key, log.ends[1])
        await until(lambda: world.reached(key) == log.ends[1])
        assert not ahead.reads
        await ahead.tell(key)
        await until(lambda: world.reached(key) == log.end)
        assert ahead.read_at(key)[0] == log.ends[1]

    play(tmp_path, story, safekeepers=2)


def test_those_who_are_equally_far_share_the_timelines(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        keys = [world.timeline(number) for number in range(1, 9)]
        for key in keys:
            world.logs[key].write()
            for source in world.sources:
                source.told[key] = world.logs[key].end
        for source in world.sources:
            await source.tell(keys[0])
        await until(lambda: all(world.reached(key) == world.logs[key].end for key in keys))
        assert [len({read.key for read in source.reads}) for source in world.sources] == [4, 4]

    play(tmp_path, story, safekeepers=2)


def test_who_is_lost_is_asked_only_if_nobody_else_is_there(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.log()
        first, second = world.sources
        log = world.logs[key]
        log.write(2)
        await first.tell(key)
        await second.tell(key, log.ends[1])
        await settle()
        await first.break_off()
        await settle()
        world.timeline()
        world.follower.appeared(key)
        await until(lambda: world.reached(key) == log.ends[1])
        assert not first.reads
        await second.break_off()
        await until(lambda: bool(first.reads))
        first.away = False
        await until(lambda: world.reached(key) == log.end)

    play(tmp_path, story, safekeepers=2)


def test_one_that_another_tells_of_is_followed_too(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        world.source.safekeepers = [world.source.address, "sk4:1"]
        await world.source.tell(key)
        await until(lambda: bool(world.connected))
        (new,) = world.connected
        world.logs[key].write()
        await until(lambda: bool(new.watched))
        await new.tell(key)
        await until(lambda: world.reached(key) == world.logs[key].end)
        assert new.reads
        await world.source.tell(key)
        await settle()
        assert [item.address for item in world.connected] == ["sk4:1"]

    play(tmp_path, story)


def test_silence_is_suspicious_only_where_another_can_be_asked(tmp_path: Path) -> None:
    async def alone(world: World) -> None:
        assert world.source.watched == [(0.0, None)]

    async def two(world: World) -> None:
        assert world.source.watched == [(0.0, SILENCE_SECONDS)]

    play(tmp_path / "one", alone)
    play(tmp_path / "two", two, safekeepers=2)


# Pauses


def test_pauses_between_subscriptions_grow_up_to_a_bound_and_begin_anew(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        source = world.source
        await source.break_off()
        await until(lambda: len(source.watched) == 12)
        tried = [moment for moment, _ in source.watched][1:]
        assert lie_within(pauses(tried), grow(11, 2 * FIRST_PAUSE)[:10])
        source.away = False
        await until(lambda: len(source.watched) == 13)
        await source.break_off()
        await until(lambda: len(source.watched) == 16)
        again = [moment for moment, _ in source.watched][13:]
        assert lie_within(pauses(again), grow(2, 2 * FIRST_PAUSE))

    play(tmp_path, story)


def test_pauses_between_attempts_grow_up_to_a_bound_and_begin_anew_with_progress(
    tmp_path: Path,
) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        source, log = world.source, world.logs[key]
        log.write(2)
        source.serve = fails(AWAY)
        await source.tell(key)
        await until(lambda: len(source.reads) == 12)
        assert lie_within(pauses(read.at for read in source.reads), grow(11))

        async def one_record(read: Read) -> AsyncGenerator[bytes, None]:
            if read.lsn == START:
                yield log.data[: log.ends[1] - START]
            raise AWAY

        source.serve = one_record
        await until(lambda: world.reached(key) == log.ends[1])
        source.reads.clear()
        await until(lambda: len(source.reads) == 3)
        assert lie_within(pauses(read.at for read in source.reads), grow(2, 2 * FIRST_PAUSE))
        assert world.follower.failure(key) is None

    play(tmp_path, story)


# Streams that break, lie or stall


def test_a_broken_stream_goes_on_at_another_after_the_last_whole_record(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        first, second = world.sources
        log = world.logs[key]
        log.write(5)
        await second.tell(key, START)

        async def breaks(read: Read) -> AsyncGenerator[bytes, None]:
            yield log.data[read.lsn - START : log.ends[2] + 40 - START]
            raise AWAY

        first.serve = breaks
        await first.tell(key)
        await until(lambda: first.read_at(key) == [START, log.ends[2]])
        await second.tell(key)
        await until(lambda: world.reached(key) == log.end)
        assert second.read_at(key)[0] == log.ends[2]

    play(tmp_path, story, safekeepers=2)


def test_a_stream_that_stalls_while_another_has_more_is_left(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        frozen, other = world.sources
        log = world.logs[key]
        log.write()

        async def hangs(read: Read) -> AsyncGenerator[bytes, None]:
            await asyncio.sleep(3600)
            yield b""

        frozen.serve = hangs
        await frozen.tell(key)
        other.told[key] = log.end
        began = now()
        await until(lambda: world.reached(key) == log.end)
        assert now() - began == pytest.approx(STALL_SECONDS, abs=2 * FIRST_PAUSE)
        assert key in frozen.stopped

    play(tmp_path, story, safekeepers=2)


def test_the_only_one_is_waited_for_however_long_it_takes(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        log.write()

        async def slow(read: Read) -> AsyncGenerator[bytes, None]:
            await asyncio.sleep(20 * STALL_SECONDS)
            yield log.data

        world.source.serve = slow
        await world.source.tell(key)
        await until(lambda: world.reached(key) == log.end)
        assert world.source.read_at(key)[:1] == [START]
        assert len(world.source.reads) <= 2

    play(tmp_path, story)


def test_damage_is_read_once_more_before_it_is_believed(tmp_path: Path) -> None:
    """What was replaced under a new term, half read, reads as damage once."""

    async def story(world: World) -> None:
        key = world.timeline()
        source, log = world.source, world.logs[key]
        log.write(3)
        source.copies[key] = log.damaged(1)
        await source.tell(key)
        await until(lambda: len(source.reads) == 1)
        del source.copies[key]
        await until(lambda: world.reached(key) == log.end)
        assert source.read_at(key)[:2] == [START, log.ends[1]]
        assert world.follower.failure(key) is None

    play(tmp_path, story)


def test_damage_at_the_same_place_again_is_believed(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key, other = world.timeline(2), world.timeline(4)
        source, log = world.source, world.logs[key]
        log.write(3)
        world.logs[other].write()
        source.copies[key] = log.damaged(1)
        waiting = world.wait(key, log.end)
        await source.tell(key)
        await until(waiting.done)
        with pytest.raises(FailedPrecondition, match="takes in no WAL beyond") as caught:
            await waiting
        assert caught.value.reason == "INGEST_STOPPED"
        assert source.read_at(key) == [START, log.ends[1]]
        assert world.follower.failure(key) == caught.value
        # What came before the damage is there, and nobody reads on.
        assert world.reached(key) == log.ends[1]
        log.write()
        await source.tell(key)
        await source.tell(other)
        await until(lambda: world.reached(other) == world.logs[other].end)
        assert len(source.read_at(key)) == 2

    play(tmp_path, story)


def test_what_was_damaged_is_taken_in_by_itself_once_it_is_repaired(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        source, log = world.source, world.logs[key]
        log.write(3)
        source.copies[key] = log.damaged(1)
        await source.tell(key)
        await until(lambda: world.follower.failure(key) is not None)
        failure = world.follower.failure(key)
        await asyncio.sleep(2.5 * REPAIRED_SECONDS)
        assert world.follower.failure(key) is not None
        assert str(world.follower.failure(key)) == str(failure)
        assert len(source.read_at(key)) == 2 + 2 * 2
        del source.copies[key]
        await until(lambda: world.reached(key) == log.end, 1.1 * REPAIRED_SECONDS)
        assert world.follower.failure(key) is None
        log.write()
        await source.tell(key)
        await until(lambda: world.reached(key) == log.end)

    play(tmp_path, story)


def test_damage_further_on_is_another_damage(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        source, log = world.source, world.logs[key]
        log.write(4)
        copies = [log.damaged(1), log.damaged(2), log.damaged(3), log.data]

        async def each_once(read: Read) -> AsyncGenerator[bytes, None]:
            source.copies[key] = copies.pop(0) if copies else log.data
            async for data in source.serves(read):
                yield data

        source.serve = each_once
        await source.tell(key)
        await until(lambda: world.reached(key) == log.end)
        assert world.follower.failure(key) is None

    play(tmp_path, story)


def test_damage_at_one_safekeeper_is_not_the_timelines(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        bad, good = world.sources
        log = world.logs[key]
        log.write(3)
        bad.copies[key] = log.damaged(1)
        good.told[key] = log.end
        await bad.tell(key)
        await until(lambda: world.reached(key) == log.end)
        assert good.read_at(key)[0] == log.ends[1]
        assert world.follower.failure(key) is None

    play(tmp_path, story, safekeepers=2)


@pytest.mark.parametrize("error", [DROPPED, NotFound("TIMELINE_NOT_FOUND", "Deleted there.")])
def test_what_no_attempt_will_change_is_not_tried_again(
    tmp_path: Path, error: PagestoreError
) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        world.logs[key].write()
        for source in world.sources:
            source.serve = fails(error)
            source.told[key] = world.logs[key].end
        await world.source.tell(key)
        await until(lambda: all(source.reads for source in world.sources))
        await until(lambda: world.follower.active() == 0)
        # That the timeline is not there says nothing about what it has; that WAL is gone does.
        assert (world.follower.failure(key) is not None) == (error is DROPPED)
        await asyncio.sleep(60)
        assert [len(source.reads) for source in world.sources] == [1, 1]

    play(tmp_path, story, safekeepers=2)


@pytest.mark.parametrize("asked_first", ["dropped", "away"])
def test_as_long_as_one_may_have_it_the_wal_is_asked_for(tmp_path: Path, asked_first: str) -> None:
    async def story(world: World) -> None:
        key = world.log(2 if asked_first == "dropped" else 3)
        dropped, away = world.sources
        world.logs[key].write()
        dropped.serve, away.serve = fails(DROPPED), fails(AWAY)
        for source in world.sources:
            await source.tell(key)
        await settle()
        world.follower.appeared(world.timeline(key[1].raw[-1]))
        await until(lambda: len(away.reads) == 20)
        assert world.follower.failure(key) is None
        away.serve = away.serves
        await until(lambda: world.reached(key) == world.logs[key].end)

    play(tmp_path, story, safekeepers=2)


# Idle ones, and what is due


def test_an_idle_timeline_has_no_task_and_the_next_news_begin_another(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        for _ in range(2):
            log.write()
            await world.source.tell(key)
            await until(lambda: world.reached(key) == log.end)
            reached = now()
            assert world.follower.active() == 1
            await until(lambda: world.follower.active() == 0)
            assert now() - reached == pytest.approx(LINGER_MS / 1000, rel=0.1)

    play(tmp_path, story)


def test_a_timeline_without_news_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when it is told of again, nor for the first time: ten thousand are after a start."""

    async def story(world: World) -> None:
        key, gone = world.timeline(), world.log(4)
        loaded: list[object] = []
        monkeypatch.setattr(world.repository, "get", lambda *asked: loaded.append(asked))
        for _ in range(5):
            await world.source.tell(key)
            await world.source.tell(gone)
            await settle()
        assert loaded == []
        assert not world.source.reads

    play(tmp_path, story)


def test_small_advances_are_read_at_a_pace(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        for _ in range(1000):
            log.write()
            await world.source.tell(key)
            await asyncio.sleep(PACE_SECONDS / 100)
        assert 9 <= len(world.source.reads) <= 12

    play(tmp_path, story)


def test_what_somebody_waits_for_is_due_at_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        log.write()
        await world.source.tell(key)
        await until(lambda: world.reached(key) == log.end)
        log.write()
        await world.source.tell(key)
        await settle()
        began = now()
        await world.wait(key, log.end)
        assert now() - began < PACE_SECONDS / 10

    play(tmp_path, story)


def test_who_asks_how_far_it_is_makes_it_due_at_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        log.write()
        await world.source.tell(key)
        await until(lambda: world.reached(key) == log.end)
        log.write()
        await world.source.tell(key)
        await settle()
        world.follower.hasten(key)
        began = now()
        await until(lambda: world.reached(key) == log.end)
        assert now() - began < PACE_SECONDS / 10

    play(tmp_path, story)


def test_who_waits_for_what_was_not_told_yet_has_it_asked_for(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        end = world.logs[key].write()
        waiting = world.wait(key, end)
        await until(lambda: bool(world.source.reads))
        await asyncio.sleep(1)
        assert not waiting.done()
        await world.source.tell(key)
        await until(waiting.done, PACE_SECONDS / 10)
        await waiting

    play(tmp_path, story)


def test_a_timeline_that_appears_after_its_news_is_taken_in(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.log()
        log = world.logs[key]
        log.write()
        await world.source.tell(key)
        await settle()
        assert not world.source.reads
        world.timeline()
        world.follower.appeared(key)
        await until(lambda: world.reached(key) == log.end)

    play(tmp_path, story)


# Room, and the end


def test_ingest_waits_for_room(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        log.write(3)
        world.bound.room.clear()
        await world.source.tell(key)
        await asyncio.sleep(600)
        assert world.reached(key) == START
        assert world.bound.touched == []
        world.bound.room.set()
        await until(lambda: world.reached(key) == log.end)
        assert world.bound.touched == [key]

    play(tmp_path, story)


def test_a_timeline_that_is_dropped_ends_its_task(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        waiting = world.wait(key, log.write())
        await until(lambda: bool(world.source.reads))
        async with world.follower.without(key):
            with pytest.raises(NotFound, match="was deleted"):
                await waiting
            assert world.follower.active() == 0
            assert world.source.stopped == {key}
            assert world.bound.forgotten == [key]
            world.repository.delete(*key)
        world.source.reads.clear()
        await world.source.tell(key)
        await settle()
        assert not world.source.reads

    play(tmp_path, story)


def test_what_is_being_taken_in_is_finished_before_a_timeline_goes(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        log.write(3)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.work_seconds = 1.0
        await world.source.tell(key)
        began = await until(lambda: bool(world.source.reads))
        await asyncio.sleep(0.5)
        async with world.follower.without(key):
            assert now() - began == pytest.approx(1.0, abs=0.1)
            reached = world.reached(key)
            await asyncio.sleep(10)
            assert world.reached(key) == reached == log.end

    play(tmp_path, story)


def test_the_commit_lsn_is_the_highest_that_any_has_told(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        log.write(3)
        for source, end in zip(world.sources, (log.ends[3], log.ends[1]), strict=True):
            await source.tell(key, end)
        await settle()
        assert world.follower.commit_lsn(key) == log.end

    play(tmp_path, story, safekeepers=2)
