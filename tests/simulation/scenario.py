"""One seed: a time of faults, then a time without, in which everything has to come right."""

from __future__ import annotations

from dataclasses import dataclass

from pagestore.walservice.acceptor import Member, Position, initial
from tests.simulation.compute import SimCompute, SimReader
from tests.simulation.ledger import Ledger, Stuck
from tests.simulation.safekeeper import SimSafekeeper
from tests.simulation.world import Faults, World

START = Position(0x1000, 0xF80)
FAULTY = 250.0
QUIET = 600.0


@dataclass
class Outcome:
    acknowledged: int
    elected: int
    cut: int
    served: int
    crashes: int
    wiped: int


class Scenario:
    """A `harsh` one has more of everything, so that rare bugs show sooner."""

    def __init__(self, seed: int, *, harsh: bool = False) -> None:
        self.world = World(seed)
        random = self.world.random
        self.world.faults = Faults(
            loss=random.choice([0.0, 0.02, 0.1]),
            duplicate=random.choice([0.0, 0.05, 0.2]),
            crash=random.choice([0.0, 0.01, 0.05]),
            longest_delay=random.choice([0.5, 2.0, 6.0]),
        )
        self.members = random.choice([3, 3, 3, 5])
        self.trouble_every = random.choice([6.0, 12.0, 30.0])
        if harsh:
            self.world.faults = Faults(loss=0.02, duplicate=0.05, crash=0.05, longest_delay=2.0)
            self.members, self.trouble_every = 3, 5.0
        self.ledger = Ledger()
        everyone = tuple(Member(number) for number in range(1, self.members + 1))
        self.safekeepers = [
            SimSafekeeper(
                self.world,
                self.ledger,
                me.number,
                initial(START, 7, me, tuple(item for item in everyone if item != me)),
            )
            for me in everyone
        ]
        self.computes: list[SimCompute] = []
        self.reader = SimReader(self.world, self.ledger, START.flush_lsn, self.members)
        self.crashes = self.wiped = 0

    def run(self) -> Outcome:
        self._start_compute()
        self._trouble()
        self.world.run(FAULTY)
        self._heal()
        self.world.run(FAULTY + QUIET, self._done)
        if not self._done() and not self._too_many_lost():
            raise Stuck("without faults, not everything came right")
        ledger = self.ledger
        return Outcome(
            ledger.acknowledged,
            len(ledger.elected),
            ledger.cuts,
            ledger.served,
            self.crashes,
            self.wiped,
        )

    def _start_compute(self) -> None:
        known = max((item.term for item in self.computes), default=0)
        term = max(1, known + self.world.random.choice([0, 1, 1, 2]))
        name = f"compute{len(self.computes) + 1}"
        self.computes.append(SimCompute(self.world, self.ledger, name, term, self.members))

    def _trouble(self) -> None:
        if self.world.now >= FAULTY:
            return
        random = self.world.random
        often = [self._crash, self._crash, self._cut, self._cut]
        trouble = random.choice([*often, self._mend, self._kill, self._race, self._wipe])
        trouble()
        self._bring_back(0.7)
        self.world.after(random.expovariate(1 / self.trouble_every), self._trouble)

    def _crash(self) -> None:
        self.world.random.choice(self.safekeepers).crash()

    def _bring_back(self, probability: float) -> None:
        for safekeeper in self.safekeepers:
            if not safekeeper.alive and self.world.chance(probability):
                self.crashes += 1
                safekeeper.boot()

    def _wipe(self) -> None:
        """Of a minority: never one more before the others count again."""
        if not self._too_many_lost(and_more=1):
            self.wiped += 1
            self.world.random.choice(self.safekeepers).wipe()

    def _too_many_lost(self, and_more: int = 0) -> bool:
        lost = sum(self._is_lost(item) for item in self.safekeepers) + and_more
        return lost > (self.members - 1) // 2

    def _is_lost(self, safekeeper: SimSafekeeper) -> bool:
        """Wiped, and not admitted again in the incarnation that the others know. An admission
        that is overtaken by another election can make it so a second time."""
        stored = [item.disk.stored for item in self.safekeepers if item.disk.stored]
        known = max(
            (peer for state in stored for peer in state.peers if peer.number == safekeeper.number),
            default=Member(safekeeper.number),
        )
        mine = safekeeper.disk.stored
        return mine is None or mine.member < known

    def _cut(self) -> None:
        names = [*self.world.nodes]
        self.world.cut.add(frozenset(self.world.random.sample(names, 2)))
        if self.world.chance(0.3):
            alone = self.world.random.choice(self.safekeepers).name
            self.world.cut |= {frozenset((alone, name)) for name in names if name != alone}

    def _mend(self) -> None:
        self.world.cut.clear()

    def _kill(self) -> None:
        """A compute dies, and another takes its place."""
        self.world.random.choice(self.computes).alive = False
        self._start_compute()

    def _race(self) -> None:
        """Another starts though the old one may be alive."""
        self._start_compute()

    def _heal(self) -> None:
        self.world.faults = Faults(longest_delay=0.5)
        self.world.cut.clear()
        self._bring_back(1.0)
        for compute in self.computes:
            compute.alive = False
        self._start_compute()

    def _done(self) -> bool:
        """One compute has committed, and everybody has it all."""
        last = self.computes[-1]
        states = [item.state for item in self.safekeepers]
        return (
            len(last.wal) > 20
            and last.acknowledged >= last.wal[10].end
            and self.reader.lsn >= last.wal[10].end
            and all(state and state.commit_lsn >= last.wal[10].end for state in states)
        )


def run(seed: int, *, harsh: bool = False) -> Outcome:
    return Scenario(seed, harsh=harsh).run()
