"""A branch has no log until something is started on it, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from pagestore.client.points import AtCheckpoint, AtLsn, Head
from pagestore.control.logs import doubt_unmade, settle_unmade
from pagestore.control.records import DatabaseRecord, TimelineRecord, UnmadeLog
from pagestore.control.sessions import NoSessions
from pagestore.control.state import ControlState
from pagestore.errors import NotFound, Unavailable
from pagestore.ids import TimelineId
from pagestore.v1 import wal_pb2
from tests.unit import virtual_time
from tests.unit.control.fakes import TENANT, Plane, play
from tests.unit.control.test_making import Stepped, Steps, _stepped_changes


class Told(NoSessions):
    """A proxy that is told whose sessions end."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def carry_out(
        self, record: DatabaseRecord, message: str, hint: str = "", *, end_all: bool = False
    ) -> None:
        self.told.append(record.name)


def unmade(world: Plane, name: str = "branch") -> UnmadeLog | None:
    return world.state.view().known_timeline(world.record(name).timeline).unmade_log


async def app_and_branch(world: Plane) -> None:
    """A database that has said something, asleep, and a branch on which nothing was started."""
    databases = world.plane.databases
    await databases.create(TENANT, "app")
    world.commit("one")
    await databases.stop(TENANT, "app")
    await databases.branch(TENANT, "app", "branch", Head())


async def wake(world: Plane, name: str = "branch") -> None:
    await world.plane.databases.wake(TENANT, name)


