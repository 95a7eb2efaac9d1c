"""How timelines without a compute come to other safekeepers, and when that is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pagestore.control.computes import Slotted
from pagestore.control.logs import Logs
from pagestore.control.membership import AGAIN_SECONDS, AT_ONCE, Membership, generations
from pagestore.control.records import (
    DatabaseRecord,
    TimelineRecord,
    TimelineState,
    UnmadeLog,
)
from pagestore.control.state import ControlState
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.quorum.safekeepers import Key
from pagestore.walservice import messages
from tests.unit.quorum.fake_quorum import START, FakeCompute, Quorum, play
from tests.unit.virtual_time import until

SOON = 20 * AGAIN_SECONDS


@dataclass
class Runs:
    """As much of a compute as is looked at."""

    timeline: TimelineId
    complaint: str = ""


class Slots:
    """Of computes: who holds them, how many at once, and what runs."""

    def __init__(self) -> None:
        self.running: dict[Slotted, Runs] = {}
        self.held_now: set[Slotted] = set()
        self.ever_held: list[Slotted] = []

    @asynccontextmanager
    async def held(self, name: Slotted) -> AsyncIterator[Runs | None]:
        self.held_now.add(name)
        self.ever_held.append(name)
        try:
            yield self.running.get(name)
        finally:
            self.held_now.discard(name)


class World:
    def __init__(self, quorum: Quorum, state: ControlState) -> None:
        self.quorum, self.state, self.slots = quorum, state, Slots()
        self.memberships: list[tuple[Membership, asyncio.Task[None]]] = []

    def key(self, number: int) -> Key:
        return (DEFAULT_TENANT, TimelineId(number.to_bytes(16, "big")))

    async def timeline(
        self, number: int, *, named: bool = True, unmade: UnmadeLog | None = None
    ) -> Key:
        """Made on safekeepers 1, 2 and 3; a database's, or one of its past."""
        key = self.key(number)
        if unmade is None:
            await self.quorum.client(1, 2, 3).create_timeline(*key, START)
        with self.state.change() as change:
            change.put_timeline(
                TimelineRecord(
                    timeline=key[1],
                    tenant=key[0],
                    state=TimelineState.LIVE,
                    database=f"db{number}",
                    parent=None,
                    branch_lsn=START,
                    created_micros=1,
                    unmade_log=unmade,
                )
            )
            if named:
                change.put_database(database(number, key))
        return key

    def start(self, *numbers: int) -> tuple[Membership, asyncio.Task[None]]:
        """As a control plane that was told these safekeepers; the one before is gone."""
        for _, task in self.memberships:
            task.cancel()
        client = self.quorum.client(*numbers)
        client.generations = generations(self.state)
        slots: Any = self.slots
        logs = Logs(self.state, client)
        membership = Membership(self.state, client, slots, frozenset(numbers), logs)
        self.memberships.append((membership, asyncio.create_task(membership.run())))
        return self.memberships[-1]

    def has_come(self, *keys: Key) -> bool:
        return all(
            self.quorum.numbers(key) == [1, 2, 4] and not self.quorum.configuration(key).joint
            for key in keys
        )

    async def close(self) -> None:
        tasks = [task for _, task in self.memberships]
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [item for item in ends if isinstance(item, Exception)] == []


def database(number: int, key: Key) -> DatabaseRecord:
    return DatabaseRecord(
        tenant=key[0],
        name=f"db{number}",
        timeline=key[1],
        branch_lsn=START,
        created_micros=1,
        sealed_password="sealed",
        postgres_database="app",
    )


Story = Callable[[World], Awaitable[None]]


def tell(directory: Path, story: Story) -> None:
    async def whole(quorum: Quorum) -> None:
        state = ControlState(directory)
        world = World(quorum, state)
        try:
            await story(world)
        finally:
            await world.close()
            state.close()

    play(whole, (1, 2, 3, 4))


