"""Five ways in which agents use branches, beside ``CREATE DATABASE … TEMPLATE``.

The workflows are those of the BranchBench paper (arXiv 2604.17180): software development, failure
reproduction, data curation, tree search, simulation. Each is a loop: branch from what there is,
change schema and rows, evaluate, look across at other branches, perhaps throw the branch away. What
tells them apart is a row of numbers, below as in the paper's table but for one: each workflow makes
as many branches as the settings say. Statements and data are our own.

Each step is done by both systems, one behind the other, each first in every second step: the same
branch of the same parent, the same statements. Workers take turns. A branch that a step is done
with is stopped on our side, which no clock counts: at rest it costs no process. Who comes back to
it waits for its start, and that is counted.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg

from pagestore.bench.harness import OURS, PLAIN, Bench
from pagestore.bench.plain import PlainCluster, sql
from pagestore.bench.stack import Stack
from pagestore.ids import DEFAULT_TENANT, TimelineId

TEMPLATE = f"{PLAIN}, TEMPLATE"
PART = "workflows"
ROWS = 5_000
"""Orders for each unit of `scale`; a tenth as many customers."""


@dataclass(frozen=True)
class Workflow:
    """
    Args:
        workers: who each go on from the branch that they made last.
        fan_out: at most so many branches of the root, and of any other.
        depth: of branches of branches.
        schema, changes, queries: statements of one step.
        across: other branches that one step looks at.
        pruned: the probability that a branch is removed at the end of its step.
    """

    name: str
    workers: int
    fan_out: tuple[int, int]
    depth: int
    schema: int
    changes: int
    queries: int
    across: int
    pruned: float


WORKFLOWS = (
    Workflow("software", 5, (5, 3), 4, 1, 1, 2, 1, 0.1),
    Workflow("failures", 1, (10, 0), 1, 5, 45, 1, 0, 1.0),
    Workflow("curation", 10, (10, 3), 3, 1, 1, 1, 2, 0.0),
    Workflow("tree search", 10, (10, 10), 25, 0, 1, 1, 0, 0.1),
    Workflow("simulation", 1000, (1000, 0), 1, 0, 50, 1, 1, 1.0),
)
_DATA = """
CREATE TABLE customer AS
    SELECT i AS id, i % 20 AS region, 1000.0 AS balance, md5(i::text) AS note
    FROM generate_series(1, {customers}) i;
ALTER TABLE customer ADD PRIMARY KEY (id);
CREATE TABLE orders AS
    SELECT i AS id, 1 + i % {customers} AS customer, i % 500 AS amount, 'Open' AS status
    FROM generate_series(1, {orders}) i;
ALTER TABLE orders ADD PRIMARY KEY (id);
"""
_SPEND = (
    "SELECT region, count(*), sum(amount) FROM orders JOIN customer c ON c.id = customer"
    " GROUP BY region ORDER BY region"
)
_QUERIES = {
    "software": (_SPEND, "SELECT max(balance), min(balance) FROM customer"),
    "failures": ("SELECT count(*) FROM orders WHERE amount < 0",),
    "curation": ("SELECT status, count(*) FROM orders GROUP BY status",),
    "tree search": ("SELECT sum(balance) FROM customer",),
    "simulation": (_SPEND,),
}


class System(Protocol):
    """Where databases are branched from each other."""

    name: str

    def branch(self, parent: str, name: str) -> None: ...

    def connect(self, name: str) -> psycopg.Connection[Any]: ...

    def leave(self, name: str) -> None:
        """Nobody is connected to it any more."""

    def drop(self, name: str) -> None: ...

    def size(self, name: str) -> float:
        """Bytes that it takes for itself."""


class Ours:
    name = OURS

    def __init__(self, stack: Stack) -> None:
        self._stack, self._control = stack, stack.control
        self._urls: dict[str, str] = {}

    def create(self, name: str) -> str:
        self._urls[name] = self._control.create(name).url
        return self._urls[name]

    def branch(self, parent: str, name: str) -> None:
        self._urls[name] = self._control.branch(parent, name).url

    def connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self._urls[name], autocommit=True)

    def leave(self, name: str) -> None:
        self._control.stop(name)

    def drop(self, name: str) -> None:
        self._control.delete(name)

    def size(self, name: str) -> float:
        timeline = TimelineId(self._control.get(name).timeline_id)
        self._stack.pages.flush(DEFAULT_TENANT, timeline)
        return float(self._control.get(name).physical_bytes)


class Template:
    name = TEMPLATE

    def __init__(self, cluster: PlainCluster) -> None:
        self._cluster = cluster

    def create(self, name: str) -> str:
        self._cluster.sql(f'CREATE DATABASE "{name}"')
        return f"{self._cluster.conninfo} dbname={name}"

    def branch(self, parent: str, name: str) -> None:
        self._cluster.sql(f'CREATE DATABASE "{name}" TEMPLATE "{parent}"')

    def connect(self, name: str) -> psycopg.Connection[Any]:
        return self._cluster.connect(name)

    def leave(self, name: str) -> None:
        return

    def drop(self, name: str) -> None:
        self._cluster.sql(f'DROP DATABASE "{name}" WITH (FORCE)')

    def size(self, name: str) -> float:
        [[found]] = self._cluster.sql(f"SELECT pg_database_size('{name}')")
        return float(found)


@dataclass
class Tree:
    """The branches that there are, as names; the root is "" and at depth 0."""

    workflow: Workflow
    parents: dict[str, str] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=lambda: {"": 0})
    children: dict[str, int] = field(default_factory=lambda: {"": 0})
    last: dict[int, str] = field(default_factory=dict)

    def parent(self, worker: int, rng: random.Random) -> str:
        """What a worker goes on from: its own last branch, or whichever has room; the root where
        none has, as the paper's trees are for fewer branches than may be asked for."""
        own = self.last.get(worker, "")
        if self._has_room(own):
            return own
        roomy = [name for name in self.children if self._has_room(name)]
        return rng.choice(roomy) if roomy else ""

    def _has_room(self, name: str) -> bool:
        most = self.workflow.fan_out[name != ""]
        return self.children[name] < most and self.depths[name] < self.workflow.depth

    def add(self, worker: int, parent: str, name: str) -> None:
        self.parents[name], self.last[worker] = parent, name
        self.depths[name], self.children[name] = self.depths[parent] + 1, 0
        self.children[parent] += 1

    def remove(self, worker: int, name: str) -> None:
        """The newest one, of which nothing branches."""
        parent = self.parents.pop(name)
        self.last[worker] = parent
        self.children[parent] -= 1
        del self.depths[name], self.children[name]

    def others(self, name: str, count: int, rng: random.Random) -> list[str]:
        among = [other for other in self.parents if other != name]
        return rng.sample(among, min(count, len(among)))


