"""Virtual time, a network that loses things, and one seed behind every decision."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol


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

    def receive(self, sender: str, message: Any) -> None: ...


@dataclass
class Faults:
    """How likely each is, a message or an action."""

    loss: float = 0.0
    duplicate: float = 0.0
    crash: float = 0.0
    longest_delay: float = 1.0


@dataclass
class World:
    """What is queued is either an event or, with a sender, a message to a node."""

    seed: int
    faults: Faults = field(default_factory=Faults)
    now: float = 0.0
    random: random.Random = field(init=False)
    nodes: dict[str, Node] = field(default_factory=dict)
    cut: set[frozenset[str]] = field(default_factory=set)
    _queue: list[tuple[float, int, str, Any, Any]] = field(default_factory=list)
    _events: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def spread(self, span: float) -> float:
        """From half of it to once and a half."""
        return span * (0.5 + self.random.random())

    def after(self, delay: float, event: Callable[[], None]) -> None:
        self._events += 1
        heappush(self._queue, (self.now + delay, self._events, "", event, None))

    def send(self, sender: str, receiver: str, message: object) -> None:
        if self.cut and frozenset((sender, receiver)) in self.cut:
            return
        faults, draw = self.faults, self.random.random
        if draw() < faults.loss:
            return
        for _ in range(2 if draw() < faults.duplicate else 1):
            delay = 0.1 + draw() * (faults.longest_delay - 0.1)
            if draw() < faults.loss:
                delay *= 20
            self._events += 1
            heappush(self._queue, (self.now + delay, self._events, sender, receiver, message))

    def may_crash(self) -> None:
        if self.random.random() < self.faults.crash:
            raise Crash

    def run(self, until: float, done: Callable[[], bool] | None = None) -> None:
        queue, nodes = self._queue, self.nodes
        while queue and queue[0][0] <= until:
            self.now, _, sender, target, message = heappop(queue)
            if not sender:
                target()
                if done is not None and done():
                    return
            elif (node := nodes.get(target)) is not None and node.alive:
                node.receive(sender, message)