def test_every_timeline_comes_to_the_new_safekeepers_those_of_the_past_too(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        keys = [await world.timeline(number, named=number % 2 == 0) for number in range(1, 11)]
        membership, task = world.start(1, 2, 4)
        await until(task.done, SOON)
        assert world.has_come(*keys)
        assert membership.progress.settled
        assert membership.progress.left == 0
        assert not world.quorum[3].timelines

    tell(tmp_path, story)


def test_what_is_settled_is_not_looked_through_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.timeline(1)
        await until(world.start(1, 2, 4)[1].done, SOON)
        world.quorum[1].calls.clear()
        membership, task = world.start(1, 2, 4)
        await until(task.done, SOON)
        assert membership.progress.settled
        assert not world.quorum[1].calls
        # Other ones are another matter.
        membership, task = world.start(1, 2, 3)
        await until(task.done, SOON)
        assert world.quorum.numbers(world.key(1)) == [1, 2, 3]

    tell(tmp_path, story)


def test_a_timeline_with_a_compute_is_left_to_its_keeper(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        busy, idle = await world.timeline(1), await world.timeline(2)
        compute: FakeCompute = await world.quorum.restart(world.quorum.client(1, 2, 3), busy)
        name = (DEFAULT_TENANT, "db1")
        world.slots.running[name] = Runs(busy[1], "waiting for safekeeper 4")
        membership, task = world.start(1, 2, 4)
        await until(lambda: world.has_come(idle), SOON)
        await asyncio.sleep(5 * AGAIN_SECONDS)
        assert (membership.progress.left, membership.progress.settled) == (1, False)
        assert membership.progress.error == "waiting for safekeeper 4"
        assert compute.write()
        # It has ended before its keeper came to it.
        del world.slots.running[name]
        await until(task.done, SOON)
        assert world.has_come(busy)

    tell(tmp_path, story)


def test_a_compute_of_another_timeline_under_the_name_stays_out_of_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = await world.timeline(1)
        world.slots.running[(DEFAULT_TENANT, "db1")] = Runs(TimelineId(b"another timeline"))
        await until(world.start(1, 2, 4)[1].done, SOON)
        assert world.has_come(key)

    tell(tmp_path, story)


def test_no_compute_is_started_while_the_members_of_its_timeline_change(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = await world.timeline(1)

        def look(calls: int) -> None:
            if world.quorum.configuration(key).joint:
                assert world.slots.held_now == {(DEFAULT_TENANT, "db1")}

        world.quorum.on_call = look
        await until(world.start(1, 2, 4)[1].done, SOON)
        assert world.has_come(key)

    tell(tmp_path, story)


def test_for_a_newcomer_that_is_away_no_compute_is_held_up(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = await world.timeline(1)
        world.quorum[4].away = True
        membership, task = world.start(1, 2, 4)
        await asyncio.sleep(10 * AGAIN_SECONDS)
        assert world.slots.ever_held == []
        assert membership.progress.left == 1
        assert "Safekeeper 4 is away" in membership.progress.error
        world.quorum[4].away = False
        await until(task.done, SOON)
        assert world.has_come(key)
        assert membership.progress.error == ""

    tell(tmp_path, story)


def test_a_change_waits_for_a_majority_of_the_old_ones(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = await world.timeline(1)
        world.quorum[1].away = world.quorum[2].away = True
        membership, task = world.start(1, 2, 4)
        await asyncio.sleep(30 * AGAIN_SECONDS)
        assert world.quorum[4].timelines == {}
        assert membership.progress.left == 1
        world.quorum[1].away = world.quorum[2].away = False
        await until(task.done, 2 * SOON)
        assert world.has_come(key)

    tell(tmp_path, story)


def test_one_timeline_that_waits_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        keys = [await world.timeline(number) for number in range(1, 2 * AT_ONCE)]
        name = (DEFAULT_TENANT, "db1")
        world.slots.running[name] = Runs(keys[0][1], "away")
        world.start(1, 2, 4)
        await until(lambda: world.has_come(*keys[1:]), SOON)

    tell(tmp_path, story)


def test_few_timelines_are_changed_together(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(1, 3 * AT_ONCE):
            await world.timeline(number)
        most = 0

        def look(calls: int) -> None:
            nonlocal most
            most = max(most, len(world.slots.held_now))

        world.quorum.on_call = look
        await until(world.start(1, 2, 4)[1].done, SOON)
        assert most == AT_ONCE

    tell(tmp_path, story)


def test_a_timeline_that_is_deleted_meanwhile_holds_up_nobody(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        gone, there = await world.timeline(1), await world.timeline(2)
        await world.quorum.client(1, 2, 3).remove_timeline(*gone)
        membership, task = world.start(1, 2, 4)
        await until(task.done, SOON)
        assert world.has_come(there)
        assert membership.progress.error == ""

    tell(tmp_path, story)


def test_a_branch_without_a_log_holds_up_nobody_and_is_not_given_one(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        never, there = await world.timeline(1, unmade=UnmadeLog()), await world.timeline(2)
        await until(world.start(1, 2, 4)[1].done, SOON)
        assert world.has_come(there)
        assert not any(never in item.timelines for item in world.quorum.safekeepers.values())

    tell(tmp_path, story)


def test_a_log_that_was_begun_is_made_where_it_was_and_then_comes_too(tmp_path: Path) -> None:
    """Else it would be made by the new ones, while the old ones decide over what they have."""

    async def story(world: World) -> None:
        key = await world.timeline(1, unmade=UnmadeLog(members=(1, 2, 3)))
        told = messages.first_configuration((1, 2, 3), {})
        await world.quorum[3].create_timeline(*key, START, configuration=told)
        await until(world.start(1, 2, 4)[1].done, SOON)
        assert world.has_come(key)
        assert world.state.view().known_timeline(key[1]).unmade_log is None

    tell(tmp_path, story)


def test_a_disk_that_is_full_keeps_it_from_noting_and_from_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        key = await world.timeline(1)
        membership, task = world.start(1, 2, 4)
        change = world.state.change

        def full() -> Any:
            if world.has_come(key):
                raise OSError(28, "No space left on device")
            return change()

        monkeypatch.setattr(world.state, "change", full)
        await until(lambda: world.has_come(key), SOON)
        await asyncio.sleep(5 * AGAIN_SECONDS)
        assert not task.done()
        assert not membership.progress.settled
        monkeypatch.setattr(world.state, "change", change)
        await until(task.done, SOON)
        assert set(world.state.view().members().settled) == {1, 2, 4}

    tell(tmp_path, story)


def test_it_goes_on_wherever_the_control_plane_was_killed(tmp_path: Path) -> None:
    async def changed(world: World, broken_off_at: int) -> int:
        keys = [await world.timeline(1), await world.timeline(2, named=False)]
        began, broken = world.quorum.calls, asyncio.Event()

        def count(calls: int) -> None:
            if calls - began == broken_off_at:
                broken.set()

        world.quorum.on_call = count
        _, task = world.start(1, 2, 4)
        breaking = asyncio.create_task(broken.wait())
        await asyncio.wait([task, breaking], return_when=asyncio.FIRST_COMPLETED)
        breaking.cancel()
        calls = world.quorum.calls - began
        await until(world.start(1, 2, 4)[1].done, SOON)
        assert world.has_come(*keys)
        return calls

    whole: list[int] = []

    async def unbroken(world: World) -> None:
        whole.append(await changed(world, 0))

    tell(tmp_path / "0", unbroken)
    for at in range(1, whole[0]):

        async def broken(world: World, at: int = at) -> None:
            await changed(world, at)

        tell(tmp_path / str(at), broken)


def test_generations_are_never_given_twice_whoever_asks(tmp_path: Path) -> None:
    state = ControlState(tmp_path)
    first = generations(state)(0)
    second = generations(state)(first + 1)
    state.close()
    state = ControlState(tmp_path)
    third = generations(state)(0)
    state.close()
    assert second >= first + 3
    assert third >= second + 3


def test_a_change_that_was_begun_is_ended_though_the_members_are_those_wanted(
    tmp_path: Path,
) -> None:
    """A joint configuration whose old members have the right numbers is not right: it decides by
    two majorities, of which one may be deleted."""

    async def story(world: World) -> None:
        key = await world.timeline(1)
        _, task = world.start(1, 2, 4)

        def end_once_it_is_joint(calls: int) -> None:
            there = [item.timelines.get(key) for item in world.quorum.safekeepers.values()]
            if sum(state is not None and state.configuration.joint for state in there) >= 2:
                task.cancel()

        world.quorum.on_call = end_once_it_is_joint
        await until(task.done, SOON)
        world.quorum.on_call = lambda calls: None
        assert world.quorum.configuration(key).joint
        assert {item.number for item in world.quorum.configuration(key).members} == {1, 2, 3}
        membership, _ = world.start(1, 2, 3)
        await until(lambda: membership.progress.settled, SOON)
        assert not world.quorum.configuration(key).joint
        assert world.quorum.numbers(key) == [1, 2, 3]

    tell(tmp_path, story)
