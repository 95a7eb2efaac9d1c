"""Who is awake, who is woken, and who waits: the proxy's state machine.

The problem: sessions arrive for thousands of places (a database, or a moment of its past), of which
few may have a running Postgres. A place is started once however many wait for it; those who wait
are *parked*, within a bound and a deadline, and released together; a start belongs to nobody who
waits, so whoever leaves cancels nothing. A place at which nothing happens for a while goes to
sleep; when all the *berths* are taken, the one that has been idle longest goes first. Who arrives
during a stop is parked, and the place is started again once it has stopped.

::

                 arrive                started
    ASLEEP ───────────────► QUEUED ─► STARTING ─────────► AWAKE ──────► STOPPING ──► ASLEEP
       ▲                  (for a berth)   │ failed           │  idle, or its    │   (or QUEUED,
       └──────────────────────────────────┴──────────────────┘  berth is needed │    if somebody
                                                lost                            │    has arrived)
                                          AWAKE ◄───────────────────────────────┘ kept awake

Pure: what happened comes in with the time, what is to be done goes out as a list of actions, to be
carried out by somebody who reports back with the number of the attempt. A report with another
number is of the past, and is passed over.

Invariants, which the simulation checks after every step:

1. at most one start or stop of a place is under way, and no more berths are taken than there are;
2. every waiter is released or refused exactly once, by its deadline at the latest, or leaves;
3. where somebody waits, something is under way or queued for it;
4. a place with sessions that are not idle is not stopped.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Place = TypeVar("Place", bound=Hashable)
Waiter = TypeVar("Waiter", bound=Hashable)
_Address = TypeVar("_Address")


class State(enum.Enum):
    ASLEEP = "asleep"
    QUEUED = "queued"
    STARTING = "starting"
    AWAKE = "awake"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and numbers of places and waiters."""

    berths: int = 50
    """Places that may have a process at a time."""
    parked: int = 2000
    """Waiters of all places together."""
    patience: float = 60.0
    """How long one waits."""
    idle: float = 60.0
    """After so long without activity a place goes to sleep; a place may have its own."""
    unentered: float = 5.0
    """The same, for one that was started by somebody else, as `create` does, and to which nobody
    has come."""


# What is to be done


@dataclass(frozen=True, slots=True)
class Start(Generic[Place]):
    place: Place
    attempt: int


@dataclass(frozen=True, slots=True)
class Stop(Generic[Place]):
    """Its sessions are idle; whoever carries it out may find that one cannot be parted."""

    place: Place
    attempt: int


@dataclass(frozen=True, slots=True)
class Release(Generic[Waiter, _Address]):
    waiter: Waiter
    address: _Address
    attempt: int
    """Of the start that made the address."""


@dataclass(frozen=True, slots=True)
class Refuse(Generic[Waiter]):
    waiter: Waiter
    sqlstate: str
    message: str
    hint: str = ""


Action = Start[Place] | Stop[Place] | Release[Waiter, _Address] | Refuse[Waiter]


@dataclass
class _Berth(Generic[Waiter, _Address]):
    """What is known of a place that is not just asleep."""

    state: State
    attempt: int = 0
    address: _Address | None = None
    idle_limit: float | None = None
    active_at: float = 0.0
    entered: bool = False
    """Somebody has come to it."""
    busy: bool = False
    """Sessions are at work, or cannot be parted from their backends."""
    waiting: OrderedDict[Waiter, float] = field(default_factory=OrderedDict)
    """With their deadlines, in the order in which they came."""


