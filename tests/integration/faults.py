"""What may happen to a spread installation, each as a context within which it has happened."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.integration.spread import Part, Spread


class Effect(enum.Enum):
    """What clients may notice, as long as it lasts."""

    LATENCY = "they go on without an error"
    STANDSTILL = "commits wait, and complete without an error"
    RESTART = "connections break, and they go on while it lasts"
    ERRORS = "connections may break"


@dataclass(frozen=True)
class Fault:
    name: str
    effect: Effect
    within: Callable[[Spread, Random], AbstractContextManager[None]]


def _one(spread: Spread, choices: Random) -> Part:
    return choices.choice([*spread.safekeepers.values()])


@contextmanager
def killed(*parts: Part) -> Iterator[None]:
    for part in parts:
        part.end()
    yield
    for part in parts:
        part.start()


@contextmanager
def frozen(*parts: Part) -> Iterator[None]:
    for part in parts:
        part.send(signal.SIGSTOP)
    yield
    for part in parts:
        part.send(signal.SIGCONT)


@contextmanager
def wiped(part: Part) -> Iterator[None]:
    part.end()
    part.wipe()
    part.start()
    yield


@contextmanager
def cut_off(spread: Spread, *parts: Part) -> Iterator[None]:
    """From everybody."""
    with ExitStack() as cuts:
        for part in parts:
            others = [other.host for other in spread.parts]
            cuts.enter_context(spread.network.cut(part.host, others))
        yield


@contextmanager
def compute_killed(spread: Spread) -> Iterator[None]:
    os.kill(spread.compute_pid("app"), signal.SIGKILL)
    yield


@contextmanager
def server_frozen(postmaster: int) -> Iterator[None]:
    """A Postgres server with all its processes."""
    pids = _family(postmaster)
    _send(pids, signal.SIGSTOP)
    yield
    _send(pids, signal.SIGCONT)


@contextmanager
def compute_killed_without(spread: Spread, part: Part) -> Iterator[None]:
    """The next compute starts with the other two."""
    with killed(part), compute_killed(spread):
        yield


def _family(postmaster: int) -> list[int]:
    """Stopped as they are found: a stopped postmaster has no further child."""
    os.kill(postmaster, signal.SIGSTOP)
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _two(spread: Spread, choices: Random) -> list[Part]:
    return choices.sample([*spread.safekeepers.values()], 2)


def _cut_from(role: str) -> Callable[[Spread, Random], AbstractContextManager[None]]:
    def within(spread: Spread, choices: Random) -> AbstractContextManager[None]:
        part = _one(spread, choices)
        others = {
            "the compute": [spread.control.host],
            "its peers": [peer.host for peer in spread.safekeepers.values()],
            "the page server": [spread.pages.host],
        }[role]
        return spread.network.cut(part.host, others)

    return within


FAULTS = (
    Fault("kill a safekeeper", Effect.LATENCY, lambda s, r: killed(_one(s, r))),
    Fault("freeze a safekeeper", Effect.LATENCY, lambda s, r: frozen(_one(s, r))),
    Fault("cut a safekeeper from all", Effect.LATENCY, lambda s, r: cut_off(s, _one(s, r))),
    Fault("cut a safekeeper from the compute", Effect.LATENCY, _cut_from("the compute")),
    Fault("cut a safekeeper from its peers", Effect.LATENCY, _cut_from("its peers")),
    Fault("cut a safekeeper from the page server", Effect.LATENCY, _cut_from("the page server")),
    Fault("wipe a safekeeper", Effect.LATENCY, lambda s, r: wiped(_one(s, r))),
    Fault("kill two safekeepers", Effect.STANDSTILL, lambda s, r: killed(*_two(s, r))),
    Fault("freeze two safekeepers", Effect.STANDSTILL, lambda s, r: frozen(*_two(s, r))),
    Fault("cut two safekeepers off", Effect.STANDSTILL, lambda s, r: cut_off(s, *_two(s, r))),
    Fault("kill the compute", Effect.RESTART, lambda s, _: compute_killed(s)),
    Fault("freeze the compute", Effect.ERRORS, lambda s, _: server_frozen(s.compute_pid("app"))),
    Fault(
        "kill the compute with a safekeeper away",
        Effect.RESTART,
        lambda s, r: compute_killed_without(s, _one(s, r)),
    ),
    Fault("kill the page server", Effect.ERRORS, lambda s, _: killed(s.pages)),
    Fault("freeze the page server", Effect.ERRORS, lambda s, _: frozen(s.pages)),
    Fault("cut the page server off", Effect.ERRORS, lambda s, _: cut_off(s, s.pages)),
    Fault("kill the control plane", Effect.LATENCY, lambda s, _: killed(s.control)),
)
