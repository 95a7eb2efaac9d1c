"""Who wins a term and then writes: the control plane's election and a stock Postgres after it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pagestore.consensus.election import Ballot, Blank, Declined, Election, Reached
from pagestore.consensus.members import Configuration, Member
from tests.simulation.keeper import Keeper, Plan
from tests.simulation.ledger import Ledger
from tests.simulation.safekeeper import (
    AttachTo,
    Confirmed,
    Pull,
    Pushed,
    ReadWal,
    Records,
    Told,
    WalRead,
)
from tests.simulation.world import Record, World


class SimCompute:
    """Lives until it is killed, or has lost to a higher term. `rule` is by whose confirmations
    it tells its clients."""

    tick_every = 3.0
    write_every = 1.5
    patience = 8

    def __init__(self, world: World, ledger: Ledger, plan: Plan, name: str, term: int) -> None:
        self.world, self.ledger, self.plan, self.name = world, ledger, plan, name
        self.alive = True
        self.wal: list[Record] = []
        self.rule = Configuration()
        self.confirmed: dict[Member, int] = {}
        self.acknowledged = 0
        self.started = False
        self._pulls: dict[str, int] = {}
        world.nodes[name] = self
        self._begin(term)
        world.after(self.tick_every, self._tick)

    @property
    def term(self) -> int:
        return self.election.term

    def act(self, actions: Iterable[Any]) -> None:
        for action in actions:
            if action.number not in self.plan.out_of_reach:
                self.world.send(self.name, f"sk{action.number}", action)

    def _begin(self, term: int) -> None:
        self.election = Election(term, self.plan.asked_first())
        self.keeper = Keeper(self)
        self.reached: dict[Member, int] = {}
        self.wal, self._ticks = [], 0
        self.act(self.election.retry())

    def _tick(self) -> None:
        if not self.alive:
            return
        self._ticks += 1
        if self.election.lost_to or (not self.started and self._ticks > self.patience):
            self._try_again()
        if not self.alive:
            return
        self.act(self.election.retry())
        for member in self.reached:
            if member not in self.confirmed:
                self._bring(member)
        if self.started:
            self.keeper.tick()
        self.world.after(self.world.spread(self.tick_every), self._tick)

    def _try_again(self) -> None:
        """A compute that had started is over; a start is tried under a higher term."""
        if self.started or (self.election.lost_to and self.world.chance(0.5)):
            self.alive = self.plan.is_last(self.name) and not self.started
        if self.alive:
            self._begin(max(self.term, self.election.lost_to) + 1)

    def receive(self, sender: str, message: Any) -> None:
        match message:
            case Confirmed() if message.term == self.term:
                self._note_confirmed(message)
            case Pull() if message.term == self.term and self.started:
                self._push(sender, message.lsn)
            case Reached() if message.term == self.term:
                known = self.reached.get(message.member, 0)
                self.reached[message.member] = max(known, message.flush_lsn)
                self.act(self.election.step(message))
                if self.election.start is not None:
                    self._bring(message.member)
                    self._start_when_possible()
                self.keeper.receive(message)
            case Ballot() | Declined():
                self.act(self.election.step(message))
            case Blank():
                self.act(self.election.step(message))
                self.keeper.receive(message)
            case Told():
                self.keeper.receive(message)

    def _bring(self, member: Member) -> None:
        """Behind the start comes the compute's checkpoint record, then its stream."""
        start, flush_lsn = self.election.start, self.reached[member]
        if start is None or flush_lsn < start.flush_lsn:
            return
        if not self.wal:
            self._write(start.flush_lsn)
        first, name = self.wal[0], f"sk{member.number}"
        if flush_lsn == first.start:
            records = Records(self.term, first.start, (first,), self.name)
            self.world.send(self.name, name, records)
        elif flush_lsn >= first.end:
            self.world.send(self.name, name, AttachTo(self.term, first.end))

    def _start_when_possible(self) -> None:
        if self.started or not self.wal:
            return
        assert self.election.choice is not None
        self.rule = self.election.choice.elect.configuration
        first = self.wal[0]
        durable = [member for member, lsn in self.reached.items() if lsn >= first.end]
        if self.rule.decided_by(durable):
            self.started = True
            self.ledger.acknowledge([first], self.term, self.name)
            self.acknowledged = first.end
            self.keeper.known = self.rule
            self.world.after(self.write_every, self._work)

    def set_rule(self, configuration: Configuration) -> int:
        """Returns the end of all that can have been acknowledged by the rule before."""
        self.rule = configuration
        self._acknowledge()
        return self.wal[-1].end

    def _write(self, lsn: int) -> None:
        random = self.world.random
        end = lsn + 8 + 8 * int(4 * random.random())
        self.wal.append(Record(lsn, end, self.term, random.getrandbits(48)))

    def _work(self) -> None:
        if self.alive:
            self._write(self.wal[-1].end)
            pulls, self._pulls = self._pulls, {}
            for sender, lsn in pulls.items():
                self._push(sender, lsn)
            self.world.after(self.world.spread(self.write_every), self._work)

    def _push(self, sender: str, lsn: int) -> None:
        if self.wal[-1].end == lsn:
            self._pulls[sender] = lsn
            return
        records = tuple(item for item in self.wal if item.start >= lsn)[:8]
        if records and records[0].start == lsn:
            self.world.send(self.name, sender, Pushed(self.term, lsn, records))

    def _note_confirmed(self, message: Confirmed) -> None:
        known = self.confirmed.get(message.member, 0)
        if message.flush_lsn > known:
            self.confirmed[message.member] = message.flush_lsn
            self._acknowledge()

    def _acknowledge(self) -> None:
        decided = self.rule.reached(self.confirmed)
        if decided > self.acknowledged:
            before, self.acknowledged = self.acknowledged, decided
            done = [item for item in self.wal if before < item.end <= decided]
            self.ledger.acknowledge(done, self.term, self.name)


class SimReader:
    """The page server: reads on from whichever safekeeper answers."""

    every = 5.0

    def __init__(self, world: World, ledger: Ledger, start: int) -> None:
        self.world, self.ledger = world, ledger
        self.name = "reader"
        self.alive = True
        self.lsn = start
        world.nodes[self.name] = self
        world.after(self.every, self._tick)

    def _tick(self) -> None:
        safekeepers = [name for name in self.world.nodes if name.startswith("sk")]
        self.world.send(self.name, self.world.random.choice(safekeepers), ReadWal(self.lsn))
        self.world.after(self.every, self._tick)

    def receive(self, sender: str, message: Any) -> None:
        assert isinstance(message, WalRead)
        if message.records and message.lsn == self.lsn == message.records[0].start:
            self.ledger.read(message.records)
            self.lsn = message.records[-1].end
