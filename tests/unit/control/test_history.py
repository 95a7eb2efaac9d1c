"""Points of the past on a plane of fakes, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pagestore.client.points import AtCheckpoint, AtLsn, AtTime
from pagestore.control.history import COMMIT_DEADLINE, INGEST_DEADLINE, NEAR_BYTES
from pagestore.errors import DeadlineExceeded, OutOfRange
from pagestore.ids import Lsn
from tests.unit.control.fakes import RECORD_BYTES, TENANT, Plane, play


def test_an_lsn_that_postgres_just_named_is_waited_for(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        world.commit("one")
        record, clock = world.record(), asyncio.get_running_loop().time
        end = world.logs.timelines[record.timeline].end
        world.wal.behind[record.timeline] = RECORD_BYTES
        told = asyncio.create_task(world.plane.history.resolve(record, AtLsn(Lsn(end))))
        await asyncio.sleep(COMMIT_DEADLINE / 2)
        assert not told.done()
        world.wal.behind.clear()
        assert (await told).lsn == end
        world.wal.behind[record.timeline] = RECORD_BYTES
        for ahead, waits in ((0, True), (2 * NEAR_BYTES, False)):
            began = clock()
            with pytest.raises(OutOfRange) as caught:
                await world.plane.history.resolve(record, AtLsn(Lsn(end + ahead)))
            assert caught.value.reason == "LSN_BEYOND_HEAD"
            assert (clock() - began >= COMMIT_DEADLINE) == waits

    play(tmp_path, story)


def test_a_page_server_that_does_not_get_there_is_named_in_time(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        world.commit("one")
        world.pages.stuck = 1
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlineExceeded, match="has read the WAL up to 0/1,") as caught:
            await world.plane.history.resolve(world.record(), AtTime(world.logs.micros))
        assert caught.value.reason == "LSN_NOT_REACHED"
        assert asyncio.get_running_loop().time() - began < INGEST_DEADLINE + 1

    play(tmp_path, story)


def test_a_date_is_a_checkpoint_or_else_a_day(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        world.commit("one")
        morning = world.logs.micros
        world.commit("two")
        point = AtCheckpoint("2026-11-23", morning)
        world.plane.history._clock = lambda: world.logs.micros
        await world.plane.databases.branch(TENANT, "app", "day", point)
        assert world.content("day") == ["one"]
        await world.plane.past.checkpoint(TENANT, "app", "2026-11-23")
        await world.plane.databases.branch(TENANT, "app", "named", point)
        assert world.content("named") == ["one", "two"]

    play(tmp_path, story)
