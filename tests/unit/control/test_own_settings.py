"""Whose settings are whose, over fakes: no server is started."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pagestore.client.points import AtCheckpoint, Head
from pagestore.control.records import UserSettings, Verb
from pagestore.errors import InvalidInput
from pagestore.postgres.server_log import ServerFailed, ServerLog
from tests.unit.control.fakes import TENANT, Plane, Story, play


async def _a_branch_has_its_parents_settings_and_no_strangers(plane: Plane) -> None:
    databases = plane.plane.databases
    await databases.create(TENANT, "app", settings={"a": "1"})
    plane.session("app").settings["a"] = "2"
    await databases.branch(TENANT, "app", "twig", Head())
    plane.session("app").settings["a"] = "3"
    await databases.remove(TENANT, "app")
    await databases.create(TENANT, "app", settings={"a": "stranger"})
    await databases.wake(TENANT, "twig")
    assert plane.session("twig").settings == {"a": "2"}
    assert plane.session("app").settings == {"a": "stranger"}


async def _a_restore_and_its_undo_leave_settings_alone(plane: Plane) -> None:
    await plane.plane.databases.create(TENANT, "app")
    await plane.plane.past.checkpoint(TENANT, "app", "before")
    plane.commit("x")
    plane.session().settings["a"] = "1"
    await plane.plane.past.restore(TENANT, "app", AtCheckpoint("before"))
    assert plane.session().settings == {"a": "1"}
    assert plane.record().settings == UserSettings(wanted={"a": "1"}, good={"a": "1"})


async def _what_is_set_aside_is_an_event(plane: Plane) -> None:
    log = plane.state.directory / "log"
    log.write_text("FATAL:  no memory\n")

    await plane.plane.databases.create(TENANT, "app", settings={"a": "1"})
    plane.session().settings["b"] = "900GB"
    await plane.plane.databases.stop(TENANT, "app")
    refusals = [ServerFailed(ServerLog(log), 1)]
    plane.launcher.refuse = lambda record: refusals.pop() if refusals else None
    await plane.plane.databases.wake(TENANT, "app")
    assert plane.session().settings == {"a": "1"}
    assert plane.record().settings.set_aside == {"b": "900GB"}
    event = plane.state.view().events(TENANT, "app")[-1]
    assert event.verb is Verb.SETTINGS
    assert event.detail.endswith("b = 900GB (no memory)")


async def _settings_of_what_is_stopped_are_changed_in_its_record(plane: Plane) -> None:
    verbs = plane.plane.own_settings
    await plane.plane.databases.create(TENANT, "app", settings={"a": "1", "b": "2"})
    await plane.plane.databases.stop(TENANT, "app")
    shown = await verbs.change(TENANT, "app", {"C": "3"}, ["B"])
    assert shown.settings.wanted == {"a": "1", "c": "3"}
    assert (await verbs.shown(TENANT, "app")).settings.wanted == {"a": "1", "c": "3"}
    await plane.plane.databases.wake(TENANT, "app")
    assert plane.session().settings == {"a": "1", "c": "3"}


def _kept_by_name(plane: Plane, name: str, text: bytes) -> None:
    """As it was kept of old."""
    with plane.state.change() as change:
        change._put("auto_conf", TENANT.raw + name.encode(), text)


async def _settings_that_were_kept_by_name_are_taken_over(plane: Plane) -> None:
    databases = plane.plane.databases
    await databases.create(TENANT, "app")
    await databases.branch(TENANT, "app", "twig", Head())
    await databases.wake(TENANT, "twig")
    await plane.plane.past.checkpoint(TENANT, "twig", "here")
    plane.commit("x", "twig")
    await plane.plane.past.restore(TENANT, "twig", AtCheckpoint("here"))
    await databases.create(TENANT, "lost")
    await databases.branch(TENANT, "lost", "orphan", Head())
    await databases.remove(TENANT, "lost")
    await databases.create(TENANT, "lost")
    _kept_by_name(plane, "app", b"work_mem = '1MB'\nfsync = 'on'\n")
    _kept_by_name(plane, "lost", b"work_mem = '2MB'\n")
    for _ in range(2):
        plane.new_plane()
        assert plane.record("app").settings.wanted == {"work_mem": "1MB"}
        assert plane.record("twig").settings.wanted == {"work_mem": "1MB"}
        assert plane.record("lost").settings.wanted == {"work_mem": "2MB"}
        assert plane.record("orphan").settings.wanted == {}


STORIES: list[Story] = [
    _a_branch_has_its_parents_settings_and_no_strangers,
    _a_restore_and_its_undo_leave_settings_alone,
    _what_is_set_aside_is_an_event,
    _settings_of_what_is_stopped_are_changed_in_its_record,
    _settings_that_were_kept_by_name_are_taken_over,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.strip("_"))
def test_that(story: Story, tmp_path: Path) -> None:
    play(tmp_path, story)


def test_how_long_a_database_may_idle_is_its_own_and_its_branches(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        databases, settings = plane.plane.databases, plane.plane.own_settings
        await databases.create(TENANT, "app")

        async def said(name: str) -> list[float | None]:
            running = [item.idle for item in plane.plane.places.awake() if item.place.name == name]
            return [(await plane.plane.places.find(name)).idle, *running]

        assert await said("app") == [None, None], "the proxy's"
        for seconds in (30.0, math.inf, None, 2.5):
            await settings.change_idle(TENANT, "app", seconds)
            assert await said("app") == [seconds, seconds]
        for wrong in (0.0, -1.0, math.nan):
            with pytest.raises(InvalidInput):
                await settings.change_idle(TENANT, "app", wrong)
        await databases.branch(TENANT, "app", "twig", Head())
        assert await said("twig") == [2.5]
        await plane.plane.past.checkpoint(TENANT, "app", "then")
        assert await said("app@then") == [None]

    play(tmp_path, story)
