"""Places that the proxy wakes and puts to sleep, and who is told before their computes end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pagestore.client.points import AtCheckpoint
from pagestore.control.places import place_of
from pagestore.control.records import DatabaseRecord
from pagestore.errors import NotFound
from tests.unit.control.fakes import TENANT, Plane, play


def test_what_was_put_to_sleep_stays_so_when_the_control_plane_starts_anew(
    tmp_path: Path,
) -> None:
    async def story(world: Plane) -> None:
        for name in ("asleep", "awake"):
            await world.plane.databases.create(TENANT, name)
            place = place_of(world.record(name))
            assert await world.plane.places.stop(place) == ""
            assert not world.session(name).alive
        await world.plane.places.start(place_of(world.record("awake")))
        awake = world.session("awake")
        world.launcher.left = [awake]
        started = len(world.launcher.started)
        plane = world.new_plane()
        await plane.recover()
        assert [item.place.name for item in plane.places.awake()] == ["awake"]
        assert awake.alive, "it is taken over"
        assert len(world.launcher.started) == started, "nothing is started"
        await plane.close()

    play(tmp_path, story)


def test_who_is_in_there_past_the_proxy_keeps_a_place_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        compute = world.session()

        async def two() -> int:
            return 2

        monkeypatch.setattr(compute, "strangers", two)
        assert await world.plane.places.stop(place_of(world.record())) == (
            "sessions past the proxy: 2"
        )
        assert compute.alive

    play(tmp_path, story)


def test_a_place_is_the_same_under_another_name_and_gone_with_its_database(
    tmp_path: Path,
) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        place = place_of(world.record())
        await world.plane.databases.rename(TENANT, "app", "other")
        await world.plane.databases.create(TENANT, "app")
        compute: Any = await world.plane.places.start(place)
        assert compute is world.session("other")
        await world.plane.databases.remove(TENANT, "other")
        assert await world.plane.places.stop(place) == ""
        with pytest.raises(NotFound):
            await world.plane.places.start(place)
        assert world.session("app").alive

    play(tmp_path, story)


class Told:
    """Sessions that are carried out, and whether their compute still ran then."""

    def __init__(self, world: Plane) -> None:
        self._world = world
        self.words: list[tuple[str, bool, bool]] = []

    async def carry_out(
        self, record: DatabaseRecord, message: str, hint: str = "", *, end_all: bool = False
    ) -> None:
        timeline = record.timeline
        computes = [item for item in self._world.launcher.started if item.timeline == timeline]
        self.words.append((message, end_all, computes[-1].alive))


def test_sessions_are_carried_out_before_their_compute_ends(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        told = Told(world)
        plane = world.new_plane(sessions=told)
        await plane.databases.create(TENANT, "app")
        await plane.past.checkpoint(TENANT, "app", "start")
        world.commit("one")
        await plane.past.restore(TENANT, "app", AtCheckpoint("start"))
        await plane.databases.stop(TENANT, "app")
        await plane.databases.wake(TENANT, "app")
        await plane.databases.remove(TENANT, "app")
        assert told.words == [
            ("app was taken to checkpoint start (restore)", False, True),
            ("app is stopped", False, True),
            ("app was removed", True, True),
        ]
        await plane.close()

    play(tmp_path, story)
