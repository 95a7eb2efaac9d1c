"""Safekeepers and a compute that writes to them, in memory: what a keeper and a membership tend.

Each safekeeper is the real acceptor over nothing but positions, and the client of all of them is
the real one: elections, changes of members and what they are told are as they will be. A
safekeeper may be away (it refuses), frozen (it does not answer), lag behind, or lose its disk.
The compute counts confirmations by its rule, as Postgres does, so that a commit that a client is
told of is one that the rule allows.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from pagestore.consensus import acceptor
from pagestore.consensus.acceptor import (
    Append,
    Attach,
    ChangeMembers,
    CutLog,
    Detach,
    Elect,
    Flushed,
    Message,
    State,
    Vote,
    WalPosition,
    WriteLog,
    position_of,
    step,
)
from pagestore.consensus.election import named
from pagestore.consensus.members import Configuration, Member
from pagestore.errors import NotFound, Unavailable
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.quorum import keeper as keeper_module
from pagestore.quorum import safekeepers as safekeepers_module
from pagestore.quorum import wire
from pagestore.quorum.client import QuorumClient
from pagestore.quorum.keeper import Keeper
from pagestore.quorum.safekeepers import Key
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice import messages
from tests.unit import virtual_time

START = 1 << 20
RECORD_BYTES = 64
ADDRESSES = {number: f"sk{number}:1" for number in range(1, 10)}
KEY: Key = (DEFAULT_TENANT, TimelineId(b"\7" * 16))


class FakeSafekeeper:
    """One safekeeper, as its client sees it."""

    def __init__(self, quorum: Quorum, number: int) -> None:
        self.quorum, self.number = quorum, number
        self.timelines: dict[Key, State] = {}
        self.away = self.frozen = self.lags = False
        self.broken = ""
        """Why its stream brings nothing, if it does not."""
        self.calls: list[tuple[float, str]] = []
        self._incarnations = itertools.count(100 * number)

    def lose_disk(self) -> None:
        self.timelines.clear()

    async def close(self) -> None: ...

    def follows(self, key: Key = KEY) -> bool:
        state, compute = self.timelines.get(key), self.quorum.computes.get(key)
        if state is None or state.attachment is None or compute is None:
            return False
        is_this = state.attachment.conninfo == compute.for_safekeepers()
        return is_this and not self.broken and not self.away

    def asked(self, name: str) -> list[float]:
        return [moment for moment, called in self.calls if called == name]

    # Its methods

    async def get_status(self, tenant: TenantId, timeline: TimelineId) -> pb.WalTimelineStatus:
        state = await self._called("get_status", (tenant, timeline))
        return self._status((tenant, timeline), state)

    async def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        start_lsn: int,
        *,
        configuration: pb.Configuration,
        **_: int,
    ) -> pb.WalTimelineStatus:
        await self._answers("create_timeline")
        known = messages.configuration_of(configuration)
        me = messages.own_member(known, self.number)
        state = acceptor.initial(WalPosition(start_lsn, 0), 1, me, known)
        self.timelines[tenant, timeline] = state
        return self._status((tenant, timeline), state)

    async def delete_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        await self._called("delete_timeline", (tenant, timeline))
        del self.timelines[tenant, timeline]

    async def remove_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        await self.vote_next(tenant, timeline)
        await self.delete_timeline(tenant, timeline)

    async def vote(self, tenant: TenantId, timeline: TimelineId, term: int) -> pb.VoteResponse:
        key = (tenant, timeline)
        before = await self._called("vote", key)
        state = self._drive(key, Vote(term))
        return messages.ballot(state.term > before.term, state, self.number, ADDRESSES)

    async def vote_next(self, tenant: TenantId, timeline: TimelineId) -> pb.VoteResponse:
        return await self.vote(tenant, timeline, self.timelines[tenant, timeline].term + 1)

    async def elect(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        history: Iterable[pb.TermSwitch],
        configuration: pb.Configuration,
    ) -> pb.ElectResponse:
        key = (tenant, timeline)
        await self._called("elect", key)
        told = Elect(term, wire.history(history), messages.configuration_of(configuration))
        return messages.elect_response(self._drive(key, told), self.number, ADDRESSES)

    async def admit(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        history: Iterable[pb.TermSwitch],
        configuration: pb.Configuration,
        *,
        start_lsn: int,
        prev_record_lsn: int,
        system_id: int,
    ) -> pb.ElectResponse:
        await self._answers("admit")
        key, known = (tenant, timeline), messages.configuration_of(configuration)
        elect = Elect(term, wire.history(history), known)
        if key in self.timelines:
            self._drive(key, Vote(term))
            state = self._drive(key, elect)
        else:
            me = Member(self.number, next(self._incarnations))
            start = WalPosition(start_lsn, prev_record_lsn)
            state = self._take(key, acceptor.admit(me, elect, start, system_id))
        return messages.elect_response(state, self.number, ADDRESSES)

    async def change_members(
        self, tenant: TenantId, timeline: TimelineId, term: int, configuration: pb.Configuration
    ) -> pb.ChangeMembersResponse:
        key = (tenant, timeline)
        await self._called("change_members", key)
        told = ChangeMembers(term, messages.configuration_of(configuration))
        return messages.change_response(self._drive(key, told), self.number, ADDRESSES)

    async def fill(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        end_lsn: int,
        donors: Iterable[pb.Member],
    ) -> pb.FillResponse:
        key = (tenant, timeline)
        state = await self._called("fill", key)
        able = [self.quorum.safekeepers[item.number] for item in donors]
        donor = next((item for item in able if item.has(key, term, end_lsn)), None)
        if donor is None:
            raise Unavailable("UNAVAILABLE", "No donor has it.")
        end = state.position.flush_lsn
        if end < end_lsn:
            state = self._drive(key, Append(term, end, end_lsn - end))
        return messages.fill_response(state, self.number, ADDRESSES)

    def has(self, key: Key, term: int, end_lsn: int) -> bool:
        state = self.timelines.get(key)
        if state is None or self.away or self.frozen or not acceptor.may_fill(state, term):
            return False
        return state.position.flush_lsn >= end_lsn

    async def attach_compute(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        conninfo: str,
        start_lsn: int,
        *,
        hold: bool = False,
    ) -> None:
        key = (tenant, timeline)
        await self._called("attach_compute", key)
        self._drive(key, Attach(term, conninfo, start_lsn))
        self.broken = ""
        if not hold:
            self.quorum.flow(key)

    async def detach_compute(
        self, tenant: TenantId, timeline: TimelineId, term: int, **_: int
    ) -> int:
        key = (tenant, timeline)
        await self._called("detach_compute", key)
        return self._drive(key, Detach(term)).position.flush_lsn

    # Inside

    async def _answers(self, name: str) -> None:
        self.calls.append((virtual_time.now(), name))
        if self.away:
            raise Unavailable("UNAVAILABLE", f"Safekeeper {self.number} is away.")
        await asyncio.sleep(86_400 if self.frozen else 0.001)
        self.quorum.answered()

    async def _called(self, name: str, key: Key) -> State:
        await self._answers(name)
        self.quorum.gossip(key)
        if key not in self.timelines:
            raise NotFound("TIMELINE_NOT_FOUND", f"No log of {key[1]}.")
        return self.timelines[key]

    def _drive(self, key: Key, message: Message) -> State:
        return self._take(key, step(self.timelines[key], message))

    def _take(self, key: Key, outcome: acceptor.Step) -> State:
        if outcome.refusal is not None:
            raise outcome.refusal
        state = outcome.state
        for action in outcome.actions:
            if isinstance(action, WriteLog):
                end = self.quorum.ends(key)
                state = step(state, Flushed(state.term, end)).state
            elif isinstance(action, CutLog):
                assert action.position.flush_lsn >= self.quorum.told(key), "an acknowledged commit"
        self.timelines[key] = state
        return state

    def flush(self, key: Key, term: int, end: WalPosition) -> None:
        """What its stream does."""
        state = self.timelines.get(key)
        waits = self.frozen or self.lags
        if state is None or not self.follows(key) or waits or state.writing_term != term:
            return
        self.timelines[key] = step(state, Flushed(term, end)).state

    def _status(self, key: Key, state: State) -> pb.WalTimelineStatus:
        attached = state.attachment is not None
        return pb.WalTimelineStatus(
            tenant_id=key[0].raw,
            timeline_id=key[1].raw,
            start_lsn=state.start.flush_lsn,
            term=state.term,
            flush_lsn=state.position.flush_lsn,
            commit_lsn=state.commit_lsn,
            term_history=messages.history(state.history),
            receiving=self.follows(key),
            last_error=(self.broken or "connection refused") if attached else "",
            system_id=state.system_id,
            prev_record_lsn=state.position.prev_record_lsn,
            configuration=messages.configuration(state.configuration, ADDRESSES),
            number=self.number,
            incarnation=named(state, self.number).incarnation,
        )


@dataclass(frozen=True)
class Record:
    tenant: TenantId
    timeline: TimelineId
    term: int


class FakeCompute:
    """It writes, and tells its client of a commit when so many of the rule have confirmed it."""

    def __init__(self, quorum: Quorum, key: Key, term: int, end: int, rule: str) -> None:
        self.quorum, self.key = quorum, key
        self.record = Record(*key, term)
        self.for_safekeepers = f"term {term}".__str__
        self.end = WalPosition(end, 0)
        self.told = end
        """The end of what a client was told to be committed."""
        self.rules = [rule]
        self.on_rule: Callable[[str], None] = lambda rule: None
        self.rule_fails: Exception | None = None

    def write(self) -> bool:
        """A commit; whether the client is told."""
        before = self.end.flush_lsn
        self.end = WalPosition(before + RECORD_BYTES, before)
        self.quorum.flow(self.key)
        self.quorum.gossip(self.key)
        return self.told == self.end.flush_lsn

    def count(self) -> None:
        """By `ANY n (names)`."""
        needed, _, names = self.rules[-1].removeprefix("ANY ").partition(" ")
        confirmed = [
            item
            for item in self.quorum.safekeepers.values()
            if item.follows(self.key) and not item.frozen
            if named(item.timelines[self.key], item.number).standby_name
            in names.strip("()").split(", ")
            if item.timelines[self.key].position >= self.end
        ]
        if len(confirmed) >= int(needed):
            self.told = self.end.flush_lsn

    async def rule(self) -> str:
        return self.rules[-1]

    async def set_rule(self, rule: str) -> None:
        await asyncio.sleep(0.001)
        if self.rule_fails is not None:
            raise self.rule_fails
        self.on_rule(rule)
        self.rules.append(rule)

    def conninfo(self) -> str:
        return "a compute"


class Quorum:
    """Safekeepers of these numbers, and what runs over them."""

    def __init__(self, numbers: Iterable[int] = (1, 2, 3)) -> None:
        self.safekeepers = {number: FakeSafekeeper(self, number) for number in numbers}
        self.computes: dict[Key, FakeCompute] = {}
        self.fenced = 0
        self.calls = 0
        self.on_call: Callable[[int], None] = lambda calls: None
        self.slots_dropped: list[tuple[Any, ...]] = []
        self._next_generation = 1
        self._clients: list[QuorumClient] = []
        self._tasks: list[asyncio.Task[None]] = []

    def __getitem__(self, number: int) -> FakeSafekeeper:
        return self.safekeepers[number]

    # The control plane

    def client(self, *numbers: int) -> QuorumClient:
        """Of a control plane that has just started; these are to be the members."""
        addresses = {number: ADDRESSES[number] for number in numbers}
        self._clients.append(QuorumClient(addresses, generations=self._generations, timeout=5.0))
        return self._clients[-1]

    def _generations(self, above: int) -> int:
        first = max(self._next_generation, above + 1)
        self._next_generation = first + 3
        return first

    async def compute(self, client: QuorumClient, key: Key = KEY) -> FakeCompute:
        """A new timeline, and its compute that starts with who is there."""
        await client.create_timeline(*key, START)
        return await self.restart(client, key)

    async def restart(self, client: QuorumClient, key: Key = KEY) -> FakeCompute:
        won = await client.win_term(*key)
        rule = f"ANY {won.needed} ({', '.join(won.standbys)})"
        self.computes[key] = FakeCompute(self, key, won.term, won.end_lsn, rule)
        conninfo = self.computes[key].for_safekeepers()
        await client.attach_compute(*key, won.term, conninfo, won.end_lsn)
        return self.computes[key]

    def keep(self, client: QuorumClient, compute: FakeCompute) -> tuple[Keeper, asyncio.Task[None]]:
        """By a new keeper; the one before it has gone with its control plane."""
        for task in self._tasks:
            task.cancel()

        async def fenced() -> None:
            self.fenced += 1

        running: Any = compute
        keeper = Keeper(client, running, fenced)
        self._tasks.append(asyncio.create_task(keeper.run()))
        return keeper, self._tasks[-1]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert [item for item in ends if isinstance(item, Exception)] == []
        for client in self._clients:
            await client.close()

    # What they do by themselves

    def flow(self, key: Key) -> None:
        """WAL goes to those who follow the compute, and is confirmed."""
        compute = self.computes.get(key)
        if compute is not None:
            for item in self.safekeepers.values():
                item.flush(key, compute.record.term, compute.end)
            compute.count()

    def gossip(self, key: Key) -> None:
        there = [item for item in self.safekeepers.values() if key in item.timelines]
        there = [item for item in there if not item.away and not item.frozen]
        said = [position_of(item.timelines[key]) for item in there]
        for item in there:
            for heard in said:
                item.timelines[key] = step(item.timelines[key], heard).state

    def answered(self) -> None:
        self.calls += 1
        self.on_call(self.calls)

    def ends(self, key: Key) -> WalPosition:
        """Where a log that was filled ends: as a donor's."""
        return max(
            item.timelines[key].position
            for item in self.safekeepers.values()
            if key in item.timelines
        )

    def told(self, key: Key) -> int:
        return self.computes[key].told if key in self.computes else START

    # What a test looks at

    def configuration(self, key: Key = KEY) -> Configuration:
        """The one that was changed last."""
        states = [
            item.timelines[key] for item in self.safekeepers.values() if key in item.timelines
        ]
        found = max(states, key=lambda item: (item.writing_term, item.configuration.generation))
        return found.configuration

    def numbers(self, key: Key = KEY) -> list[int]:
        return [item.number for item in self.configuration(key).everyone]

    def all_follow(self, key: Key = KEY) -> bool:
        """Every member follows the compute, and the compute goes by the members."""
        compute, configuration = self.computes[key], self.configuration(key)
        following = [
            named(item.timelines[key], item.number)
            for item in self.safekeepers.values()
            if item.follows(key) and item.timelines[key].position == compute.end
        ]
        return {*following} >= {*configuration.everyone} and (
            compute.rules[-1] == configuration.standby_names and not configuration.joint
        )

    def stored(self, configuration: Configuration, key: Key = KEY) -> bool:
        """Whether a majority of each of its sets has stored it."""
        aware = {
            named(item.timelines[key], item.number)
            for item in self.safekeepers.values()
            if key in item.timelines
            and item.timelines[key].configuration.generation >= configuration.generation
        }
        return configuration.decided_by(aware)


Story = Callable[[Quorum], Any]


def play(story: Story, numbers: Iterable[int] = (1, 2, 3)) -> None:
    """A story of safekeepers of its own, in virtual time."""

    async def whole() -> None:
        quorum = Quorum(numbers)
        with pytest.MonkeyPatch.context() as patch:
            stand_in(patch, quorum)
            try:
                await story(quorum)
            finally:
                await quorum.close()

    virtual_time.play(whole())


def stand_in(patch: pytest.MonkeyPatch, quorum: Quorum) -> None:
    def connect(address: str, **_: object) -> FakeSafekeeper:
        return quorum[int(address.removeprefix("sk").partition(":")[0])]

    class Session:
        async def __aenter__(self) -> Session:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def execute(self, statement: str, arguments: tuple[Any, ...]) -> None:
            quorum.slots_dropped.append(arguments)

    async def operator_session(conninfo: str, **_: object) -> Session:
        return Session()

    patch.setattr(safekeepers_module, "WalClient", connect)
    patch.setattr(keeper_module, "operator_session", operator_session)