class Fleet(Generic[Place, Waiter, _Address]):
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places: dict[Place, _Berth[Waiter, _Address]] = {}
        self._queue: deque[Place] = deque()
        """Places that wait for a berth, in the order in which they were wanted."""
        self._where: dict[Waiter, Place] = {}
        self._attempts = 0

    # What happens

    def arrive(
        self, place: Place, waiter: Waiter, now: float, idle: float | None = None
    ) -> list[Action[Place, Waiter, _Address]]:
        """Somebody wants a session there.

        Args:
            idle: the place's own limit; infinity for one that never sleeps.
        """
        berth = self._places.setdefault(place, _Berth(State.ASLEEP))
        berth.idle_limit = idle
        berth.active_at = now
        berth.entered = True
        if berth.state is State.AWAKE:
            assert berth.address is not None, "who is awake has an address"
            return [Release(waiter, berth.address, berth.attempt)]
        if len(self._where) >= self._limits.parked:
            self._forget_if_asleep(place)
            return [_too_many(waiter, self._limits.parked)]
        berth.waiting[waiter] = now + self._limits.patience
        self._where[waiter] = place
        if berth.state is State.ASLEEP:
            berth.state = State.QUEUED
            self._queue.append(place)
        return self._give_berths(now)

    def leave(self, waiter: Waiter) -> None:
        """One who waits is gone. What was begun for it goes on."""
        place = self._where.pop(waiter, None)
        if place is None:
            return
        berth = self._places[place]
        del berth.waiting[waiter]
        if berth.state is State.QUEUED and not berth.waiting:
            self._queue.remove(place)
            del self._places[place]

    def started(
        self, place: Place, attempt: int, address: _Address, now: float
    ) -> list[Action[Place, Waiter, _Address]]:
        berth = self._current(place, attempt, State.STARTING)
        if berth is None:
            return []
        berth.state, berth.address, berth.active_at, berth.busy = State.AWAKE, address, now, False
        released = [Release(waiter, address, attempt) for waiter in self._unpark(berth)]
        return [*released, *self._give_berths(now)]

    def failed(
        self, place: Place, attempt: int, sqlstate: str, message: str, hint: str, now: float
    ) -> list[Action[Place, Waiter, _Address]]:
        """A start came to nothing; the next who arrives tries afresh."""
        berth = self._current(place, attempt, State.STARTING)
        if berth is None:
            return []
        told = [Refuse(waiter, sqlstate, message, hint) for waiter in self._unpark(berth)]
        del self._places[place]
        return [*told, *self._give_berths(now)]

    def lost(self, place: Place, attempt: int, now: float) -> list[Action[Place, Waiter, _Address]]:
        """What ran there does not any more: it crashed, or the name has moved."""
        berth = self._current(place, attempt, State.AWAKE)
        if berth is None:
            return []
        del self._places[place]
        return self._give_berths(now)

    def left(self, place: Place, now: float) -> list[Action[Place, Waiter, _Address]]:
        """What runs there, or is about to, is somebody else's to end: who arrives from now on
        waits for what comes after it."""
        berth = self._places.get(place)
        return [] if berth is None else self.lost(place, berth.attempt, now)

    def adopt(self, place: Place, address: _Address, now: float, idle: float | None) -> None:
        """It runs, started by somebody else. One that is known already stays what it is, but for
        how long it may idle."""
        if place in self._places:
            self._places[place].idle_limit = idle
        else:
            self._attempts += 1
            self._places[place] = _Berth(
                State.AWAKE, self._attempts, address, idle_limit=idle, active_at=now
            )

    def stopped(
        self, place: Place, attempt: int, now: float
    ) -> list[Action[Place, Waiter, _Address]]:
        berth = self._current(place, attempt, State.STOPPING)
        if berth is None:
            return []
        berth.address = None
        if berth.waiting:
            berth.state = State.QUEUED
            self._queue.append(place)
        else:
            del self._places[place]
        return self._give_berths(now)

    def kept_awake(
        self, place: Place, attempt: int, now: float
    ) -> list[Action[Place, Waiter, _Address]]:
        """A stop was not possible: a session there cannot be parted from its backend."""
        berth = self._current(place, attempt, State.STOPPING)
        if berth is None:
            return []
        assert berth.address is not None, "a stop leaves the address until it is done"
        berth.state, berth.active_at, berth.busy = State.AWAKE, now, True
        berth.entered = True  # past us, perhaps
        released = [Release(waiter, berth.address, attempt) for waiter in self._unpark(berth)]
        return [*released, *self._give_berths(now)]

    def activity(self, place: Place, attempt: int, active_at: float, *, busy: bool) -> None:
        """What the sessions of a place have done, as the relay counted it."""
        berth = self._current(place, attempt, State.AWAKE)
        if berth is not None:
            berth.active_at = max(berth.active_at, active_at)
            berth.busy = busy

    def unoccupied(self, occupied: Collection[Place]) -> None:
        """No place but these has a session that is at work, or was a moment ago."""
        for place, berth in self._places.items():
            if berth.state is State.AWAKE and place not in occupied:
                berth.busy = False

    def tick(self, now: float) -> list[Action[Place, Waiter, _Address]]:
        """What the time alone brings: deadlines, and sleep."""
        actions: list[Action[Place, Waiter, _Address]] = [*self._expire(now)]
        for place, berth in list(self._places.items()):
            if berth.state is State.AWAKE and self._sleeps(berth, now):
                actions.append(self._stop(place, berth))
        return [*actions, *self._give_berths(now)]

    # What can be asked

    def state(self, place: Place) -> State:
        berth = self._places.get(place)
        return berth.state if berth is not None else State.ASLEEP

    def waiting(self, place: Place) -> int:
        berth = self._places.get(place)
        return len(berth.waiting) if berth is not None else 0

    def places(self) -> Iterable[Place]:
        """Those that are not just asleep."""
        return self._places.keys()

    def awake(self) -> dict[Place, int]:
        """With the attempt that woke each."""
        return {
            place: berth.attempt
            for place, berth in self._places.items()
            if berth.state is State.AWAKE
        }

    def idle_seconds(self, place: Place, now: float) -> float:
        """Since anybody did anything there; 0 for one that is not awake."""
        berth = self._places.get(place)
        return now - berth.active_at if berth is not None and berth.state is State.AWAKE else 0.0

    def idle_limit(self, place: Place) -> float:
        """After so long without activity it goes to sleep."""
        berth = self._places.get(place)
        return self._limits.idle if berth is None else self._limit(berth)

    def address(self, place: Place) -> _Address | None:
        """Of what is awake there; None where nothing is."""
        berth = self._places.get(place)
        return berth.address if berth is not None else None

    def is_busy(self, place: Place) -> bool:
        berth = self._places.get(place)
        return berth is not None and berth.busy

    # How

    def _current(self, place: Place, attempt: int, state: State) -> _Berth[Waiter, _Address] | None:
        berth = self._places.get(place)
        fits = berth is not None and (berth.attempt, berth.state) == (attempt, state)
        return berth if fits else None

    def _sleeps(self, berth: _Berth[Waiter, _Address], now: float) -> bool:
        return not berth.busy and now - berth.active_at >= self._limit(berth)

    def _limit(self, berth: _Berth[Waiter, _Address]) -> float:
        limit = self._limits.idle if berth.idle_limit is None else berth.idle_limit
        brief = not berth.entered and limit != math.inf
        return min(limit, self._limits.unentered) if brief else limit

    def _taken(self) -> int:
        """Berths that have a process, or are about to."""
        having = (State.STARTING, State.AWAKE, State.STOPPING)
        return sum(berth.state in having for berth in self._places.values())

    def _give_berths(self, now: float) -> list[Action[Place, Waiter, _Address]]:
        """Starts those that waited longest, as far as there is room; makes room for the rest."""
        actions: list[Action[Place, Waiter, _Address]] = []
        free = self._limits.berths - self._taken()
        while free > 0 and self._queue:
            actions.append(self._start(self._queue.popleft()))
            free -= 1
        coming = sum(berth.state is State.STOPPING for berth in self._places.values())
        # More than there is room for were started by somebody else.
        going = self._idle_longest(len(self._queue) + max(-free, 0) - coming)
        return [*actions, *(self._stop(place, self._places[place]) for place in going)]

    def _idle_longest(self, count: int) -> list[Place]:
        if count <= 0:
            return []
        idle = [
            (berth.active_at, number, place)
            for number, (place, berth) in enumerate(self._places.items())
            if berth.state is State.AWAKE and not berth.busy and berth.idle_limit != math.inf
        ]
        return [place for _, _, place in sorted(idle, key=lambda item: item[:2])[:count]]

    def _start(self, place: Place) -> Start[Place]:
        berth = self._places[place]
        self._attempts += 1
        berth.state, berth.attempt = State.STARTING, self._attempts
        return Start(place, self._attempts)

    def _stop(self, place: Place, berth: _Berth[Waiter, _Address]) -> Stop[Place]:
        # The attempt stays: it is the process's name until it is gone.
        berth.state = State.STOPPING
        return Stop(place, berth.attempt)

    def _unpark(self, berth: _Berth[Waiter, _Address]) -> list[Waiter]:
        waiters = list(berth.waiting)
        berth.waiting.clear()
        for waiter in waiters:
            del self._where[waiter]
        return waiters

    def _expire(self, now: float) -> list[Refuse[Waiter]]:
        late = [
            waiter
            for berth in self._places.values()
            for waiter, deadline in berth.waiting.items()
            if deadline <= now
        ]
        for waiter in late:
            self.leave(waiter)
        return [_too_late(waiter, self._limits.patience) for waiter in late]

    def _forget_if_asleep(self, place: Place) -> None:
        if self._places[place].state is State.ASLEEP:
            del self._places[place]


def _too_many(waiter: Waiter, bound: int) -> Refuse[Waiter]:
    return Refuse(
        waiter,
        "53300",
        "too many connections wait for sleeping databases",
        f"At most {bound} wait at a time. Try again in a moment.",
    )


def _too_late(waiter: Waiter, seconds: float) -> Refuse[Waiter]:
    return Refuse(
        waiter,
        "53300",
        f"the database could not be woken within {seconds:.0f} seconds",
        "Too many databases are awake, or the machine is busy. `pagestore status` says who is "
        "awake and why.",
    )
