"""Virtual time, a network that loses things, and one seed behind every decision."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Record(NamedTuple):
    """One WAL record; `payload` makes any two different that are not the same write."""

    start: int
    end: int
    term: int
    payload: int


class Crash(Exception):
    """The process dies here, between two of its actions."""


class Node(Protocol):
    name: str
    alive: bool

    def receive(self, sender: str, message: object) -> None: ...


@dataclass
class Faults:
    """How likely each is, a message or an action."""

    loss: float = 0.0
    duplicate: float = 0.0
    crash: float = 0.0
    longest_delay: float = 1.0


@dataclass
class World:
    seed: int
    faults: Faults = field(default_factory=Faults)
    now: float = 0.0
    random: random.Random = field(init=False)
    nodes: dict[str, Node] = field(default_factory=dict)
    cut: set[frozenset[str]] = field(default_factory=set)
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _events: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def after(self, delay: float, event: Callable[[], None]) -> None:
        self._events += 1
        heapq.heappush(self._queue, (self.now + delay, self._events, event))

    def send(self, sender: str, receiver: str, message: object) -> None:
        if frozenset((sender, receiver)) in self.cut or self.chance(self.faults.loss):
            return
        for _ in range(2 if self.chance(self.faults.duplicate) else 1):
            delay = self.random.uniform(0.1, self.faults.longest_delay)
            if self.chance(self.faults.loss):
                delay *= 20
            self.after(delay, lambda: self._deliver(sender, receiver, message))

    def _deliver(self, sender: str, receiver: str, message: object) -> None:
        node = self.nodes.get(receiver)
        if node is not None and node.alive:
            node.receive(sender, message)

    def may_crash(self) -> None:
        if self.chance(self.faults.crash):
            raise Crash

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        while self._queue and self._queue[0][0] <= until and not done():
            self.now, _, event = heapq.heappop(self._queue)
            event()
