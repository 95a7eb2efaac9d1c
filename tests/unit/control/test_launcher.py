"""What the control plane makes of an agent that comes, goes and forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from pagestore.client.computes import AGENT_AWAY, AWAY_SECONDS
from pagestore.control.compute import CarriedFiles
from pagestore.control.launcher import (
    GENERATIONS,
    LONGEST_PAUSE,
    LOST,
    AgentCompute,
    AgentLauncher,
)
from pagestore.control.operator_key import KEY_BYTES, OperatorKey
from pagestore.control.records import DatabaseRecord
from pagestore.control.setting_aside import is_worth_another
from pagestore.errors import DeadlineExceeded, NotFound, ResourceExhausted, Unavailable
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.postgres.server_log import ServerFailed
from pagestore.v1 import compute_pb2 as pb
from tests.unit import virtual_time
from tests.unit.virtual_time import settle

AWAY = Unavailable(AGENT_AWAY, "It is away.")


class FakeAgent:
    """As its client sees it; what was asked stands in `asked`."""

    address = "agent:1"

    def __init__(self) -> None:
        self.away = self.slow = False
        self.computes: dict[str, pb.Compute] = {}
        self.asked: list[str] = []
        self.on_start: Callable[[pb.StartComputeRequest], Coroutine[Any, Any, None]] | None = None
        self.failure: pb.StartFailure | None = None
        self.granted: list[int] = []
        self._updates: asyncio.Queue[pb.ComputesUpdate | None] = asyncio.Queue()

    def has(self, name: str, **more: Any) -> pb.Compute:
        fields = {"alive": True, "port": 5, "timeline_id": bytes(16), **more}
        self.computes[name] = pb.Compute(name=name, **fields)
        return self.computes[name]

    def say(self, *computes: pb.Compute, **more: Any) -> None:
        self._updates.put_nowait(pb.ComputesUpdate(computes=computes, **more))

    def die(self) -> None:
        self.away = True
        self._updates.put_nowait(None)

    async def watch(self) -> AsyncIterator[pb.ComputesUpdate]:
        if self.away:
            raise AWAY
        self._updates = asyncio.Queue()
        yield pb.ComputesUpdate(whole=True, computes=self.computes.values())
        while (update := await self._updates.get()) is not None:
            yield update
        raise AWAY

    async def start(self, request: pb.StartComputeRequest) -> pb.StartComputeResponse:
        self._ask("start")
        if self.failure is not None:
            return pb.StartComputeResponse(failure=self.failure)
        compute = self.has(request.name, timeline_id=request.timeline_id)
        if self.on_start is not None:
            await self.on_start(request)
        return pb.StartComputeResponse(compute=compute)

    async def stop(self, name: str) -> pb.StopComputeResponse:
        self._ask(f"stop {name}")
        if name not in self.computes:
            raise NotFound("COMPUTE_NOT_FOUND", "There is none.")
        carried = pb.CarriedFiles(files={"f": b"1"}, settings={"a": "1"}, settings_known=True)
        return pb.StopComputeResponse(carried=carried)

    async def discard(self, name: str) -> None:
        self._ask(f"discard {name}")
        if self.slow:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "No answer in time.")
        self.computes.pop(name, None)

    async def settings(self, name: str) -> pb.ComputeSettings:
        self._ask(f"settings {name}")
        if name not in self.computes:
            raise NotFound("COMPUTE_NOT_FOUND", "There is none.")
        return pb.ComputeSettings()

    async def grant_generations(self, first: int, count: int) -> None:
        self.granted += [first, count]

    def _ask(self, what: str) -> None:
        if self.away:
            raise AWAY
        self.asked.append(what)


Story = Callable[[FakeAgent, AgentLauncher], Coroutine[Any, Any, None]]


def play(story: Story) -> None:
    async def whole() -> None:
        agent = FakeAgent()
        client: Any = agent
        launcher = AgentLauncher(client, lambda above: above + 1, OperatorKey(bytes(KEY_BYTES)))
        try:
            await story(agent, launcher)
        finally:
            await launcher.close()

    virtual_time.play(whole())


def record() -> DatabaseRecord:
    return DatabaseRecord(
        tenant=DEFAULT_TENANT,
        name="app",
        timeline=TimelineId(b"\1" * 16),
        branch_lsn=1,
        created_micros=1,
        postgres_database="app",
    )


async def started(launcher: AgentLauncher) -> AgentCompute:
    compute = await launcher.start(record(), CarriedFiles())
    assert isinstance(compute, AgentCompute)
    return compute


def test_an_agent_that_is_away_is_said_by_name_and_its_computes_go_on() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        compute = await started(launcher)
        agent.die()
        await settle()
        assert compute.alive
        before = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable) as refused:
            await launcher.start(record(), CarriedFiles())
        assert refused.value.reason == AGENT_AWAY
        assert asyncio.get_running_loop().time() - before == pytest.approx(AWAY_SECONDS)
        agent.away = False
        assert (await started(launcher)).alive
        assert compute.alive

    play(story)


def test_what_ended_while_its_agent_was_away_is_seen_when_that_is_back() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        died, forgotten = await started(launcher), await started(launcher)
        agent.die()
        await settle()
        agent.has(died.name, alive=False, why="it fell")
        del agent.computes[forgotten.name]
        agent.away = False
        assert await asyncio.wait_for(died.wait_exit(), 5) == "it fell"
        assert await asyncio.wait_for(forgotten.wait_exit(), 5) == LOST

    play(story)


def test_an_end_that_is_said_before_the_start_is_answered_is_not_missed() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        async def falls(request: pb.StartComputeRequest) -> None:
            agent.say(pb.Compute(name=request.name, timeline_id=bytes(16), why="at once"))
            await settle()

        agent.on_start = falls
        compute = await started(launcher)
        assert await compute.wait_exit() == "at once"

    play(story)


def test_a_whole_list_that_is_older_than_a_start_does_not_lose_it() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        compute, gone = await started(launcher), await started(launcher)
        agent.say(whole=True)
        del agent.computes[gone.name]
        assert await asyncio.wait_for(gone.wait_exit(), 5) == LOST
        assert compute.alive

    play(story)


def test_a_compute_whose_start_was_not_answered_is_discarded() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        async def late(request: pb.StartComputeRequest) -> None:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "too late")

        async def lost(request: pb.StartComputeRequest) -> None:
            agent.die()
            raise AWAY

        for on_start in (late, lost):
            agent.on_start = on_start
            with pytest.raises((DeadlineExceeded, Unavailable)):
                await launcher.start(record(), CarriedFiles())
            [name] = agent.computes
            agent.away = False
            await asyncio.sleep(5)
            assert f"discard {name}" in agent.asked
            assert agent.computes == {}

    play(story)


def test_what_was_to_be_discarded_while_the_agent_was_away_is_discarded_later() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        compute = await started(launcher)
        agent.die()
        await settle()
        watching = asyncio.create_task(compute.wait_exit())
        await compute.discard()
        assert await asyncio.wait_for(watching, 5) == LOST
        assert compute.name in agent.computes
        agent.away = False
        await asyncio.sleep(5)
        assert agent.computes == {}

    play(story)


def test_what_ran_before_this_control_plane_is_left_over_and_discarded_by_nobody() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        agent.has("runs")
        agent.has("ended", alive=False, why="long ago")
        found = {compute.timeline: compute for compute in await launcher.leftovers()}
        assert len(await launcher.leftovers()) == 2
        assert found
        agent.die()
        agent.away = False
        await asyncio.sleep(5)
        assert agent.asked == []

    play(story)


def test_a_stop_has_what_is_kept_and_of_one_that_is_gone_nothing() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        compute = await started(launcher)
        assert await compute.stop() == CarriedFiles({"f": b"1"}, {"a": "1"})
        await compute.discard()
        assert await compute.stop() == CarriedFiles()

    play(story)


def test_postgress_own_words_travel() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        agent.failure = pb.StartFailure(
            message="Postgres exited", complaint="no memory", status=1, status_known=True
        )
        with pytest.raises(ServerFailed) as failed:
            await launcher.start(record(), CarriedFiles())
        assert (failed.value.complaint, failed.value.status) == ("no memory", 1)
        assert failed.value.reason == "COMPUTE_FAILED"
        assert is_worth_another(failed.value)

    play(story)


def test_numbers_for_changes_of_members_are_sent_when_they_are_wanted() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        await launcher.leftovers()
        agent.say(generations_above=7)
        await settle()
        assert agent.granted == [8, GENERATIONS]

    play(story)


def test_numbers_that_cannot_be_given_away_yet_keep_nobody_from_starting() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        full = True

        def generations(above: int) -> int:
            if full:
                raise ResourceExhausted("STORE_FULL", "There is no room.")
            return above + 1

        launcher._generations = generations
        await launcher.leftovers()
        agent.say(generations_above=7)
        await settle()
        assert (await started(launcher)).alive
        assert agent.granted == []
        full = False
        await asyncio.sleep(LONGEST_PAUSE)
        assert agent.granted == [8, GENERATIONS]

    play(story)


def test_a_compute_that_cannot_be_discarded_now_is_nobodys_and_goes_later() -> None:
    async def story(agent: FakeAgent, launcher: AgentLauncher) -> None:
        compute = await started(launcher)
        agent.slow = True
        await compute.discard()
        assert not compute.alive
        assert compute.name in agent.computes
        agent.slow = False
        agent.die()
        await settle()
        agent.away = False
        await asyncio.sleep(1)
        assert agent.computes == {}

    play(story)
