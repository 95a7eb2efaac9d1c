"""When safekeepers are told what they may drop: seldom, all at once, and until they have heard."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pagestore.ingest import releases
from pagestore.ingest.releases import RELEASE_SECONDS
from tests.unit.ingest.fakes import START, World, play
from tests.unit.virtual_time import until


def test_what_is_durable_is_told_once_to_every_safekeeper(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        world.logs[key].write()
        await world.source.tell(key)
        await until(lambda: world.reached(key) == world.logs[key].end)
        # Read for the first time: they shall keep what comes from here on.
        await until(lambda: all(source.released for source in world.sources))
        assert world.source.released[0][1:] == ("page", {key: START})
        world.found(key).freeze()
        world.found(key).flush()
        world.bound.on_flushed(key)
        await until(lambda: len(world.source.released) == 2)
        assert world.source.released[1][2] == {key: world.logs[key].end}
        await asyncio.sleep(20 * RELEASE_SECONDS)
        assert [len(source.released) for source in world.sources] == [2, 2]

    play(tmp_path, story, safekeepers=2)


def test_many_timelines_are_told_together_in_batches(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(releases, "BATCH", 3)

    async def story(world: World) -> None:
        keys = [world.timeline(number) for number in range(1, 8)]
        for key in keys:
            world.bound.on_flushed(key)
        await asyncio.sleep(2 * RELEASE_SECONDS)
        told = [said for _, _, said in world.source.released]
        assert [len(said) for said in told] == [3, 3, 1]
        assert {key for said in told for key in said} == {*keys}

    play(tmp_path, story)


def test_who_is_away_is_told_when_it_is_back_and_the_others_do_not_wait(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        away, there = world.sources
        await away.break_off()
        world.bound.on_flushed(key)
        await until(lambda: bool(there.released), 2 * RELEASE_SECONDS)
        assert away.release_attempts == 0
        away.away = False
        await until(lambda: bool(away.released), 2 * RELEASE_SECONDS)
        assert away.released[0][2] == {key: START}

    play(tmp_path, story, safekeepers=2)


def test_a_word_that_was_not_heard_is_said_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        source = world.source
        # Its subscription still stands, so that nobody knows it is away.
        source.away = True
        world.bound.on_flushed(key)
        await asyncio.sleep(3 * RELEASE_SECONDS)
        source.away = False
        await until(lambda: bool(source.released), 2 * RELEASE_SECONDS)
        assert source.released[0][2] == {key: START}

    play(tmp_path, story)


def test_a_deleted_timeline_holds_up_nobody(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        gone, there = world.timeline(2), world.timeline(4)
        world.repository.delete(*gone)
        world.bound.on_flushed(gone)
        world.bound.on_flushed(there)
        await until(lambda: bool(world.source.released))
        assert world.source.released[0][2] == {there: START}

    play(tmp_path, story)
