"""The wake-and-park state machine: its rules one by one, then all at once with seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from pagestore.proxy.fleet import Fleet, Limits, Refuse, Release, Start, State, Stop

Machine = Fleet[str, int, str]
LIMITS = Limits(berths=2, parked=6, patience=10.0, idle=5.0)


def fleet(**more: Any) -> Machine:
    return Fleet(Limits(**{"berths": 2, "parked": 6, "patience": 10.0, "idle": 5.0, **more}))


def awake(machine: Machine, place: str, now: float = 0.0) -> int:
    (start,) = machine.arrive(place, hash(place), now)
    assert isinstance(start, Start)
    assert machine.started(place, start.attempt, f"at {place}", now) == [
        Release(hash(place), f"at {place}", start.attempt)
    ]
    return start.attempt


def test_one_start_however_many_wait_and_all_are_released_together() -> None:
    machine = fleet()
    assert machine.arrive("app", 1, 0.0) == [Start("app", 1)]
    assert machine.arrive("app", 2, 0.1) == []
    assert machine.arrive("app", 3, 0.2) == []
    released = machine.started("app", 1, "here", 0.3)
    assert released == [Release(waiter, "here", 1) for waiter in (1, 2, 3)]
    assert machine.arrive("app", 4, 0.4) == [Release(4, "here", 1)]


def test_who_leaves_cancels_nothing() -> None:
    machine = fleet()
    machine.arrive("app", 1, 0.0)
    machine.leave(1)
    assert machine.state("app") is State.STARTING
    assert machine.started("app", 1, "here", 1.0) == []
    assert machine.arrive("app", 2, 1.1) == [Release(2, "here", 1)]


def test_a_failed_start_is_told_to_all_and_the_next_tries_afresh() -> None:
    machine = fleet()
    machine.arrive("app", 1, 0.0)
    machine.arrive("app", 2, 0.0)
    told = machine.failed("app", 1, "58000", "no disk", "look there", 1.0)
    assert told == [Refuse(waiter, "58000", "no disk", "look there") for waiter in (1, 2)]
    assert machine.arrive("app", 3, 1.1) == [Start("app", 2)]
    assert machine.failed("app", 1, "58000", "late news", "", 1.2) == []
    assert machine.started("app", 1, "a ghost", 1.3) == []


def test_who_waits_too_long_is_refused_and_the_start_goes_on() -> None:
    machine = fleet()
    machine.arrive("app", 1, 0.0)
    assert machine.tick(9.9) == []
    (refusal,) = machine.tick(10.0)
    assert isinstance(refusal, Refuse)
    assert (refusal.waiter, refusal.sqlstate) == (1, "53300")
    assert machine.state("app") is State.STARTING


def test_beyond_the_bound_nobody_is_parked() -> None:
    machine = fleet(parked=1)
    machine.arrive("app", 1, 0.0)
    (refusal,) = machine.arrive("app", 2, 0.0)
    assert isinstance(refusal, Refuse)
    assert refusal.sqlstate == "53300"
    (other,) = machine.arrive("other", 3, 0.0)
    assert isinstance(other, Refuse)
    assert set(machine.places()) == {"app"}


def test_an_idle_place_goes_to_sleep_and_a_busy_one_does_not() -> None:
    machine = fleet()
    attempt = awake(machine, "app")
    machine.activity("app", attempt, 3.0, busy=False)
    assert machine.tick(7.9) == []
    machine.activity("app", attempt, 3.0, busy=True)
    assert machine.tick(8.1) == []
    machine.activity("app", attempt, 3.0, busy=False)
    assert machine.tick(8.2) == [Stop("app", attempt)]
    assert machine.stopped("app", attempt, 9.0) == []
    assert machine.state("app") is State.ASLEEP


def test_a_place_whose_last_session_left_at_work_goes_to_sleep() -> None:
    machine = fleet(idle=10.0)
    first, second = awake(machine, "app"), awake(machine, "other")
    machine.activity("app", first, 3.0, busy=True)
    machine.activity("other", second, 3.0, busy=True)
    machine.unoccupied({"other"})
    assert machine.tick(20.0) == [Stop("app", first)]


def test_a_place_has_its_own_limit_and_may_never_sleep() -> None:
    machine = fleet()
    for name, limit in (("quick", 1.0), ("never", math.inf)):
        (start,) = machine.arrive(name, hash(name), 0.0, limit)
        assert isinstance(start, Start)
        machine.started(name, start.attempt, name, 0.0)
    assert machine.tick(1.0) == [Stop("quick", 1)]
    assert machine.tick(1e9) == []


def test_a_limit_that_is_changed_holds_for_a_place_that_is_awake() -> None:
    machine = fleet()
    attempt = awake(machine, "app")
    assert machine.idle_limit("app") == LIMITS.idle
    machine.adopt("app", "at app", 1.0, math.inf)
    assert machine.idle_limit("app") == math.inf
    assert machine.tick(1e6) == []
    machine.adopt("app", "at app", 1e6, 2.0)
    assert machine.tick(1e6) == [Stop("app", attempt)], "what it did is known from before"


def test_who_arrives_during_a_stop_is_parked_and_the_place_starts_again() -> None:
    machine = fleet()
    attempt = awake(machine, "app")
    assert machine.tick(5.0) == [Stop("app", attempt)]
    assert machine.arrive("app", 9, 5.1) == []
    (start,) = machine.stopped("app", attempt, 5.2)
    assert start == Start("app", attempt + 1)
    assert machine.started("app", attempt + 1, "again", 5.3) == [Release(9, "again", attempt + 1)]


def test_a_stop_that_is_not_possible_releases_who_waited() -> None:
    machine = fleet()
    attempt = awake(machine, "app")
    machine.tick(5.0)
    machine.arrive("app", 9, 5.1)
    assert machine.kept_awake("app", attempt, 5.2) == [Release(9, "at app", attempt)]
    assert machine.tick(100.0) == [], "until its sessions are idle again"


def test_a_lost_place_is_started_again_by_who_comes() -> None:
    machine = fleet()
    attempt = awake(machine, "app")
    assert machine.lost("app", attempt, 1.0) == []
    assert machine.arrive("app", 2, 1.1) == [Start("app", attempt + 1)]
    assert machine.lost("app", attempt, 1.2) == [], "news of the past"


def test_when_all_berths_are_taken_the_one_idle_longest_goes_first() -> None:
    machine = fleet()
    first, second = awake(machine, "a", 0.0), awake(machine, "b", 0.0)
    machine.activity("a", first, 2.0, busy=False)
    machine.activity("b", second, 1.0, busy=False)
    assert machine.arrive("c", 3, 3.0) == [Stop("b", second)]
    assert machine.arrive("c", 4, 3.1) == [], "one stop is enough for one place"
    assert machine.stopped("b", second, 3.2) == [Start("c", 3)]


def test_places_that_wait_for_a_berth_come_in_turn_and_busy_ones_stay() -> None:
    machine = fleet(berths=1)
    attempt = awake(machine, "a")
    machine.activity("a", attempt, 0.0, busy=True)
    assert machine.arrive("b", 2, 1.0) == []
    assert machine.arrive("c", 3, 1.1) == []
    machine.activity("a", attempt, 1.2, busy=False)
    assert machine.tick(1.3) == [Stop("a", attempt)]
    assert machine.stopped("a", attempt, 1.4) == [Start("b", 2)]


def test_a_place_that_somebody_else_started_is_put_to_sleep_as_any_other() -> None:
    machine = fleet()
    machine.adopt("app", "there", 0.0, None)
    assert machine.arrive("app", 1, 1.0) == [Release(1, "there", 1)]
    machine.adopt("app", "elsewhere", 2.0, None)
    assert machine.arrive("app", 2, 2.0) == [Release(2, "there", 1)], "it is known already"
    assert machine.tick(7.0) == [Stop("app", 1)]


def test_what_somebody_else_started_sleeps_soon_if_nobody_comes() -> None:
    machine: Fleet[str, int, str] = Fleet(Limits(idle=60.0, unentered=5.0))
    for number, (place, limit) in enumerate([("alone", None), ("quick", 2.0), ("never", math.inf)]):
        machine.adopt(place, place, 0.0, limit)
        assert machine.idle_limit(place) == (5.0, 2.0, math.inf)[number]
    machine.adopt("entered", "entered", 0.0, None)
    machine.arrive("entered", 1, 1.0)
    machine.adopt("held", "held", 0.0, None)
    assert machine.tick(2.0) == [Stop("quick", 2)]
    assert machine.tick(5.0) == [Stop("alone", 1), Stop("held", 5)]
    machine.kept_awake("held", 5, 6.0)
    machine.unoccupied([])
    assert machine.tick(60.0) == []
    assert machine.tick(66.0) == [Stop("entered", 4), Stop("held", 5)]


def test_who_comes_to_a_place_that_is_left_waits_for_what_comes_after_it() -> None:
    machine = fleet()
    attempt = awake(machine, "app")
    assert machine.left("app", 1.0) == []
    assert machine.arrive("app", 2, 1.1) == [Start("app", attempt + 1)]
    assert machine.left("app", 1.2) == [], "what starts is the one of afterwards"
    assert machine.started("app", attempt + 1, "new", 2.0) == [Release(2, "new", attempt + 1)]


# All at once


class World:
    """Carries actions out late, or never; counts what must hold."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.random = random.Random(seed)
        self.now = 0.0
        self.waiters: dict[int, float] = {}
        self.running: dict[str, int] = {}
        self.under_way: dict[str, Start[str] | Stop[str]] = {}
        self.busy: set[str] = set()
        self.next_waiter = 0

    def carry_out(self, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case Start(place, attempt):
                    assert place not in self.under_way, "two things at once"
                    assert place not in self.running, "started though it runs"
                    self.under_way[place] = action
                case Stop(place, attempt):
                    assert place not in self.under_way, "two things at once"
                    assert self.running[place] == attempt
                    assert place not in self.busy, "stopped at work"
                    self.under_way[place] = action
                case Release(waiter, address, attempt):
                    assert self.waiters.pop(waiter) > self.now, "released too late"
                    assert self.running[address] == attempt, "released to nobody"
                case Refuse(waiter):
                    del self.waiters[waiter]
        having = set(self.running) | {p for p, a in self.under_way.items() if isinstance(a, Start)}
        assert len(having) <= LIMITS.berths, "more berths than there are"

    def step(self) -> None:
        self.now += self.random.choice([0.0, 0.1, 1.0])
        self.carry_out(self.machine.tick(self.now))
        self.random.choice([self.arrive, self.arrive, self.report, self.report, self.change])()
        assert all(deadline > self.now - 1e-9 for deadline in self.waiters.values()), "forgotten"
        for place in "abcd":
            if self.machine.waiting(place):
                assert self.machine.state(place) is not State.ASLEEP, "waits for nothing"

    def arrive(self) -> None:
        self.next_waiter += 1
        self.waiters[self.next_waiter] = self.now + LIMITS.patience
        place = self.random.choice("abcd")
        self.carry_out(self.machine.arrive(place, self.next_waiter, self.now))

    def report(self) -> None:
        if not self.under_way:
            return
        place = self.random.choice(sorted(self.under_way))
        action = self.under_way.pop(place)
        if isinstance(action, Stop):
            self.end_stop(place, action.attempt)
        elif self.random.random() < 0.8:
            self.running[place] = action.attempt
            self.carry_out(self.machine.started(place, action.attempt, place, self.now))
        else:
            self.carry_out(self.machine.failed(place, action.attempt, "58000", "no", "", self.now))

    def end_stop(self, place: str, attempt: int) -> None:
        if self.random.random() < 0.8:
            del self.running[place]
            self.carry_out(self.machine.stopped(place, attempt, self.now))
        else:
            self.busy.add(place)
            self.carry_out(self.machine.kept_awake(place, attempt, self.now))

    def change(self) -> None:
        kind = self.random.randrange(4)
        at_rest = sorted(p for p in self.running if p not in self.under_way)
        if kind == 0 and self.waiters:
            leaving = self.random.choice(sorted(self.waiters))
            del self.waiters[leaving]
            self.machine.leave(leaving)
        elif kind == 1 and at_rest:
            place = self.random.choice(at_rest)
            busy = self.random.random() < 0.5
            (self.busy.add if busy else self.busy.discard)(place)
            self.machine.activity(place, self.running[place], self.now, busy=busy)
        elif kind == 2 and at_rest:
            place = self.random.choice(at_rest)
            self.busy.discard(place)
            attempt = self.running.pop(place)
            if self.random.random() < 0.5:
                self.carry_out(self.machine.lost(place, attempt, self.now))
            else:
                self.carry_out(self.machine.left(place, self.now))
        elif kind == 3:
            self.adopt(self.random.choice("abcd"))

    def adopt(self, place: str) -> None:
        """Somebody else has started it; or it is told late of what is known already."""
        asleep = self.machine.state(place) is State.ASLEEP
        if asleep and len(self.running) + len(self.under_way) >= LIMITS.berths:
            return
        self.machine.adopt(place, place, self.now, None)
        if asleep:
            self.running[place] = self.machine.awake()[place]


def simulate(make: Callable[[Limits], Machine], seeds: range, steps: int = 300) -> None:
    for seed in seeds:
        world = World(make(LIMITS), seed)
        try:
            for _ in range(steps):
                world.step()
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_rules_hold_whatever_happens() -> None:
    simulate(Fleet, range(200))


class ForgetsWhoCameDuringAStop(Fleet[str, int, str]):
    def stopped(self, place: str, attempt: int, now: float) -> list[Any]:
        self._places.pop(place, None)
        return self._give_berths(now)


class StopsWhoIsAtWork(Fleet[str, int, str]):
    def _sleeps(self, berth: Any, now: float) -> bool:
        return bool(now - berth.active_at >= 5.0)


class HasNoEndOfBerths(Fleet[str, int, str]):
    def _taken(self) -> int:
        return 0


class NeverLosesPatience(Fleet[str, int, str]):
    def _expire(self, now: float) -> list[Any]:
        return []


class StartsForEachWhoComes(Fleet[str, int, str]):
    def arrive(self, place: str, waiter: int, now: float, idle: float | None = None) -> list[Any]:
        berth = self._places.get(place)
        if berth is not None and berth.state is State.STARTING:
            berth.state = State.ASLEEP
        return super().arrive(place, waiter, now, idle)


@pytest.mark.parametrize(
    "planted",
    [
        ForgetsWhoCameDuringAStop,
        StopsWhoIsAtWork,
        HasNoEndOfBerths,
        NeverLosesPatience,
        StartsForEachWhoComes,
    ],
)
def test_planted_bugs_are_found(planted: Callable[[Limits], Machine]) -> None:
    with pytest.raises(AssertionError, match="seed"):
        simulate(planted, range(200))
