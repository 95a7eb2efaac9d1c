"""One seed: a time of faults, then a time without, in which everything has to come right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pagestore.consensus.acceptor import State, WalPosition, initial, position_of
from pagestore.consensus.election import named
from pagestore.consensus.members import UNCONFIGURED, Configuration, Member
from pagestore.consensus.testimony import contradicts
from tests.simulation.compute import SimCompute, SimReader
from tests.simulation.ledger import Ledger, Stuck
from tests.simulation.safekeeper import Disk, SimSafekeeper
from tests.simulation.world import Faults, World

START = WalPosition(0x1000, 0xF80)
FAULTY = 100.0
QUIET = 600.0
HOPELESS = 100.0
MOST_SAFEKEEPERS = 9


@dataclass
class Outcome:
    acknowledged: int
    elected: int
    cut: int
    served: int
    crashes: int
    wiped: int
    changes: int
    put_back: int


class Scenario:
    """A `harsh` one has more of everything, so that rare bugs show sooner. It is also the plan
    of the control plane: see tests/simulation/keeper.py."""

    def __init__(self, seed: int, *, harsh: bool = False) -> None:
        self.world = World(seed)
        random = self.world.random
        self.world.faults = Faults(
            loss=random.choice([0.0, 0.02, 0.1]),
            duplicate=random.choice([0.0, 0.05, 0.2]),
            crash=random.choice([0.0, 0.01, 0.05]),
            longest_delay=random.choice([0.5, 2.0, 6.0]),
        )
        members = random.choice([1, 3, 3, 3, 5])
        self.trouble_every = random.choice([6.0, 12.0, 30.0])
        self.moving = False
        if harsh:
            self.world.faults = Faults(loss=0.02, duplicate=0.05, crash=0.05, longest_delay=2.0)
            members, self.trouble_every = 3, 5.0
            self.moving = random.random() < 0.4
        self.ledger = Ledger()
        self.wanted = frozenset(range(1, members + 1))
        self.safekeepers: list[SimSafekeeper] = []
        for state in first_states(members):
            self._new_safekeeper(state)
        self.computes: list[SimCompute] = []
        self.reader = SimReader(self.world, self.ledger, START.flush_lsn)
        self.crashes = self.wiped = self.changes = self.older = 0
        self.backups: dict[int, Disk] = {}
        self._known_members = self.wanted
        self.out_of_reach: set[int] = set()
        self._settled = (0, 1)
        self._generation = 2

    def run(self) -> Outcome:
        self._start_compute()
        self._trouble()
        self._remove_outdated()
        self.world.run(FAULTY)
        self._heal()
        self.world.run(FAULTY + QUIET, self._over)
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
            self.changes,
            self.older,
        )

    # The plan

    def asked_first(self) -> frozenset[int]:
        return self._known_members

    def everybody(self) -> list[int]:
        return [item.number for item in self.safekeepers]

    def is_last(self, name: str) -> bool:
        return self.computes[-1].name == name

    def generations(self) -> int:
        self._generation += 3
        return self._generation - 3

    def changed(self, term: int, configuration: Configuration) -> None:
        self.changes += 1
        self._settled = max(self._settled, (term, configuration.generation))
        self._known_members = frozenset(item.number for item in configuration.members)

    # Trouble

    def _new_safekeeper(self, state: State | None) -> int:
        number = len(self.safekeepers) + 1
        self.safekeepers.append(SimSafekeeper(self.world, self.ledger, number, state))
        return number

    def _start_compute(self) -> None:
        known = max((item.term for item in self.computes), default=0)
        term = max(1, known + self.world.random.choice([0, 1, 1, 2]))
        name = f"compute{len(self.computes) + 1}"
        self.computes.append(SimCompute(self.world, self.ledger, self, name, term))

    def _trouble(self) -> None:
        if self.world.now >= FAULTY:
            return
        random = self.world.random
        often = [self._crash, self._crash, self._cut, self._cut, self._replace]
        rare = [self._mend, self._kill, self._race, self._wipe, self._resize, self._deafen]
        rare += [self._back_up, self._back_up, *3 * [self._put_back]]
        moves = [self._replace, self._replace, self._deafen, self._kill, self._mend]
        trouble = random.choice(moves if self.moving else [*often, *rare])
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

    def _replace(self) -> None:
        """A member, dead or alive, by another; or several at once."""
        if self._is_changing():
            return
        random = self.world.random
        for leaves in random.sample(
            sorted(self.wanted), min(random.choice([1, 1, 2, 3]), len(self.wanted))
        ):
            if random.random() < 0.3:
                self.safekeepers[leaves - 1].crash()
            self.wanted = self.wanted - {leaves} | {self._stranger()}

    def _resize(self) -> None:
        """From one to three, or back."""
        if self._is_changing():
            return
        if len(self.wanted) > 1:
            self.wanted = frozenset(self.world.random.sample(sorted(self.wanted), 1))
            return
        while len(self.wanted) < 3:
            self.wanted |= {self._stranger()}

    def _is_changing(self) -> bool:
        return self.wanted != self._known_members and self.world.chance(0.8)

    def _stranger(self) -> int:
        if len(self.safekeepers) < MOST_SAFEKEEPERS and self.world.chance(0.5):
            return self._new_safekeeper(None)
        there = [item.number for item in self.safekeepers if item.number not in self.wanted]
        return self.world.random.choice(there) if there else self._new_safekeeper(None)

    def _wipe(self) -> None:
        """Of a minority: never one more before the others count again."""
        victim = self.world.random.choice(self.safekeepers)
        if not self._too_many_lost(victim) and self._somebody_is_found_without(victim):
            self.wiped += 1
            victim.wipe()

    def _somebody_is_found_without(self, victim: SimSafekeeper) -> bool:
        """Of those who are asked first: while the control plane has not heard of a change, they
        alone lead to who came after them."""
        asked = [self.safekeepers[number - 1] for number in self._known_members]
        return any(item.disk.stored is not None for item in asked if item is not victim)

    def _back_up(self) -> None:
        for item in self.safekeepers:
            if item.state is not None and not item.doubtful and self.world.chance(0.5):
                self.backups[item.number] = item.disk.copy()

    def _put_back(self) -> None:
        """A disk of a minority becomes an older copy of itself; the others are there, and have
        heard all that it lost. Another compute starts just then, and does not ask all of them.
        The operator removes what is known to be older."""
        for number, older in self.backups.items():
            victim = self.safekeepers[number - 1]
            if self._is_remembered(victim, older) and not self._too_many_lost(victim):
                self.older += 1
                self._mend()
                victim.put_back(older.copy())
                others = [item.number for item in self.safekeepers if item is not victim]
                self.out_of_reach.add(self.world.random.choice(others))
                self._race()
                return

    def _is_remembered(self, victim: SimSafekeeper, older: Disk) -> bool:
        state, before = victim.state, older.stored
        if victim.on_trial or state is None or before is None:
            return False
        if state.configuration != before.configuration or state.member != before.member:
            return False
        told = position_of(state)
        if not contradicts(told, position_of(replace(before, position=end_of(older)))):
            return False
        others = [self.safekeepers[item.number - 1] for item in state.peers]
        return bool(others) and all(
            item.alive and item.disk.memory.get(victim.number) == told for item in others
        )

    def _remove_outdated(self) -> None:
        for item in self.safekeepers:
            if item.outdated:
                item.wipe()
                item.boot()
        self.world.after(5.0, self._remove_outdated)

    def _too_many_lost(self, victim: SimSafekeeper | None = None) -> bool:
        """Whether a configuration that can still count would lose its majority."""
        there = {
            named(stored, item.number)
            for item in self.safekeepers
            if (stored := item.disk.stored) is not None and item is not victim and not item.doubtful
        }
        return not all(configuration.decided_by(there) for configuration in self._in_use())

    def _in_use(self) -> Iterator[Configuration]:
        if len(self.wanted) == 1:
            (only,) = self.wanted
            stored = self.safekeepers[only - 1].disk.stored
            if stored is not None:
                yield Configuration(0, (named(stored, only),))
        for item in self.safekeepers:
            stored = item.disk.stored
            if stored is None:
                continue
            if (stored.writing_term, stored.configuration.generation) >= self._settled:
                yield stored.configuration
            elif not stored.configuration.members and self._settled == (0, 1):
                yield Configuration(0, (Member(item.number),))

    def _cut(self) -> None:
        names = [*self.world.nodes]
        self.world.cut.add(frozenset(self.world.random.sample(names, 2)))
        if self.world.chance(0.3):
            alone = self.world.random.choice(self.safekeepers).name
            self.world.cut |= {frozenset((alone, name)) for name in names if name != alone}

    def _deafen(self) -> None:
        """Cut off from the control plane, not from the compute."""
        self.out_of_reach.add(self.world.random.choice(self.safekeepers).number)

    def _mend(self) -> None:
        self.world.cut.clear()
        self.out_of_reach.clear()

    def _kill(self) -> None:
        """A compute dies, and another takes its place."""
        self.world.random.choice(self.computes).alive = False
        self._start_compute()

    def _race(self) -> None:
        """Another starts though the old one may be alive."""
        self._start_compute()

    def _heal(self) -> None:
        self.world.faults = Faults(longest_delay=0.5)
        self._mend()
        self._bring_back(1.0)
        for compute in self.computes:
            compute.alive = False
        self._start_compute()

    def _over(self) -> bool:
        return self._done() or (self.world.now > FAULTY + HOPELESS and self._too_many_lost())

    def _done(self) -> bool:
        """One compute has committed, its members are those wanted, and all of them have it all."""
        last = self.computes[-1]
        if len(last.wal) <= 12 or self.reader.lsn < last.wal[6].end:
            return False
        end = last.wal[6].end
        states = [self.safekeepers[number - 1].state for number in sorted(self.wanted)]
        return (
            last.acknowledged >= end
            and self._known_members == self.wanted
            and all(state and state.commit_lsn >= end for state in states)
        )


def end_of(disk: Disk) -> WalPosition:
    assert disk.stored is not None
    last = disk.log[-1] if disk.log else None
    return WalPosition(last.end, last.start) if last else disk.stored.start


def first_states(members: int) -> Iterator[State]:
    if members == 1:
        yield initial(START, 7, configuration=UNCONFIGURED)
        return
    everyone = tuple(Member(number) for number in range(1, members + 1))
    for me in everyone:
        yield initial(START, 7, me, Configuration(1, everyone))


def run(seed: int, *, harsh: bool = False) -> Outcome:
    return Scenario(seed, harsh=harsh).run()
