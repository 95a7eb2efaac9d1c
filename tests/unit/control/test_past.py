"""The verbs that move a name, on a plane of fakes: what a client reads, who may still write, what a
retry is told, and where the name is when a move fails."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import nullcontext
from pathlib import Path

import pytest

from pagestore.client.points import AtCheckpoint, AtTime, Head
from pagestore.control.moves import Asked, Moved
from pagestore.control.records import REMEMBERED_ANSWERS, CheckpointRecord, EventRecord, Verb
from pagestore.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutOfRange,
    Unavailable,
)
from tests.unit.control.fakes import TENANT, Plane, play
from tests.unit.control.undo_model import VERBS, Model

REFUSED = Unavailable("COMPUTE_FAILED", "superuser_reserved_connections must be less than 100.")
DAY = 86_400_000_000


async def damaged(world: Plane) -> None:
    """A database with a checkpoint `base` that holds "good", and damage after it."""
    await world.plane.databases.create(TENANT, "app")
    world.commit("good")
    await world.plane.past.checkpoint(TENANT, "app", "base")
    world.commit("damage")


async def undo(world: Plane, request: str = "", to: str = "") -> Moved:
    return await world.plane.past.undo(TENANT, "app", to, Asked(request))


async def restore(world: Plane, checkpoint: str = "base", request: str = "") -> Moved:
    point = AtCheckpoint(checkpoint)
    return await world.plane.past.restore(TENANT, "app", point, Asked(request))


def test_undo_twice_after_damage_goes_back_once(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        first, second = await undo(world), await undo(world)
        assert (first.changed, second.changed) == (True, False)
        assert "Nothing was committed" in second.summary
        assert world.content() == ["good"]
        again = await world.plane.past.redo(TENANT, "app")
        assert again.changed
        assert world.content() == ["good", "damage"]

    play(tmp_path, story)


def test_undo_never_passes_a_newer_checkpoint(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        await undo(world)
        world.commit("more")
        await world.plane.past.checkpoint(TENANT, "app", "c2")
        done = await undo(world)
        assert not done.changed
        assert world.content() == ["good", "more"]
        with pytest.raises(FailedPrecondition) as caught:
            await undo(world, to="base")
        assert caught.value.reason == "NEWER_CHECKPOINT"
        await world.plane.past.delete_checkpoint(TENANT, "app", "c2")
        assert (await undo(world, to="base")).changed
        assert not (await undo(world, to="base")).changed
        assert world.content() == ["good"]

    play(tmp_path, story)


def test_every_short_sequence_does_what_a_user_expects(tmp_path: Path) -> None:
    """The whole way, with timelines, computes and LMDB; undo_model.py says what that is."""

    async def story(world: Plane) -> None:
        for start, verbs in enumerate(itertools.product(VERBS, repeat=3)):
            name, model = f"db{start}", Model()
            await world.plane.databases.create(TENANT, name)
            for number, verb in enumerate(verbs):
                await _both(world, name, model, verb, number)
                assert tuple(world.content(name)) == model.content, (verbs, number)

    play(tmp_path, story)


async def _both(world: Plane, name: str, model: Model, verb: str, number: int) -> None:
    past = world.plane.past
    if verb == "commit":
        world.commit(f"w{number}", name)
        model.commit(f"w{number}")
    elif verb == "checkpoint":
        await past.checkpoint(TENANT, name, f"c{number}")
        model.checkpoint(f"c{number}")
    elif verb == "restore":
        for first in list(model.checkpoints)[:1]:
            if (await past.restore(TENANT, name, AtCheckpoint(first))).changed:
                model.restore(first)
    elif verb == "redo":
        expected: bool | None = model.redo()
        assert (await past.redo(TENANT, name)).changed == expected
    else:
        expected = model.undo()
        refusal = pytest.raises(FailedPrecondition) if expected is None else nullcontext()
        with refusal:
            assert (await past.undo(TENANT, name)).changed == expected


def _checkpoints(world: Plane, name: str = "app") -> list[CheckpointRecord]:
    return world.state.view().checkpoints(TENANT, name)


# What fails


@pytest.mark.parametrize("verb", ["restore", "undo"])
def test_the_name_moves_only_to_a_compute_that_started(tmp_path: Path, verb: str) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        here = world.record()
        world.launcher.refuse = lambda record: REFUSED if record.timeline != here.timeline else None
        for _ in range(2):
            with pytest.raises(Unavailable, match="app stays where it was; ") as caught:
                await {"restore": restore, "undo": undo}[verb](world, request="one")
            assert caught.value.reason == "COMPUTE_FAILED"
            assert "superuser_reserved" in caught.value.message
            assert world.record() == here
            assert world.computes.running() == 0
        await world.settled()
        assert [item.name for item in _checkpoints(world)] == ["base"]
        assert world.state.view().unsettled() == []
        world.launcher.refuse = lambda record: None
        await {"restore": restore, "undo": undo}[verb](world, request="one")
        assert world.content() == ["good"]

    play(tmp_path, story)


def test_one_killed_before_the_swing_has_not_happened(tmp_path: Path) -> None:
    """The new compute runs, the name is not moved: a new control plane ends the one of a timeline
    that nobody names, and the name wakes where it was."""

    async def story(world: Plane) -> None:
        await damaged(world)
        here = world.record()
        point = await world.plane.history.resolve(here, AtCheckpoint("base"))
        made = world.plane._timelines.branching(TENANT, "app", point)
        timeline = await made.__aenter__()
        await world.computes.stop((TENANT, "app"))
        moved = here.model_copy(update={"timeline": timeline.timeline})
        stray = await world.computes.start(moved)
        await world.plane.close()
        world.launcher.left = [stray]
        world.plane = world.new_plane()
        await world.plane.recover()
        await world.settled()
        assert not stray.alive
        assert world.record() == here
        await world.plane.databases.wake(TENANT, "app")
        assert world.content() == ["good", "damage"]

    play(tmp_path, story)


# Sessions


def test_a_repeated_restore_ends_every_session(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        first = await restore(world)
        session = world.session()
        again = await restore(world)
        assert not session.alive
        assert (first.changed, again.changed) == (True, False)
        assert "already" in again.summary
        assert world.content() == ["good"]
        assert (await undo(world)).changed
        assert world.content() == ["good", "damage"]

    play(tmp_path, story)


@pytest.mark.parametrize("verb", ["restore", "undo", "redo"])
def test_a_commit_that_comes_between_is_not_stepped_over(tmp_path: Path, verb: str) -> None:
    """Decided on that nothing was committed; then an open transaction commits."""

    async def story(world: Plane) -> None:
        await damaged(world)
        await (undo(world) if verb == "redo" else restore(world))
        session = world.session()
        stop = session.stop

        async def stop_after_a_commit() -> object:
            session.commit("late")
            return await stop()

        session.stop = stop_after_a_commit  # type: ignore[method-assign, assignment]
        again = {"restore": restore, "undo": undo, "redo": redo}[verb]
        with pytest.raises(Aborted, match="stays where it was") as caught:
            await again(world)
        assert caught.value.reason == "WRITTEN_MEANWHILE"
        assert world.content() == ["good", "late"]
        await world.plane.databases.wake(TENANT, "app")
        assert world.content() == ["good", "late"]

    play(tmp_path, story)


async def redo(world: Plane) -> Moved:
    return await world.plane.past.redo(TENANT, "app")


# Asked twice


@pytest.mark.parametrize("verb", ["restore", "undo"])
def test_a_retry_of_a_request_is_the_same_move(tmp_path: Path, verb: str) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        ask = {"restore": restore, "undo": undo}[verb]
        first = await ask(world, request="one")
        world.commit("later")
        world.plane = world.new_plane()  # the answer outlives the process
        await world.plane.recover()
        again = await ask(world, request="one")
        assert (again.changed, again.summary, again.kept) == (True, first.summary, first.kept)
        assert world.content() == ["good", "later"]
        other = {"restore": undo, "undo": restore}[verb]
        with pytest.raises(InvalidInput) as caught:
            await other(world, request="one")
        assert caught.value.reason == "REQUEST_ID_TAKEN"

    play(tmp_path, story)


def test_a_retry_of_a_request_that_found_nothing_finds_nothing(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        await undo(world)
        first = await undo(world, request="one")
        world.commit("later")
        again = await undo(world, request="one")
        assert (again.changed, again.summary) == (False, first.summary)
        assert world.content() == ["good", "later"]

    play(tmp_path, story)


def test_answers_are_remembered_within_a_bound(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        for number in range(REMEMBERED_ANSWERS + 5):
            await undo(world, request=f"r{number}")
        answers = world.state.view().answers(TENANT, "app").answers
        assert [item.request for item in answers] == [
            f"r{number}" for number in range(5, REMEMBERED_ANSWERS + 5)
        ]
        with pytest.raises(InvalidInput):
            await undo(world, request="x" * 65)

    play(tmp_path, story)


@pytest.mark.parametrize("same_id", [True, False])
def test_two_at_once_never_end_at_the_damage(tmp_path: Path, same_id: bool) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        ids = ["one", "one" if same_id else "two"]
        done = await asyncio.gather(*(undo(world, request=item) for item in ids))
        assert world.content() == ["good"]
        assert sorted(item.changed for item in done) == [same_id, True]
        assert len(_checkpoints(world)) == 2

    play(tmp_path, story)


def test_a_dry_run_tells_and_does_nothing(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        here, session = world.record(), world.session()
        dry = Asked("one", dry_run=True)
        would = await world.plane.past.undo(TENANT, "app", "", dry)
        assert "would go to checkpoint base" in would.summary
        assert would.point is not None
        assert (would.changed, would.kept) == (False, None)
        assert world.record() == here
        assert session.alive
        done = await undo(world, request="one")  # a dry run is no request that was answered
        assert done.changed
        assert done.point is not None
        assert would.point == done.point

    play(tmp_path, story)


# Clocks


@pytest.mark.parametrize("off", [-DAY, DAY])
def test_a_clock_that_is_a_day_off_changes_nothing(
    tmp_path: Path, off: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Plane) -> None:
        now = world.logs.micros + off
        for module in ("past", "databases", "timelines"):
            monkeypatch.setattr(f"pagestore.control.{module}.now_micros", lambda: now)
        await damaged(world)
        with pytest.raises(AlreadyExists):
            await world.plane.past.checkpoint(TENANT, "app", "base")
        assert (await undo(world)).changed
        world.logs.micros -= 2 * DAY  # the computes' clock is set back as well
        world.commit("good 2")
        await world.plane.past.checkpoint(TENANT, "app", "c2")
        world.commit("damage 2")
        assert (await undo(world)).changed
        assert not (await undo(world)).changed
        assert world.content() == ["good", "good 2"]

    play(tmp_path, story)


def test_the_log_is_in_the_order_of_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Plane) -> None:
        clock = itertools.count(10**15, -1_000_000)  # it runs backwards
        for module in ("past", "databases"):
            monkeypatch.setattr(f"pagestore.control.{module}.now_micros", lambda: next(clock))
        await damaged(world)
        await undo(world)
        await world.plane.past.checkpoint(TENANT, "app", "c2")
        await world.plane.past.delete_checkpoint(TENANT, "app", "c2")
        log = world.plane.past.log(TENANT, "app")
        assert [_said(entry) for entry in log] == [
            *("delete-checkpoint c2", "checkpoint c2", "undo", "[before-undo-1]", "[base]"),
            "create",
        ]

    play(tmp_path, story)


def _said(entry: EventRecord | CheckpointRecord) -> str:
    if isinstance(entry, CheckpointRecord):
        return f"[{entry.name}]"
    named = entry.verb in (Verb.CHECKPOINT, Verb.DELETE_CHECKPOINT)
    return f"{entry.verb} {entry.checkpoint}" if named else entry.verb


def test_a_time_in_the_future_is_refused(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        world.plane.history._clock = lambda: world.logs.micros
        for micros in (world.logs.micros + DAY, 2**62):
            with pytest.raises(OutOfRange) as caught:
                await world.plane.past.restore(TENANT, "app", AtTime(micros))
            assert caught.value.reason == "TIME_IN_FUTURE"
        await world.plane.databases.branch(TENANT, "app", "now", AtTime(world.logs.micros))
        assert world.content("now") == ["good", "damage"]

    play(tmp_path, story)


# Families


async def family(world: Plane) -> None:
    """app with `base`, then work; try-2 branched at the head. Both are awake."""
    await world.plane.databases.create(TENANT, "app")
    world.commit("good")
    await world.plane.past.checkpoint(TENANT, "app", "base")
    world.commit("work")
    await world.plane.databases.branch(TENANT, "app", "try-2", Head())
    await world.plane.databases.wake(TENANT, "try-2")


def test_a_branch_names_its_ancestors_checkpoints(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await family(world)
        past, databases = world.plane.past, world.plane.databases
        world.commit("later")
        await past.checkpoint(TENANT, "app", "late")
        world.commit("own", "try-2")
        await databases.branch(TENANT, "try-2", "try-3", Head())
        await past.restore(TENANT, "try-3", AtCheckpoint("base"))
        assert world.content("try-3") == ["good"]
        with pytest.raises(NotFound) as caught:
            await past.restore(TENANT, "try-2", AtCheckpoint("late"))
        assert caught.value.reason == "CHECKPOINT_NOT_FOUND"
        assert "5 minutes ago" in str(caught.value.hint)
        await past.checkpoint(TENANT, "try-2", "base")  # its own counts first
        world.commit("more", "try-2")
        await past.restore(TENANT, "try-2", AtCheckpoint("base"))
        assert world.content("try-2") == ["good", "work", "own"]
        await databases.branch(TENANT, "try-2", "nearest", Head())
        await past.restore(TENANT, "nearest", AtCheckpoint("base"))
        assert world.content("nearest") == ["good", "work", "own"]

    play(tmp_path, story)


def test_a_stranger_of_an_ancestor_s_name_gives_no_checkpoints(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await family(world)
        await world.plane.databases.remove(TENANT, "app")
        await world.plane.databases.create(TENANT, "app")
        await world.plane.past.checkpoint(TENANT, "app", "base")
        with pytest.raises(NotFound):
            await world.plane.past.restore(TENANT, "try-2", AtCheckpoint("base"))
        with pytest.raises(FailedPrecondition) as caught:
            await world.plane.past.reset(TENANT, "try-2")
        assert caught.value.reason == "NO_PARENT"
        assert "gone" in caught.value.message

    play(tmp_path, story)


def test_a_reset_goes_to_the_parent_s_head_and_is_undone(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await family(world)
        past = world.plane.past
        world.commit("tried", "try-2")
        await past.undo(TENANT, "app")  # the parent itself has moved meanwhile
        world.commit("newer")
        done = await past.reset(TENANT, "try-2")
        assert done.changed
        assert world.content("try-2") == ["good", "newer"]
        await past.undo(TENANT, "try-2")
        assert world.content("try-2") == ["good", "work", "tried"]
        with pytest.raises(FailedPrecondition, match="no branch"):
            await past.reset(TENANT, "app")

    play(tmp_path, story)


def test_a_promoted_branch_is_the_database_until_that_is_undone(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await family(world)
        past = world.plane.past
        world.commit("newer")
        before = world.content()
        world.commit("tried", "try-2")
        would = await past.promote(TENANT, "app", "try-2", Asked(dry_run=True))
        assert (would.changed, world.content()) == (False, before)
        done = await past.promote(TENANT, "app", "try-2", Asked("one"))
        assert done.changed
        assert done.kept is not None
        assert done.kept.name == "before-promote-1"
        assert world.content() == world.content("try-2") == ["good", "work", "tried"]
        again = await past.promote(TENANT, "app", "try-2", Asked("one"))
        assert again.changed, "the same answer"
        assert not (await past.promote(TENANT, "app", "try-2")).changed, "it is there already"
        world.commit("later", "try-2")
        world.commit("mine")
        assert world.content() == ["good", "work", "tried", "mine"], "they are two"
        await past.undo(TENANT, "app")
        assert world.content() == ["good", "work", "tried"]
        await past.restore(TENANT, "app", AtCheckpoint("before-promote-1"))
        assert world.content() == before
        await past.promote(TENANT, "try-2", "app")
        assert world.content("try-2") == before, "a parent can be promoted too"

    play(tmp_path, story)


def test_a_promotion_is_undone_at_once(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await family(world)
        world.commit("newer")
        before = world.content()
        await world.plane.past.promote(TENANT, "app", "try-2")
        assert (await undo(world)).changed
        assert world.content() == before

    play(tmp_path, story)


def test_a_stranger_is_not_promoted(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await family(world)
        await world.plane.databases.create(TENANT, "other")
        with pytest.raises(FailedPrecondition) as caught:
            await world.plane.past.promote(TENANT, "app", "other")
        assert caught.value.reason == "NOTHING_IN_COMMON"
        with pytest.raises(NotFound):
            await world.plane.past.promote(TENANT, "app", "nobody")

    play(tmp_path, story)


def test_a_branch_that_exists_is_the_same_branch_or_refused(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await family(world)
        databases = world.plane.databases

        async def branch(source: str, name: str, at: Head | AtCheckpoint) -> bool:
            done = await databases.branch(TENANT, source, name, at, if_not_exists=True)
            return done[1]

        assert await branch("app", "at-base", AtCheckpoint("base"))
        assert not await branch("app", "at-base", AtCheckpoint("base"))
        assert not await branch("app", "at-base", Head())
        await world.plane.past.reset(TENANT, "at-base")
        assert not await branch("app", "at-base", AtCheckpoint("base"))
        for source, name, at, words in (
            ("app", "try-2", AtCheckpoint("base"), "not a branch of app at checkpoint base"),
            ("try-2", "at-base", Head(), "a branch of app, not a branch of try-2"),
            ("try-2", "app", Head(), "no branch, not a branch of try-2"),
        ):
            with pytest.raises(AlreadyExists, match=words) as caught:
                await branch(source, name, at)
            assert caught.value.reason == "DATABASE_EXISTS"

    play(tmp_path, story)


def test_a_renamed_database_is_the_same_under_another_name(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await family(world)
        databases, past = world.plane.databases, world.plane.past
        before, session = world.record(), world.session()
        record, changed = await databases.rename(TENANT, "app", "shop")
        assert (record, changed) == (before.model_copy(update={"name": "shop"}), True)
        session.commit("still connected")
        assert world.computes.running() == 2
        assert [event.verb for event in world.state.view().events(TENANT, "shop")][-1] == "rename"
        assert (await past.undo(TENANT, "shop")).changed
        assert world.content("shop") == ["good"]
        await past.reset(TENANT, "try-2")
        assert world.content("try-2") == ["good"]
        assert world.record("try-2").parent == "shop"
        assert await databases.rename(TENANT, "app", "shop", if_exists=True) == (
            world.record("shop"),
            False,
        )
        with pytest.raises(NotFound):
            await databases.rename(TENANT, "app", "shop")
        with pytest.raises(AlreadyExists):
            await databases.rename(TENANT, "shop", "try-2")
        assert await databases.remove(TENANT, "shop")
        assert world.state.view().events(TENANT, "app") == []

    play(tmp_path, story)


def test_a_deleted_checkpoint_is_gone_and_its_name_free(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await damaged(world)
        past = world.plane.past
        assert await past.delete_checkpoint(TENANT, "app", "base")
        with pytest.raises(NotFound):
            await past.delete_checkpoint(TENANT, "app", "base")
        assert not await past.delete_checkpoint(TENANT, "app", "base", if_exists=True)
        with pytest.raises(NotFound):
            await restore(world)
        await past.checkpoint(TENANT, "app", "base")
        assert not (await undo(world)).changed

    play(tmp_path, story)
