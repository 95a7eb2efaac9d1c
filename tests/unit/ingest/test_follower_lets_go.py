"""A timeline that goes: nobody takes it in any more, and nobody holds its files."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from pagestore.errors import FailedPrecondition, NotFound
from pagestore.ingest.waiters import TimelineKey
from pagestore.services.page_access import PageAccess
from tests.unit.garbage import uncollected
from tests.unit.ingest.fakes import Read, World, play
from tests.unit.virtual_time import until


def test_what_is_about_to_go_is_not_followed_anew_and_what_stays_is(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        async with world.follower.without(key):
            waiting = world.wait(key, log.write())
            await world.source.tell(key)
            await asyncio.sleep(10)
            assert not world.source.reads
        await waiting  # it was not deleted
        assert world.reached(key) == log.end

    play(tmp_path, story)


@pytest.mark.parametrize("safekeepers", [1, 3])
@pytest.mark.parametrize("how", ["deleted", "gone there", "damaged"])
def test_who_is_not_followed_any_more_is_held_by_nobody(
    tmp_path: Path, how: str, safekeepers: int
) -> None:
    """Else its files stay on the disk after its deletion, for as long as Python likes."""

    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        log.write(3)
        if how == "deleted":
            world.bound.room.clear()
        for source in world.sources:
            if how == "damaged":
                source.copies[key] = log.damaged(1)
            elif how == "gone there":
                source.serve = gone_there
            await source.tell(key)
        await until(lambda: any(source.reads for source in world.sources))
        if how == "deleted":  # by somebody who has not told the follower
            world.repository.delete(*key)
            world.bound.room.set()
        await until(lambda: world.follower.active() == 0)
        assert (world.follower.failure(key) is None) == (how != "damaged")
        assert held(world, key) == (how != "deleted")
        if how != "deleted":
            world.repository.delete(*key)
            assert not held(world, key)

    with uncollected():
        play(tmp_path, story, safekeepers)


def test_a_failure_that_is_told_again_and_again_does_not_grow(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = world.timeline()
        log = world.logs[key]
        log.write(3)
        world.source.copies[key] = log.damaged(1)
        await world.source.tell(key)
        await until(lambda: world.follower.failure(key) is not None)
        nothing: Any = None
        access = PageAccess(
            world.repository, world.waiters, nothing, world.follower, *[nothing] * 5
        )
        depths = []
        for _ in range(3):
            try:
                await access.reach(world.found(key), log.end, 1000)
            except FailedPrecondition as error:
                depths.append(len(traceback.extract_tb(error.__traceback__)))
        assert depths == [2, 2, 2]

    play(tmp_path, story)


async def gone_there(read: Read) -> AsyncGenerator[bytes, None]:
    raise NotFound("TIMELINE_NOT_FOUND", "Deleted there.")
    yield b""


def held(world: World, key: TimelineKey) -> bool:
    """Whether there is a file of it still."""
    return any((world.repository.store.root / str(key[0]) / str(key[1])).glob("*"))