def run(bench: Bench) -> None:
    with bench.plain() as cluster:
        systems = (Ours(bench.stack), Template(cluster))
        for workflow in WORKFLOWS:
            Run(bench, workflow, systems).run()


class Run:
    """One workflow, on all systems in turns."""

    def __init__(self, bench: Bench, workflow: Workflow, systems: tuple[Ours, Template]) -> None:
        self._bench, self._workflow, self._systems = bench, workflow, systems
        self._root = workflow.name.replace(" ", "-")
        self._rng = random.Random(workflow.name)
        self._tree = Tree(workflow)
        self._taken: dict[tuple[str, str], list[float]] = {}
        self._orders = ROWS * bench.settings.scale

    def run(self) -> None:
        data = _DATA.format(orders=self._orders, customers=max(1, self._orders // 10))
        for system in self._systems:
            sql(system.create(self._root), data)
            system.leave(self._root)
        for number in range(self._bench.settings.workflow_branches):
            self._step(number)
        self._rows()
        for name in [*reversed(self._tree.parents), ""]:
            for system in self._systems:
                system.drop(self._database(name))

    def _database(self, name: str) -> str:
        return f"{self._root}-{name}" if name else self._root

    def _step(self, number: int) -> None:
        workflow, tree, rng = self._workflow, self._tree, self._rng
        worker, name = number % workflow.workers, str(number)
        parent = tree.parent(worker, rng)
        tree.add(worker, parent, name)
        others = tree.others(name, workflow.across, rng)
        prunes = rng.random() < workflow.pruned
        changes = [self._change(number) for _ in range(workflow.changes)]
        for system in self._systems if number % 2 else self._systems[::-1]:
            began = time.perf_counter()
            with self._timed("branch", system):
                system.branch(self._database(parent), self._database(name))
            with self._timed("connect", system):
                connection = system.connect(self._database(name))
                connection.execute("SELECT 1")
            with connection:
                self._work(system, connection, number, changes)
            for other in others:
                with self._timed("look at another branch", system):
                    self._look(system, other)
            if prunes:
                with self._timed("remove", system):
                    system.drop(self._database(name))
            self._note("a whole step", system, began)
            if not prunes:
                system.leave(self._database(name))
            for other in others:
                system.leave(self._database(other))
        if prunes:
            tree.remove(worker, name)

    def _work(
        self, system: System, connection: psycopg.Connection[Any], number: int, changes: list[str]
    ) -> None:
        workflow = self._workflow
        if workflow.schema + workflow.changes:
            with self._timed("change", system):
                for item in range(workflow.schema):
                    connection.execute(
                        f"ALTER TABLE orders ADD COLUMN c{number}_{item} int DEFAULT 0".encode()
                    )
                for change in changes:
                    connection.execute(change.encode())
        queries = _QUERIES[workflow.name]
        with self._timed("evaluate", system):
            for item in range(workflow.queries):
                connection.execute(queries[item % len(queries)].encode()).fetchall()

    def _change(self, number: int) -> str:
        """Of one row, but where the workflow is about many."""
        if self._workflow.name == "software":
            return f"UPDATE customer SET balance = balance + 1 WHERE region = {number % 20}"
        if self._workflow.name == "curation":
            return f"UPDATE orders SET status = lower(status) WHERE id % 100 = {number % 100}"
        row = self._rng.randint(1, self._orders)
        if self._workflow.name == "tree search":
            return f"UPDATE customer SET balance = balance - 1 WHERE id = {1 + row // 10}"
        return f"UPDATE orders SET amount = amount + {number} WHERE id = {row}"

    def _look(self, system: System, other: str) -> None:
        with system.connect(self._database(other)) as connection:
            connection.execute(_QUERIES[self._workflow.name][0].encode()).fetchall()

    @contextmanager
    def _timed(self, what: str, system: System) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._note(what, system, began)

    def _note(self, what: str, system: System, began: float) -> None:
        took = (time.perf_counter() - began) * 1e3
        self._taken.setdefault((what, system.name), []).append(took)

    def _rows(self) -> None:
        name = self._workflow.name
        for what in dict.fromkeys(what for what, _ in self._taken):
            for system in self._systems:
                values = self._taken[what, system.name]
                self._bench.row(PART, f"{name}: {what}", system.name, "ms", values)
        left = [self._database(branch) for branch in self._tree.parents]
        for system in self._systems if left else ():
            sizes = [system.size(branch) / 1e3 for branch in left]
            self._bench.row(PART, f"{name}: a branch that is left", system.name, "KB", sizes)
