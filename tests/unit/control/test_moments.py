"""Places in the past: shared, never listed, and gone without a trace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pagestore.client.points import AtCheckpoint
from pagestore.control.computes import Compute
from pagestore.control.moments import READ_ONLY, Moment
from pagestore.control.places import PlaceName
from pagestore.errors import InvalidInput, NotFound, OutOfRange, PagestoreError, Unavailable
from pagestore.ids import TimelineId, format_lsn
from tests.unit.control.fakes import TENANT, FakeCompute, Plane, play


async def before(world: Plane) -> None:
    """Two commits, and a checkpoint after the first."""
    await world.plane.databases.create(TENANT, "app")
    world.commit("first")
    await world.plane.past.checkpoint(TENANT, "app", "then")
    world.commit("second")


async def enter(world: Plane, target: str) -> tuple[PlaceName, Compute]:
    place = (await world.plane.places.find(target)).place
    return place, await world.plane.places.start(place)


async def leave(world: Plane, place: PlaceName) -> None:
    """As the proxy does when nobody was there for a while; a fake compute answers no SQL."""
    compute = next(item.compute for item in world.plane.places.awake() if item.place == place)
    assert isinstance(compute, FakeCompute)
    moments = world.plane._moments
    slot = next(
        slot for slot in moments._shared if world.plane.computes.running_compute(slot) is compute
    )
    await moments.stop(slot)
    await world.settled()


def clean(world: Plane) -> None:
    """No timeline is anywhere but the names' own."""
    assert world.state.view().unsettled() == []
    assert set(world.logs.timelines) == world.wal.known == world.live()


def test_a_moment_is_written_and_read() -> None:
    moment = Moment(TimelineId(b"t" * 16), 0x16B3748)
    assert Moment.parse(str(moment)) == moment
    for text in ("", "0/1", "now", f"{moment} ", "0/1 of x"):
        with pytest.raises(InvalidInput):
            Moment.parse(text)


def test_the_past_is_read_only_and_as_it_was(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        live = world.live()
        place, compute = await enter(world, "app@then")
        assert isinstance(compute, FakeCompute)
        assert world.logs.content(compute.timeline) == ["first"]
        assert compute.settings == READ_ONLY
        assert [item.name for item in world.state.view().databases()] == ["app"]
        assert world.live() == live, "its timeline is nobody's"
        assert world.content() == ["first", "second"]
        await leave(world, place)
        assert not compute.alive
        clean(world)
        assert world.session().alive, "the present goes on"

    play(tmp_path, story)


def test_all_who_ask_for_one_point_share_it_by_whatever_words(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        lsn = world.state.view().checkpoints(TENANT, "app")[0].lsn
        words = ["app@then", f"app@{format_lsn(lsn)}", "app@then", f"app@{format_lsn(lsn)}"]
        entered = await asyncio.gather(*(enter(world, target) for target in words))
        assert len({place for place, _ in entered}) == 1
        assert len({id(compute) for _, compute in entered}) == 1
        other, compute = await enter(world, "app@head")
        assert other != entered[0][0]
        assert compute is not entered[0][1]
        await leave(world, entered[0][0])
        assert compute.alive
        await leave(world, other)
        clean(world)

    play(tmp_path, story)


def test_who_comes_while_it_goes_has_it_anew(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        place, first = await enter(world, "app@then")
        gone = asyncio.create_task(leave(world, place))
        again = await asyncio.gather(*(enter(world, "app@then") for _ in range(3)))
        await gone
        alive = [compute for _, compute in again if compute.alive]
        if alive:
            await leave(world, place)
        assert not first.alive
        clean(world)

    play(tmp_path, story)


def test_one_that_does_not_start_leaves_nothing_and_is_tried_afresh(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        world.launcher.refuse = lambda record: Unavailable("COMPUTE_FAILED", "refused")
        with pytest.raises(PagestoreError):
            await enter(world, "app@then")
        await world.settled()
        clean(world)
        world.launcher.refuse = lambda record: None
        place, _ = await enter(world, "app@then")
        await leave(world, place)
        clean(world)

    play(tmp_path, story)


def test_a_compute_that_died_is_started_again_where_it_stood(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        place, compute = await enter(world, "app@then")
        await compute.discard()
        await asyncio.sleep(1)
        again = await world.plane.places.start(place)
        assert again.alive
        assert again.timeline == compute.timeline
        await leave(world, place)
        clean(world)

    play(tmp_path, story)


def test_a_crash_leaves_neither_compute_nor_timeline(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        _, compute = await enter(world, "app@then")
        world.launcher.left = [compute]
        world.plane = world.new_plane()
        await world.plane.recover()
        await world.settled()
        assert not compute.alive
        clean(world)

    play(tmp_path, story)


def test_a_planned_end_leaves_neither(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        _, compute = await enter(world, "app@then")
        await world.plane.close()
        assert not compute.alive
        clean(world)

    play(tmp_path, story)


def test_a_removed_database_stays_for_who_is_in_its_past(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        place, compute = await enter(world, "app@then")
        await world.plane.databases.remove(TENANT, "app")
        await world.settled()
        assert compute.alive
        with pytest.raises(NotFound):
            await world.plane.places.find("app@then")
        await leave(world, place)
        await world.plane.collect()
        clean(world)

    play(tmp_path, story)


def test_what_a_restore_left_behind_is_a_place_too(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        moved = await world.plane.past.restore(TENANT, "app", AtCheckpoint("then"))
        assert moved.kept is not None
        place, compute = await enter(world, f"app@{moved.kept.name}")
        assert isinstance(compute, FakeCompute)
        assert world.logs.content(compute.timeline) == ["first", "second"]
        await leave(world, place)
        clean(world)

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("app@never", NotFound),
        ("nothing@then", NotFound),
        ("app@FFFFFFFF/0", OutOfRange),
        ("app@2999-01-01T00:00", OutOfRange),
        ("app@ ", InvalidInput),
        ("app@", InvalidInput),
    ],
)
def test_a_point_that_there_is_not_is_refused(
    tmp_path: Path, target: str, kind: type[PagestoreError]
) -> None:
    async def story(world: Plane) -> None:
        await before(world)
        with pytest.raises(kind) as refused:
            await world.plane.places.find(target)
        assert "--at" not in (refused.value.hint or ""), "an address has no options"

    play(tmp_path, story)
