"""Whatever fails while a timeline is made: it is live with its name, or nothing is left of it.

Every call to another part, and every transaction, is a step. Each verb is played once to count
them, then once for each step that fails, before it is done or after.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pagestore.client.points import AtCheckpoint, Head
from pagestore.control.logs import Logs
from pagestore.control.records import TimelineState
from pagestore.control.state import Change, ControlState
from pagestore.control.template import ensure_template
from pagestore.control.timelines import Timelines
from pagestore.control.turns import Turns
from pagestore.errors import Unavailable
from pagestore.ids import TimelineId
from pagestore.v1 import compute_pb2 as pb
from tests.unit import virtual_time
from tests.unit.control.fakes import (
    FIRST_LSN,
    TEMPLATE,
    TENANT,
    FakeCompute,
    FakeLauncher,
    FakeUpgrader,
    Log,
    Plane,
)

Verb = Callable[[Plane], Awaitable[Any]]


class Steps:
    """Counts steps; the one numbered `failing` raises, once."""

    def __init__(self, failing: int, kind: type[BaseException]) -> None:
        self.taken = 0
        self._failing = failing
        self._kind = kind

    def __call__(self) -> None:
        self.taken += 1
        if self.taken == self._failing + 1:
            failure = "the step fails"
            raise Unavailable("X", failure) if self._kind is Unavailable else self._kind(failure)


class Stepped:
    """A part each of whose calls is two steps: before it and after it. A launcher's is one: what
    it has started although it raises, nobody else can end."""

    def __init__(self, part: Any, steps: Steps) -> None:
        self._part = part
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        once = isinstance(self._part, FakeLauncher)
        if not asyncio.iscoroutinefunction(found):
            return found
        return _stepped(found, self._steps, once=once)


def _stepped(
    call: Callable[..., Awaitable[Any]], steps: Steps, *, once: bool = False
) -> Callable[..., Awaitable[Any]]:
    async def around(*arguments: Any, **more: Any) -> Any:
        steps()
        answer = await call(*arguments, **more)
        if not once:
            steps()
        return answer

    return around


def _stepped_changes(patch: pytest.MonkeyPatch, state: ControlState, steps: Steps) -> None:
    whole = state.change

    @contextlib.contextmanager
    def change() -> Iterator[Change]:
        with whole() as made:
            yield made
            steps()
        steps()

    patch.setattr(state, "change", change)


async def _create(world: Plane) -> None:
    await world.plane.databases.create(TENANT, "new", settings={"a": "1"})


async def _branch(world: Plane) -> None:
    await world.plane.databases.branch(TENANT, "app", "new", Head())


async def _branch_stopped(world: Plane) -> None:
    await world.plane.databases.branch(TENANT, "app", "new", Head())


async def _import(world: Plane) -> None:
    timeline = await world.plane.databases.begin_import(TENANT, "new")
    world.logs.timelines[timeline] = Log(None, FIRST_LSN)
    await world.plane.databases.register(TENANT, "new", timeline, prev_record_lsn=1, system_id=1)


async def _restore(world: Plane) -> None:
    await world.plane.past.restore(TENANT, "app", AtCheckpoint("before"))


async def _undo(world: Plane) -> None:
    await world.plane.past.undo(TENANT, "app")


async def _upgrade(world: Plane) -> None:
    steps = getattr(world.pages, "_steps")  # noqa: B009
    await world.upgrades(Stepped(FakeUpgrader(world.logs), steps)).upgrade(TENANT, "app", 17)


async def _play(directory: Path, verb: Verb, steps: Steps, patch: pytest.MonkeyPatch) -> None:
    world = Plane(directory)
    try:
        await world.plane.databases.create(TENANT, "app")
        await world.plane.past.checkpoint(TENANT, "app", "before")
        world.commit("since")
        unfailing = world.pages, world.wal
        for part in ("pages", "wal", "launcher"):
            setattr(world, part, Stepped(getattr(world, part), steps))
        await world.plane.computes.stop((TENANT, "app"))
        world.plane = world.new_plane()
        with patch.context() as failing:
            _stepped_changes(failing, world.state, steps)
            failing.setattr(FakeCompute, "set_owner", _stepped(FakeCompute.set_owner, steps))
            with contextlib.suppress(Unavailable, asyncio.CancelledError):
                await verb(world)
            await world.settled()
        world.pages, world.wal = unfailing
        await world.plane.collect()
        _is_consistent(world)
    finally:
        await world.close()


def _is_consistent(world: Plane) -> None:
    """Every timeline that any part has is one that a name needs, and the other way round."""
    view = world.state.view()
    left = [item for item in view.unsettled() if not _may_wait(item.imported, item.state)]
    assert left == []
    waiting = {item.timeline for item in view.unsettled()}
    unmade = {item.timeline for item in view.live_timelines() if item.unmade_log is not None}
    assert world.wal.known == world.live() - unmade
    assert set(world.logs.timelines) - waiting == world.live()
    named = {item.timeline for item in view.databases()}
    assert named <= world.live()
    running = {item.timeline for item in world.launcher.started if item.alive}
    assert running <= named


def _may_wait(imported: bool, state: TimelineState) -> bool:
    """An import that was not registered is given a day: its caller may be at it still."""
    return imported and state is TimelineState.PENDING


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        *((verb, Unavailable) for verb in (_create, _branch, _branch_stopped, _import, _restore)),
        (_upgrade, Unavailable),
        *((verb, asyncio.CancelledError) for verb in (_create, _undo, _upgrade)),
    ],
)
def test_whatever_step_fails_nothing_is_left_of_what_is_not_named(
    tmp_path: Path, verb: Verb, kind: type[BaseException]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        every = Steps(-1, kind)
        virtual_time.play(_play(tmp_path / "whole", verb, every, patch))
        assert every.taken > 5
        for failing in range(every.taken):
            steps = Steps(failing, kind)
            virtual_time.play(_play(tmp_path / f"{failing}", verb, steps, patch))
            assert steps.taken > failing, "the step was taken"


class Bare(Plane):
    """Without a template."""

    def _enter_template(self) -> None:
        self.logs.timelines.clear()
        self.wal.known.clear()


async def _make_template(directory: Path, steps: Steps, patch: pytest.MonkeyPatch) -> None:
    world = Bare(directory)
    wal: Any = Stepped(world.wal, steps)
    pages: Any = Stepped(world.pages, steps)
    agent: Any = Stepped(_Importing(world), steps)
    turns = Turns()
    try:
        timelines = Timelines(world.state, pages, Logs(world.state, wal), turns)
        with patch.context() as failing:
            _stepped_changes(failing, world.state, steps)
            with contextlib.suppress(Unavailable, asyncio.CancelledError):
                await ensure_template(world.state, timelines, agent, wal, TENANT, 15)
            await turns.close()
        await timelines.collect()
        made = world.state.view().template()
        there = {made.timeline} if made is not None else set()
        assert world.live() == there == world.wal.known == set(world.logs.timelines)
        assert world.state.view().unsettled() == []
    finally:
        await world.close()


class _Importing:
    """An agent that brings a new cluster to the page server."""

    def __init__(self, world: Plane) -> None:
        self._world = world

    async def make_template(self, request: pb.MakeTemplateRequest) -> pb.MakeTemplateResponse:
        self._world.logs.timelines[TimelineId(request.timeline_id)] = Log(None, FIRST_LSN)
        return pb.MakeTemplateResponse(lsn=FIRST_LSN, prev_record_lsn=1, system_id=1)


@pytest.mark.parametrize("kind", [Unavailable, asyncio.CancelledError])
def test_a_template_is_made_or_nothing_is(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimelineId, "generate", lambda: TEMPLATE)
        every = Steps(-1, kind)
        virtual_time.play(_make_template(tmp_path / "whole", every, patch))
        for failing in range(every.taken):
            steps = Steps(failing, kind)
            virtual_time.play(_make_template(tmp_path / f"{failing}", steps, patch))
            assert steps.taken > failing
