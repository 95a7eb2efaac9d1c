"""`detach`, over fakes: names and records; what the page server does is its own matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.client.points import AtCheckpoint, AtLsn, Head
from pagestore.errors import FailedPrecondition, OutOfRange, Unavailable
from pagestore.ids import Lsn
from tests.unit.control.fakes import TENANT, Plane, play


async def with_branch(plane: Plane) -> None:
    await plane.plane.databases.create(TENANT, "app")
    await plane.plane.databases.wake(TENANT, "app")
    plane.commit("one")
    await plane.plane.databases.branch(TENANT, "app", "try", Head())


def test_it_goes_on_until_it_is_done_and_then_there_is_no_parent(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await with_branch(plane)
        detach = plane.plane.detaching.detach
        parent, branch = plane.record().timeline, plane.record("try")
        assert (await detach(TENANT, "try"))[1:] == (False, True)
        assert plane.record("try") == branch
        done = await detach(TENANT, "try")
        assert (done.done, done.changed, done.record.parent) == (True, True, "")
        assert (await detach(TENANT, "try"))[1:] == (True, False)
        record = plane.state.view().known_timeline(branch.timeline)
        assert (record.parent, record.usable_lsn) == (None, record.branch_lsn)
        assert not plane.state.view().has_children(parent)
        early = AtLsn(Lsn(record.branch_lsn - 8))
        with pytest.raises(OutOfRange, match="before the database existed"):
            await plane.plane.past.restore(TENANT, "try", early)
        with pytest.raises(FailedPrecondition, match="no branch"):
            await plane.plane.past.reset(TENANT, "try")

    play(tmp_path, story)


def test_a_point_at_its_first_lsn_is_to_be_had_where_its_log_begins_later(tmp_path: Path) -> None:
    """As after a recovery: the logs that that makes begin where the layers end."""

    async def story(plane: Plane) -> None:
        await with_branch(plane)
        for _ in range(2):
            await plane.plane.detaching.detach(TENANT, "try")
        first = plane.record("try").branch_lsn
        await plane.plane.past.checkpoint(TENANT, "try", "at-once")
        await plane.plane.databases.wake(TENANT, "try")
        timeline = plane.record("try").timeline
        plane.wal.begins[timeline] = plane.logs.timelines[timeline].end
        await plane.plane.databases.branch(TENANT, "try", "again", AtCheckpoint("at-once"))
        assert plane.record("again").branch_lsn == first
        await plane.plane.past.restore(TENANT, "try", AtLsn(Lsn(first)))
        assert plane.content("try") == ["one"]

    play(tmp_path, story)


def test_a_removed_parent_goes_once_its_last_branch_is_independent(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await with_branch(plane)
        parent = plane.record().timeline
        await plane.plane.databases.remove(TENANT, "app")
        await plane.settled()
        assert parent in plane.pages.logs.timelines
        for _ in range(2):
            await plane.plane.detaching.detach(TENANT, "try")
        await plane.settled()
        assert parent not in plane.pages.logs.timelines
        assert plane.state.view().timeline(parent) is None

    play(tmp_path, story)


def test_what_is_no_branch_stays_as_it_is_and_nothing_is_said_before_it_is_so(
    tmp_path: Path,
) -> None:
    async def story(plane: Plane) -> None:
        await with_branch(plane)
        assert (await plane.plane.detaching.detach(TENANT, "app"))[1:] == (True, False)
        assert plane.pages.detached == []
        branch = plane.record("try")
        plane.pages.away = True
        with pytest.raises(Unavailable):
            await plane.plane.detaching.detach(TENANT, "try")
        assert plane.record("try") == branch

    play(tmp_path, story)
