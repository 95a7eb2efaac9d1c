"""Verbs and commits while parts and computes are killed at random (`--slow`).

Three workers have a database each, commit numbered rows, take checkpoints, restore and branch;
a killer ends a random process every few seconds. What a worker reads must always be what it
committed, or what its checkpoint held.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
import pytest

from pagestore.client.control import ControlClient
from pagestore.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    PagestoreError,
    Unavailable,
)
from pagestore.postgres.process import start_ticks
from pagestore.v1 import control_pb2 as pb
from tests.integration.installation import Whole, sql, whole_pagestore
from tests.waiting import let_pass

SECONDS = 90.0
PATIENCE = 100.0
COUNT = "SELECT coalesce(max(a), 0), count(*) FROM t"
VICTIMS = ["pageserver", "safekeeper", "control", "compute", "compute"]
ENDS_WITHIN = 10.0
TRANSIENT = (Unavailable, DeadlineExceeded, Aborted, FailedPrecondition)

_T = TypeVar("_T")


class Worker(threading.Thread):
    def __init__(self, whole: Whole, number: int, seed: int, done: threading.Event) -> None:
        super().__init__()
        self.name = f"worker-{number}"
        self.whole = whole
        self.random = random.Random(seed + number)
        self.done = done
        self.operations = 0
        self.fault: BaseException | None = None
        self.committed = 0
        self.held: dict[str, tuple[Any, ...]] = {}

    def run(self) -> None:
        try:
            self.ask(lambda control: control.create(self.name, if_not_exists=True))
            self.sql(self.name, "CREATE TABLE IF NOT EXISTS t (a int PRIMARY KEY, pad text)")
            while not self.done.is_set():
                self.operations += 1
                self.one_step()
        except BaseException as error:
            self.fault = error

    def one_step(self) -> None:
        choice = self.random.random()
        if choice < 0.5 or not self.held:
            self.commit()
        elif choice < 0.65:
            self.checkpoint()
        elif choice < 0.8:
            self.restore(self.random.choice(list(self.held)))
        else:
            self.branch(self.random.choice(list(self.held)))
        if not self.held:
            self.checkpoint()

    def commit(self) -> None:
        self.committed += 1
        row = f"({self.committed}, repeat('x', 500))"
        self.sql(self.name, f"INSERT INTO t VALUES {row} ON CONFLICT DO NOTHING")
        assert self.sql(self.name, COUNT)[0][0] == self.committed

    def checkpoint(self) -> None:
        name = f"c-{self.operations}"
        self.ask(lambda control: control.checkpoint(self.name, name))
        self.held[name] = self.sql(self.name, COUNT)[0]

    def restore(self, checkpoint: str) -> None:
        point = pb.Point(checkpoint=checkpoint)
        self.ask(lambda control: control.restore(self.name, point))
        assert self.sql(self.name, COUNT)[0] == self.held[checkpoint]

    def branch(self, checkpoint: str) -> None:
        name = f"{self.name}-branch"
        point = pb.Point(checkpoint=checkpoint)
        self.ask(lambda control: control.delete(name, if_exists=True))
        self.ask(lambda control: control.branch(self.name, name, point, if_not_exists=True))
        assert self.sql(name, COUNT)[0] == self.held[checkpoint]

    def ask(self, verb: Callable[[ControlClient], _T]) -> _T:
        """A verb, repeated while something is away; all of them may be."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self.whole.control() as control:
                    return verb(control)
            except TRANSIENT:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def sql(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return sql(self.ask(lambda control: control.get(name, reveal=True)).url, statement)
            except psycopg.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


class Killer:
    """Ends one process after another, all kinds in turn in an order drawn anew each round; counts
    those that it has seen end."""

    def __init__(self, whole: Whole, choices: random.Random) -> None:
        self.whole, self.choices = whole, choices
        self.kills: Counter[str] = Counter()
        self._round: list[str] = []

    def kill_one(self) -> None:
        if not self._round:
            self._round = self.choices.sample(VICTIMS, len(VICTIMS))
        kind = self._round.pop()
        with contextlib.suppress(PagestoreError, ProcessLookupError, IndexError):
            pid = self._pid(kind)
            ticks = start_ticks(pid)
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + ENDS_WITHIN
            while start_ticks(pid) == ticks:
                assert time.monotonic() < deadline, f"{kind} (process {pid}) survives SIGKILL"
                time.sleep(0.01)
            self.kills[kind] += 1

    def _pid(self, kind: str) -> int:
        if kind != "compute":
            return self.whole.installation.parts()[kind].pid
        with self.whole.control() as control:
            pids = [item.compute_pid for item in control.databases() if item.compute_pid]
        return self.choices.choice(pids)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_committed_is_read_whatever_is_killed() -> None:
    seed = random.randrange(1 << 30)
    choices = random.Random(seed)
    done = threading.Event()
    with whole_pagestore() as whole:
        workers = [Worker(whole, number, seed, done) for number in range(3)]
        for worker in workers:
            worker.start()
        killer = Killer(whole, choices)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and all(worker.is_alive() for worker in workers):
            let_pass(choices.uniform(1.5, 4))
            killer.kill_one()
        done.set()
        for worker in workers:
            worker.join()
        faults = [worker.fault for worker in workers if worker.fault is not None]
        assert faults == [], f"seed {seed}\n{whole.logs()}"
        assert sum(worker.operations for worker in workers) > 50
        assert all(killer.kills[kind] > 0 for kind in VICTIMS), f"seed {seed}: {killer.kills}"
