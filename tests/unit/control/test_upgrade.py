"""The verb `upgrade` on a plane of fakes: where the name is afterwards, what a client reads there,
who is let in meanwhile, and that whatever fails changes nothing. Each step that may fail is failed
in test_making.py."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from pagestore.client.points import AtCheckpoint, AtLsn, AtTime, Head
from pagestore.control import turns
from pagestore.control.moves import Asked, Moved
from pagestore.control.records import DatabaseRecord, Verb
from pagestore.control.state import now_micros
from pagestore.control.timelines import planned
from pagestore.errors import (
    Aborted,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutOfRange,
    PagestoreError,
    Unavailable,
)
from pagestore.postgres.server_log import ServerFailed
from pagestore.v1 import compute_pb2
from tests.unit.control.fakes import TENANT, FakeUpgrader, Plane, play

REFUSED = FailedPrecondition("UPGRADE_REFUSED", "pg_upgrade to Postgres 17 refuses: reg* types.")


async def made(world: Plane) -> FakeUpgrader:
    """A database with "one" in it, and what upgrades it."""
    await world.plane.databases.create(TENANT, "app")
    world.commit("one")
    return FakeUpgrader(world.logs)


def major(world: Plane, name: str = "app") -> int:
    return world.state.view().known_timeline(world.record(name).timeline).major


async def upgrade(world: Plane, agent: FakeUpgrader, to: int = 17, **asked: Any) -> Moved:
    return await world.upgrades(agent).upgrade(TENANT, "app", to, Asked(**asked))


def test_an_upgraded_database_says_what_it_said_and_is_of_the_new_major(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        before = world.record()
        done = await upgrade(world, agent)
        assert done.changed
        assert (major(world), world.content()) == (17, ["one"])
        world.commit("two")
        assert world.content() == ["one", "two"]
        # All but the timeline is as it was: its name, password, and inner database.
        assert world.record().model_copy(update={"timeline": before.timeline}) == before
        assert done.kept is not None
        assert (done.kept.name, done.kept.timeline) == ("before-upgrade-1", before.timeline)
        assert agent.asked[0].lsn == done.kept.lsn
        log = world.plane.past.log(TENANT, "app")
        assert [item.verb for item in log if hasattr(item, "verb")] == [Verb.UPGRADE, Verb.CREATE]

    play(tmp_path, story)


def test_undo_goes_back_to_the_old_major_and_redo_forward(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await upgrade(world, await made(world))
        past = world.plane.past
        assert (await past.undo(TENANT, "app")).changed
        assert (major(world), world.content()) == (15, ["one"])
        assert not (await past.undo(TENANT, "app")).changed
        assert (await past.redo(TENANT, "app")).changed
        assert (major(world), world.content()) == (17, ["one"])
        world.commit("two")
        # As after any move: first what was committed since, and the move itself by its name.
        await past.undo(TENANT, "app")
        assert (major(world), world.content()) == (17, ["one"])
        await past.restore(TENANT, "app", AtCheckpoint("before-upgrade-1"))
        assert (major(world), world.content()) == (15, ["one"])
        await past.undo(TENANT, "app")
        assert (major(world), world.content()) == (17, ["one"])

    play(tmp_path, story)


def test_what_was_before_an_upgrade_stays_where_and_of_what_it_was(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        databases, past, history = world.plane.databases, world.plane.past, world.plane.history
        await databases.branch(TENANT, "app", "child", Head())
        point = await past.checkpoint(TENANT, "app", "c")
        world.logs.micros = now_micros()  # the computes' clock is that of the control plane
        world.commit("two")
        micros = world.logs.micros
        while now_micros() <= micros:
            time.sleep(0.001)
        old = world.record().timeline
        await upgrade(world, agent)
        world.commit("three")
        assert (major(world, "child"), world.content("child")) == (15, ["one"])
        await databases.branch(TENANT, "app", "late", Head())
        assert (major(world, "late"), world.content("late")) == (17, ["one", "two", "three"])
        for name in ("app", "late"):  # whose own timelines begin after all that
            record = world.record(name)
            for place in (AtCheckpoint("c"), AtLsn(point.lsn), AtTime(micros)):
                found = await history.resolve(record, place)
                assert (found.timeline.timeline, found.timeline.major) == (old, 15), (name, place)
        await databases.branch(TENANT, "app", "back", AtLsn(point.lsn))
        assert (major(world, "back"), world.content("back")) == (15, ["one"])
        with pytest.raises(OutOfRange) as caught:
            await history.resolve(world.record(), AtLsn(world.record().branch_lsn - 1))
        assert caught.value.reason == "POINT_TOO_OLD"

    play(tmp_path, story)


def test_a_branch_is_reset_to_a_parent_that_was_upgraded_and_undone(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        await world.plane.databases.branch(TENANT, "app", "child", Head())
        await upgrade(world, agent)
        await world.plane.past.reset(TENANT, "child")
        assert major(world, "child") == 17
        await world.plane.past.undo(TENANT, "child")
        assert (major(world, "child"), world.content("child")) == (15, ["one"])

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("database", "to", "reason"),
    [
        ("app", 15, "SAME_MAJOR"),
        ("app", 14, "LOWER_MAJOR"),
        ("app", 16, "POSTGRES_MISSING"),
        ("app", 0, "MAJOR_REQUIRED"),
        ("nobody", 17, "DATABASE_NOT_FOUND"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_cannot_be_upgraded_is_refused_by_name(
    tmp_path: Path, database: str, to: int, reason: str, dry_run: bool
) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        session, before = world.session(), world.record()
        verb = world.upgrades(agent).upgrade(TENANT, database, to, Asked(dry_run=dry_run))
        with pytest.raises((FailedPrecondition, InvalidInput, NotFound)) as caught:
            await verb
        assert caught.value.reason == reason
        assert session.alive, "nobody was sent away"
        assert (world.record(), agent.asked) == (before, [])

    play(tmp_path, story)


def test_pg_upgrades_refusal_changes_nothing_and_is_told_in_its_words(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        agent.meanwhile = _refuse
        before = world.record()
        for _ in range(2):
            with pytest.raises(FailedPrecondition, match=r"app stays where it was; .*reg\*") as it:
                await upgrade(world, agent, request="one")
            assert it.value.reason == "UPGRADE_REFUSED"
        await world.settled()
        assert world.record() == before
        assert world.state.view().unsettled() == []
        await world.plane.databases.wake(TENANT, "app")
        assert world.content() == ["one"]

    play(tmp_path, story)


async def _refuse() -> None:
    raise REFUSED


def test_a_dry_run_checks_while_the_database_goes_on(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        before, session = world.record(), world.session()

        async def writes() -> None:
            session.commit("two")

        agent.meanwhile = writes
        done = await upgrade(world, agent, dry_run=True)
        assert not done.changed
        assert agent.asked[0].new_timeline_id == b""
        assert (world.record(), session.alive) == (before, True)
        agent.meanwhile = _refuse
        with pytest.raises(FailedPrecondition) as caught:
            await upgrade(world, agent, dry_run=True)
        assert caught.value is REFUSED

    play(tmp_path, story)


def test_nobody_writes_while_it_is_upgraded_and_who_comes_is_told_why(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        session = world.session()
        told: list[PagestoreError] = []

        async def long() -> None:
            assert not session.alive
            began = asyncio.get_running_loop().time()
            with pytest.raises(FailedPrecondition) as caught:
                await world.plane.databases.wake(TENANT, "app")
            told.append(caught.value)
            waited = asyncio.get_running_loop().time() - began
            assert waited == pytest.approx(turns.PATIENCE_SECONDS, abs=1)

        agent.meanwhile = long
        await upgrade(world, agent)
        assert [error.reason for error in told] == ["UPGRADE_UNDER_WAY"]
        await world.plane.databases.wake(TENANT, "app")

    play(tmp_path, story)


def test_who_comes_shortly_before_it_is_done_gets_in_and_notices_nothing(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        wakes: list[asyncio.Task[DatabaseRecord]] = []

        async def short() -> None:
            wakes.append(asyncio.create_task(world.plane.databases.wake(TENANT, "app")))
            await asyncio.sleep(turns.PATIENCE_SECONDS / 2)

        agent.meanwhile = short
        await upgrade(world, agent)
        assert (await wakes[0]).timeline == world.record().timeline

    play(tmp_path, story)


def test_a_commit_that_nobody_should_have_made_meanwhile_is_not_lost(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        before = world.record()

        async def writes() -> None:
            world.logs.write(before.timeline, "two")

        agent.meanwhile = writes
        with pytest.raises(Aborted) as caught:
            await upgrade(world, agent)
        assert caught.value.reason == "WRITTEN_MEANWHILE"
        await world.settled()
        assert (world.record(), world.content()) == (before, ["one", "two"])
        assert world.live() == {before.timeline} | {
            item.timeline for item in world.state.view().templates().values()
        }

    play(tmp_path, story)


def test_one_whose_new_server_does_not_start_has_not_happened(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        before = world.record()
        away = Unavailable("COMPUTE_FAILED", "It does not start.")
        world.launcher.refuse = lambda record: away if record.timeline != before.timeline else None
        with pytest.raises(Unavailable, match="app stays where it was"):
            await upgrade(world, agent)
        world.launcher.refuse = lambda record: None
        assert world.record() == before
        await world.plane.databases.wake(TENANT, "app")
        assert (await upgrade(world, agent)).changed

    play(tmp_path, story)


def test_one_killed_while_pg_upgrade_is_at_work_has_not_happened(tmp_path: Path) -> None:
    """A new control plane on the same state drops the root that was to be."""

    async def story(world: Plane) -> None:
        agent = await made(world)
        before = world.record()
        made_one = world.plane._timelines.making(planned(TENANT, "app"))
        root = await made_one.__aenter__()
        await world.computes.stop((TENANT, "app"))
        request = compute_pb2.UpgradeTimelineRequest(
            timeline_id=before.timeline.raw, new_timeline_id=root.timeline.raw, lsn=1 << 40
        )
        await agent.upgrade(request, lambda step, done, total: None)
        assert root.timeline in world.logs.timelines
        await world.plane.close()
        world.plane = world.new_plane()
        await world.plane.recover()
        await world.settled()
        assert world.state.view().unsettled() == []
        assert root.timeline not in world.logs.timelines
        assert world.record() == before
        await world.plane.databases.wake(TENANT, "app")
        assert world.content() == ["one"]

    play(tmp_path, story)


def test_one_sent_again_under_its_id_has_the_same_answer(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        first = await upgrade(world, agent, request="one")
        world.commit("two")
        again = await upgrade(world, agent, request="one")
        assert (again.changed, again.summary) == (True, first.summary)
        assert again.kept == first.kept
        assert len(agent.asked) == 1
        assert world.content() == ["one", "two"]

    play(tmp_path, story)


def test_settings_that_the_new_server_does_not_know_are_set_aside_alone(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        agent = await made(world)
        settings = {"work_mem": "7MB", "old_snapshot_threshold": "1h"}
        session = world.session()
        await world.plane.own_settings.change(TENANT, "app", settings, ())
        await world.plane.databases.stop(TENANT, "app")
        await world.plane.databases.wake(TENANT, "app")
        assert world.record().settings.good == settings
        assert not session.alive
        known = world.launcher.start

        async def start(record: DatabaseRecord, kept: Any) -> Any:
            if "old_snapshot_threshold" in kept.settings and record.timeline != old:
                words = 'unrecognized configuration parameter "old_snapshot_threshold"'
                raise ServerFailed.told("It ended.", "", complaint=words, status=1)
            return await known(record, kept)

        old = world.record().timeline
        world.launcher.start = start  # type: ignore[method-assign]
        await upgrade(world, agent)
        now = world.record().settings
        assert now.wanted == now.good == {"work_mem": "7MB"}
        assert now.set_aside == {"old_snapshot_threshold": "1h"}
        assert "old_snapshot_threshold" in now.complaint

    play(tmp_path, story)


def test_what_does_not_go_along_is_said(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await made(world)
        world.pages.slots = ["feed"]
        done = await upgrade(world, FakeUpgrader(world.logs, ["No statistics."]))
        assert done.remarks[0] == "No statistics."
        assert "feed" in done.remarks[1]

    play(tmp_path, story)