def test_no_safekeeper_and_no_proxy_hears_of_a_branch_or_of_its_end(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        timeline = world.record("branch").timeline
        assert timeline not in world.wal.known
        assert unmade(world) is not None
        world.wal.asked.clear()
        sessions = Told()
        world.plane = world.new_plane(sessions)
        await world.plane.databases.remove(TENANT, "branch")
        await world.settled()
        await world.plane.collect()
        assert world.wal.asked == sessions.told == []
        await world.plane.databases.remove(TENANT, "app")
        assert sessions.told == ["app"]
        assert timeline not in world.logs.timelines
        assert world.state.view().timeline(timeline) is None

    play(tmp_path, story)


def test_where_nothing_was_started_every_verb_finds_what_the_parent_was(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        plane, databases = world.plane, world.plane.databases
        await wake(world, "app")
        world.commit("of the parent alone", "app")
        branch = world.record("branch")
        head = await plane.history.head(branch.timeline)
        assert (head.timeline.timeline, head.lsn) == (branch.timeline, branch.branch_lsn)
        assert (await plane.logs.end(branch.timeline)).commit_lsn == branch.branch_lsn
        await databases.branch(TENANT, "branch", "of-branch", Head())
        await databases.branch(TENANT, "branch", "at-its-lsn", AtLsn(branch.branch_lsn))
        await plane.past.checkpoint(TENANT, "branch", "mark")
        await databases.branch(TENANT, "branch", "at-its-mark", AtCheckpoint("mark"))
        for name in ("branch", "of-branch", "at-its-lsn", "at-its-mark"):
            assert world.content(name) == ["one"]
            assert world.record(name).timeline not in world.wal.known
        await plane.past.restore(TENANT, "of-branch", AtCheckpoint("mark"))
        await plane.past.reset(TENANT, "of-branch")
        assert world.content("of-branch") == ["one"]
        await plane.past.promote(TENANT, "app", "branch")
        assert world.content("app") == ["one"]
        await plane.past.undo(TENANT, "app")
        assert world.content("app") == ["one", "of the parent alone"]

    play(tmp_path, story)


def test_a_first_start_makes_the_log_and_then_it_is_asked(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        await wake(world)
        assert unmade(world) is None
        assert world.record("branch").timeline in world.wal.known
        world.commit("two", "branch")
        await world.plane.databases.branch(TENANT, "branch", "again", Head())
        assert world.content("again") == ["one", "two"]
        world.wal.asked.clear()
        await world.plane.databases.stop(TENANT, "branch")
        await wake(world)
        assert "create" not in world.wal.asked, "a log is made once"

    play(tmp_path, story)


def test_a_head_is_one_question_where_all_that_is_durable_is_committed(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)

        async def status(*_: object) -> wal_pb2.WalTimelineStatus:
            end = world.logs.timelines[world.record().timeline].end
            return wal_pb2.WalTimelineStatus(commit_lsn=end, flush_lsn=end, prev_record_lsn=77)

        world.wal.get_status = status  # type: ignore[method-assign]
        world.wal.asked.clear()
        assert (await world.plane.history.head(world.record().timeline)).prev_record_lsn == 77
        assert "align" not in world.wal.asked

    play(tmp_path, story)


async def _broken_first_start(
    directory: Path, steps: Steps, patch: pytest.MonkeyPatch, *, others: tuple[int, ...]
) -> None:
    """Killed at a step; the next control plane has other safekeepers."""
    world = Plane(directory)
    try:
        await app_and_branch(world)
        timeline, unfailing = world.record("branch").timeline, world.wal
        world.wal = Stepped(world.wal, steps)  # type: ignore[assignment]
        world.plane = world.new_plane()
        with patch.context() as failing:
            _stepped_changes(failing, world.state, steps)
            with contextlib.suppress(Unavailable, asyncio.CancelledError):
                await wake(world)
        began = unmade(world)
        if timeline in unfailing.known and began is not None:
            assert began.members == unfailing.members[timeline]
        running = [item for item in world.launcher.started if item.timeline == timeline]
        assert not running or began is None, "nothing is started before the log is made for good"
        world.wal = unfailing
        world.wal.numbers = others
        world.plane = world.new_plane()
        assert (await world.plane.history.head(timeline)).lsn >= world.record("branch").branch_lsn
        await wake(world)
        assert unmade(world) is None
        asked = unfailing.members[timeline]
        assert asked == (others if began is not None and began.members is None else (1,))
        world.commit("two", "branch")
        assert world.content("branch") == ["one", "two"]
        await world.plane.databases.remove(TENANT, "branch")
        await world.settled()
        await world.plane.collect()
        assert timeline not in unfailing.known
    finally:
        await world.close()


@pytest.mark.parametrize("kind", [Unavailable, asyncio.CancelledError])
def test_wherever_a_first_start_is_broken_off_the_next_one_goes_on_with_the_same_members(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        every = Steps(-1, kind)
        whole = _broken_first_start(tmp_path / "whole", every, patch, others=(1,))
        virtual_time.play(whole)
        assert every.taken == 7
        for failing in range(every.taken):
            steps = Steps(failing, kind)
            story = _broken_first_start(tmp_path / f"{failing}", steps, patch, others=(4, 5, 6))
            virtual_time.play(story)
            assert steps.taken > failing


def test_a_branch_that_is_removed_while_its_log_was_only_begun_leaves_none(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        timeline = world.record("branch").timeline
        with world.state.change() as change:
            record = change.known_timeline(timeline)
            begun = UnmadeLog(members=(1,))
            change.put_timeline(record.model_copy(update={"unmade_log": begun}))
        world.wal.known.add(timeline)
        await world.plane.databases.remove(TENANT, "branch")
        await world.settled()
        assert timeline not in world.wal.known

    play(tmp_path, story)


def test_two_who_start_at_once_make_one_log(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        timeline = world.record("branch").timeline
        world.wal.asked.clear()
        await asyncio.gather(*(world.plane.logs.make(timeline) for _ in range(5)))
        assert world.wal.asked.count("create") == 1

    play(tmp_path, story)


async def _written_and_forgotten(world: Plane, record: TimelineRecord) -> None:
    """The state is a copy from before the first start."""
    await wake(world)
    world.commit("two", "branch")
    await world.plane.databases.stop(TENANT, "branch")
    with world.state.change() as change:
        change.put_timeline(record)


def test_an_older_state_that_was_accepted_does_not_hide_what_was_written(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        timeline = world.record("branch").timeline
        older = world.state.view().known_timeline(timeline)
        await _written_and_forgotten(world, older)
        doubt_unmade(world.state)
        await world.plane.databases.branch(TENANT, "branch", "again", Head())
        assert world.content("again") == ["one", "two"]
        assert unmade(world) is None

    play(tmp_path, story)


def test_where_an_older_state_is_right_it_is_believed_once_all_have_said_so(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        timeline, branch_lsn = world.record("branch").timeline, world.record("branch").branch_lsn
        doubt_unmade(world.state)
        status = world.wal.get_status

        async def away(*_: object) -> None:
            raise Unavailable("NO_QUORUM", "One is away.")

        world.wal.get_status = away  # type: ignore[method-assign, assignment]
        with pytest.raises(Unavailable):
            await world.plane.history.head(timeline)
        world.wal.get_status = status  # type: ignore[method-assign]
        assert (await world.plane.history.head(timeline)).lsn == branch_lsn
        world.wal.asked.clear()
        assert (await world.plane.history.head(timeline)).lsn == branch_lsn
        assert world.wal.asked == []

    play(tmp_path, story)


def test_a_log_that_an_older_state_does_not_know_is_not_made_again(tmp_path: Path) -> None:
    """Nobody has noticed that it is older: a safekeeper that has lost the log gets no other."""

    async def story(world: Plane) -> None:
        await app_and_branch(world)
        older = world.state.view().known_timeline(world.record("branch").timeline)
        await _written_and_forgotten(world, older)
        world.wal.asked.clear()
        await wake(world)
        assert "create" not in world.wal.asked
        assert world.content("branch") == ["one", "two"]

    play(tmp_path, story)


def test_a_lost_log_is_told_and_never_made_again(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        await wake(world)
        await world.plane.databases.stop(TENANT, "branch")
        world.wal.known.discard(world.record("branch").timeline)
        with pytest.raises(NotFound):
            await world.plane.history.head(world.record("branch").timeline)
        world.wal.asked.clear()
        await wake(world)  # which is the fake's: a compute wins a term, and is refused
        assert "create" not in world.wal.asked

    play(tmp_path, story)


def test_with_new_safekeepers_only_those_logs_are_made_that_they_have(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        await world.plane.databases.branch(TENANT, "app", "other", Head())
        branch, other = world.record("branch").timeline, world.record("other").timeline
        for timeline in (branch, other):
            with world.state.change() as change:
                record = change.known_timeline(timeline)
                begun = UnmadeLog(prev_record_lsn=8, members=(1, 2, 3), doubtful=True)
                change.put_timeline(record.model_copy(update={"unmade_log": begun}))
        settle_unmade(world.state, {branch})
        assert unmade(world) is None
        assert unmade(world, "other") == UnmadeLog(prev_record_lsn=8)

    play(tmp_path, story)


def test_a_record_of_before_has_a_log(tmp_path: Path) -> None:
    timeline = TimelineId.generate()
    raw = (
        f'{{"timeline":"{timeline}","tenant":"{TENANT}","state":"live","database":"app",'
        '"parent":null,"branch_lsn":24,"usable_lsn":0,"system_id":1,"imported":false,'
        '"created_micros":1,"major":15,"before":null}'
    )
    assert TimelineRecord.decode(raw.encode(), "of old").unmade_log is None
    with ControlState(tmp_path) as state, state.change() as change:
        record = TimelineRecord.decode(raw.encode(), "of old")
        change.put_timeline(record)
        assert change.known_timeline(timeline) == record


def test_many_that_are_deleted_are_forgotten_in_one_transaction_but_for_those_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: Plane) -> None:
        await app_and_branch(world)
        for number in range(5):
            await world.plane.databases.branch(TENANT, "app", f"b{number}", Head())
        await wake(world)
        timelines = world.plane._timelines
        monkeypatch.setattr(timelines, "collect_soon", lambda: None)
        for name in ("branch", *(f"b{number}" for number in range(5))):
            await world.plane.databases.remove(TENANT, name)
        remove = world.wal.remove_timeline

        async def away(*_: object) -> None:
            raise Unavailable("X", "A safekeeper is away.")

        monkeypatch.setattr(world.wal, "remove_timeline", away)
        before = world.state.version
        with pytest.raises(Unavailable):
            await timelines.collect()
        assert world.state.version == before + 1
        assert len(world.state.view().unsettled()) == 1
        monkeypatch.setattr(world.wal, "remove_timeline", remove)
        assert await timelines.collect() == 1
        assert world.state.view().unsettled() == []

    play(tmp_path, story)
