"""Who wins a term and then writes: the control plane's election and a stock Postgres after it."""

from __future__ import annotations

from pagestore.walservice.election import Election, Reached
from tests.simulation.ledger import Ledger
from tests.simulation.safekeeper import AttachTo, Confirmed, Pull, Pushed, ReadWal, Records, WalRead
from tests.simulation.world import Record, World


class SimCompute:
    """Lives until it is killed, or has lost to a higher term."""

    tick_every = 3.0
    write_every = 1.5
    patience = 8

    def __init__(self, world: World, ledger: Ledger, name: str, term: int, members: int) -> None:
        self.world, self.ledger, self.name = world, ledger, name
        self.alive = True
        self.members = range(1, members + 1)
        self.quorum = members // 2 + 1
        self.election = Election(term, self.members)
        self.wal: list[Record] = []
        self.reached: dict[int, int] = {}
        self.confirmed: dict[int, int] = {}
        self.acknowledged = 0
        self.started = False
        self._ticks = 0
        world.nodes[name] = self
        self._act(self.election.retry())
        world.after(self.tick_every, self._tick)

    @property
    def term(self) -> int:
        return self.election.term

    def _act(self, actions: list[object]) -> None:
        for action in actions:
            self.world.send(self.name, f"sk{action.number}", action)  # type: ignore[attr-defined]

    def _tick(self) -> None:
        if not self.alive:
            return
        self._ticks += 1
        if self.election.lost_to or (not self.started and self._ticks > self.patience):
            self._try_again()
        self._act([*self.election.retry()])
        self._bring_to_the_compute()
        self.world.after(self.tick_every * self.world.random.uniform(0.5, 1.5), self._tick)

    def _try_again(self) -> None:
        """A compute that had started is over; a start is tried under a higher term."""
        if self.started:
            self.alive = False
            return
        term = max(self.term, self.election.lost_to) + 1
        self.election = Election(term, self.members)
        self.reached, self.wal, self._ticks = {}, [], 0

    def receive(self, sender: str, message: object) -> None:
        match message:
            case Reached() if message.term == self.term:
                known = self.reached.get(message.number, 0)
                self.reached[message.number] = max(known, message.flush_lsn)
                self._act([*self.election.step(message)])
                self._bring_to_the_compute()
            case Pull() if message.term == self.term and self.started:
                self._push(sender, message.lsn)
            case Confirmed() if message.term == self.term:
                self._confirmed(message)
            case Pull() | Confirmed() | Reached():
                pass
            case _:
                self._act([*self.election.step(message)])  # type: ignore[arg-type]

    def _bring_to_the_compute(self) -> None:
        """Behind the start: its checkpoint record, then its stream."""
        start = self.election.start
        if start is None:
            return
        if not self.wal:
            self._write(start.flush_lsn)
        first = self.wal[0]
        for number, flush_lsn in self.reached.items():
            if flush_lsn == first.start:
                records = Records(self.term, first.start, (first,), self.name)
                self.world.send(self.name, f"sk{number}", records)
            elif flush_lsn >= first.end:
                self.world.send(self.name, f"sk{number}", AttachTo(self.term, first.end))
        durable = [number for number, flush_lsn in self.reached.items() if flush_lsn >= first.end]
        if not self.started and len(durable) >= self.quorum:
            self.started = True
            self.ledger.acknowledge([first], self.term, self.name)
            self.acknowledged = first.end
            self.world.after(self.write_every, self._work)

    def _write(self, lsn: int) -> None:
        random = self.world.random
        self.wal.append(
            Record(lsn, lsn + 8 * random.randint(1, 4), self.term, random.getrandbits(48))
        )

    def _work(self) -> None:
        if self.alive:
            self._write(self.wal[-1].end)
            self.world.after(self.write_every * self.world.random.uniform(0.2, 2), self._work)

    def _push(self, sender: str, lsn: int) -> None:
        records = tuple(item for item in self.wal if item.start >= lsn)[:8]
        if records and records[0].start == lsn:
            self.world.send(self.name, sender, Pushed(self.term, lsn, records))

    def _confirmed(self, message: Confirmed) -> None:
        known = self.confirmed.get(message.number, 0)
        self.confirmed[message.number] = max(known, message.flush_lsn)
        flushed = sorted(self.confirmed.values(), reverse=True)
        if len(flushed) >= self.quorum and flushed[self.quorum - 1] > self.acknowledged:
            before, self.acknowledged = self.acknowledged, flushed[self.quorum - 1]
            done = [item for item in self.wal if before < item.end <= self.acknowledged]
            self.ledger.acknowledge(done, self.term, self.name)


class SimReader:
    """The page server: reads on from whichever safekeeper answers."""

    every = 3.0

    def __init__(self, world: World, ledger: Ledger, start: int, members: int) -> None:
        self.world, self.ledger, self.members = world, ledger, members
        self.name = "reader"
        self.alive = True
        self.lsn = start
        world.nodes[self.name] = self
        world.after(self.every, self._tick)

    def _tick(self) -> None:
        number = self.world.random.randint(1, self.members)
        self.world.send(self.name, f"sk{number}", ReadWal(self.lsn))
        self.world.after(self.every, self._tick)

    def receive(self, sender: str, message: object) -> None:
        assert isinstance(message, WalRead)
        if message.records and message.lsn == self.lsn == message.records[0].start:
            self.ledger.read(list(message.records))
            self.lsn = message.records[-1].end
