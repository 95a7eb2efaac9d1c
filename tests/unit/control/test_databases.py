"""Databases come and go: what a verb that fails leaves behind is nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from pagestore.client.points import Head
from pagestore.control.compute import NOWHERE
from pagestore.control.credentials import direct_url
from pagestore.control.records import TimelineState
from pagestore.control.timelines import planned
from pagestore.errors import (
    AlreadyExists,
    InvalidInput,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from tests.unit.control.fakes import TEMPLATE, TENANT, Plane, play

REFUSED = Unavailable("COMPUTE_FAILED", "refused by the test")


async def _nothing_stays(world: Plane, verb: str) -> None:
    """Neither name nor timeline, at any service."""
    databases = world.plane.databases
    begun = {
        "create": lambda: databases.create(TENANT, "new"),
        "branch": lambda: databases.branch(TENANT, "app", "new", Head()),
        "import": lambda: _import(world),
    }
    with pytest.raises(PagestoreError):
        await begun[verb]()
    await world.settled()
    assert world.state.view().database(TENANT, "new") is None
    assert world.live() == {TEMPLATE, world.record().timeline}
    assert world.state.view().unsettled() == []
    assert set(world.logs.timelines) == world.wal.known == world.live()


async def _import(world: Plane) -> None:
    databases = world.plane.databases
    timeline = await databases.begin_import(TENANT, "new")
    await world.pages.create_timeline(TENANT, timeline, TEMPLATE, 1 << 20)
    await databases.register(TENANT, "new", timeline, prev_record_lsn=1, system_id=1)


@pytest.mark.parametrize("verb", ["create", "branch", "import"])
def test_a_compute_that_does_not_start_leaves_nothing(tmp_path: Path, verb: str) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        await world.plane.own_settings.reset_password(TENANT, "app")  # which a branch has to learn
        world.launcher.refuse = lambda record: REFUSED
        await _nothing_stays(world, verb)

    play(tmp_path, story)


def test_a_page_server_that_is_away_leaves_nothing(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        world.pages.away = True
        with pytest.raises(Unavailable):
            await world.plane.databases.branch(TENANT, "app", "new", Head())
        await world.settled()
        # Its pages never came to be, so its log alone had to go.
        assert world.wal.known == world.live() == {TEMPLATE, world.record().timeline}

    play(tmp_path, story)


def test_a_new_control_plane_drops_what_was_pending(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        point = await world.plane.history.head(world.record().timeline)
        made = world.plane._timelines.branching(TENANT, "app", point)
        begun = await made.__aenter__()
        assert world.state.view().unsettled() == [begun.begun]
        world.plane = world.new_plane()
        await world.plane.recover()
        await world.settled()
        assert world.live() == world.wal.known == {TEMPLATE, world.record().timeline}
        assert begun.begun.state is TimelineState.PENDING

    play(tmp_path, story)


def test_a_name_with_an_at_is_refused_and_an_old_one_works(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        databases = world.plane.databases
        record, _ = await databases.create(TENANT, "app")
        for refused in (
            lambda: databases.create(TENANT, "a@b"),
            lambda: databases.branch(TENANT, "app", "a@b", Head()),
            lambda: databases.begin_import(TENANT, "a@b"),
            lambda: databases.rename(TENANT, "app", "a@b"),
        ):
            with pytest.raises(InvalidInput, match="past"):
                await refused()
        with world.state.change() as change:
            change.rename_database(record, "me@home")
        await databases.wake(TENANT, "me@home")
        assert (await databases.create(TENANT, "me@home", if_not_exists=True))[1] is False
        await databases.branch(TENANT, "me@home", "twig", Head())
        await databases.rename(TENANT, "me@home", "app")

    play(tmp_path, story)


def test_one_of_two_creates_wins_and_both_are_told(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        record, created = await world.plane.databases.create(TENANT, "app")
        assert created
        with pytest.raises(AlreadyExists):
            await world.plane.databases.create(TENANT, "app")
        again, created = await world.plane.databases.create(TENANT, "app", if_not_exists=True)
        assert (again, created) == (record, False)

    play(tmp_path, story)


def test_a_branch_and_a_new_control_plane_start_nothing(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        databases = world.plane.databases
        await databases.create(TENANT, "app")
        await databases.branch(TENANT, "app", "twig", Head())
        await databases.branch(TENANT, "app", "twig", Head(), if_not_exists=True)
        await databases.stop(TENANT, "app")
        await databases.create(TENANT, "app", if_not_exists=True)
        await databases.rename(TENANT, "app", "shop")
        await world.plane.close()
        world.plane = world.new_plane()
        await world.plane.recover()
        await world.settled()
        assert len(world.launcher.started) == 1, "by `create`, which sets the password"
        assert not world.launcher.started[0].alive
        await world.plane.databases.wake(TENANT, "twig")
        assert world.session("twig").alive

    play(tmp_path, story)


def test_a_database_without_a_proxy_has_the_url_of_the_place_where_it_runs(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        record, _ = await world.plane.databases.create(TENANT, "app")
        place = world.computes.status((TENANT, "app")).place
        assert direct_url(record, place, "a b") == (
            "postgresql://postgres:a%20b@/app?host=%2Fnowhere&port=5432"
        )
        reached = replace(place, address="10.0.0.7:21000")
        assert direct_url(record, reached) == "postgresql://postgres@10.0.0.7:21000/app"
        assert direct_url(record, NOWHERE) == ""

    play(tmp_path, story)


def test_a_control_plane_begins_where_nothing_can_be_written_and_tidies_up_later(
    tmp_path: Path,
) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        await world.plane.close()
        with world.state.change() as change:
            change.put_timeline(planned(TENANT, "half"))
        world.plane = world.new_plane()
        with pytest.MonkeyPatch.context() as full:
            full.setattr(world.state, "change", _full)
            await world.plane.recover()
            await world.settled()
            assert world.session("app").alive
        assert len(world.state.view().unsettled()) == 1
        await world.plane.collect()
        assert world.state.view().unsettled() == []

    play(tmp_path, story)


def _full() -> NoReturn:
    raise ResourceExhausted("STORE_FULL", "There is no room.")
