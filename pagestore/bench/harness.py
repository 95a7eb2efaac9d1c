"""Runs parts: gives them what they share, times them in turns, collects their rows."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pagestore.bench.plain import PlainCluster, give, pgbench, plain_cluster
from pagestore.bench.report import Better, Report, Row, Target
from pagestore.bench.stack import Stack, running_stack
from pagestore.errors import InvalidInput

OURS = "pagestore"
PLAIN = "plain Postgres"
BULK: dict[str, object] = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_keep_size": "8GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "max_wal_senders": 10,
}
"""Of a plain cluster that only makes data or WAL, and is not itself measured."""


@dataclass(frozen=True)
class Settings:
    """How much and how often; all of it is in the report.

    Args:
        rounds: repetitions that count, of every case.
        warmup: repetitions before them, thrown away.
        seconds: of a case that is measured by the clock.
        scale: of pgbench, and of other data in proportion.
        parent_scale: pgbench scale of the large parent in `branch`.
        scan_scale: pgbench scale of the table that `compute` scans cold.
        in_a_row: branches of one parent that `branch` makes, one after the other.
        branches: how many the part `branches` makes in a shape; a series of runs.
        store_branches: databases in one store; a thousand of them are deleted, or all.
        store_pages: of the relation that branches of the part `storage` change 1% of.
        store_scale: pgbench scale of the data that is updated ten times over.
        depths: of branches of branches, which are read.
        siblings: of a branch that is read.
        flushes: of a timeline that is read.
        workflow_branches: that each of the part `workflows` makes.
    """

    rounds: int = 3
    warmup: int = 1
    seconds: float = 3.0
    scale: int = 10
    parent_scale: int = 10
    scan_scale: int = 10
    in_a_row: int = 200
    branches: tuple[int, ...] = (1, 64)
    store_branches: int = 1000
    store_pages: int = 10_000
    store_scale: int = 2
    depths: tuple[int, ...] = (1, 50, 500)
    siblings: int = 1024
    flushes: int = 2000
    workflow_branches: int = 64

    def check(self) -> None:
        counts = (self.rounds, self.scale, self.parent_scale, self.scan_scale, *self.branches)
        if min(counts) < 1 or self.warmup < 0 or not self.branches:
            raise InvalidInput("INVALID_SETTING", "Rounds, scale and branches are 1 or more.")
        if self.in_a_row < 2:
            raise InvalidInput("INVALID_SETTING", "Branches in a row are 2 or more.")
        if not 0 < self.seconds <= 3600:
            raise InvalidInput("INVALID_SETTING", "Seconds are more than 0 and at most 3600.")

    def full(self) -> Settings:
        """The sizes that the targets speak of: a parent of 5 GB, a scan of 1 GB, the 2,000th
        branch, shapes of up to 1,024. Takes some 20 GB of disk, and half an hour more."""
        return replace(
            self,
            parent_scale=340,
            scan_scale=80,
            in_a_row=2000,
            branches=(1, 4, 16, 64, 256, 1024),
            store_branches=10_000,
            store_pages=40_000,
            store_scale=10,
            flushes=10_000,
            workflow_branches=1024,
        )


QUICK = Settings(
    *(1, 0, 0.2, 1),
    parent_scale=1,
    scan_scale=1,
    in_a_row=4,
    branches=(1, 3),
    store_branches=6,
    store_pages=300,
    store_scale=1,
    depths=(1, 2, 3),
    siblings=4,
    flushes=8,
    workflow_branches=4,
)
"""To see that everything runs. The figures mean nothing."""


@dataclass
class Bench:
    """What a part is given."""

    settings: Settings
    work: Path
    report: Report
    _exits: ExitStack = field(default_factory=ExitStack)
    _stack: Stack | None = None
    _made: int = 0

    @property
    def stack(self) -> Stack:
        """One running pagestore for all parts, started by the first that asks."""
        if self._stack is None:
            self._stack = self._exits.enter_context(running_stack(self.work / "whole"))
        return self._stack

    def place(self, name: str) -> Path:
        """A path that nothing is at."""
        self._made += 1
        return self.work / f"{name}-{self._made}"

    @contextmanager
    def plain(self, **settings: object) -> Iterator[PlainCluster]:
        with plain_cluster(self.place("plain"), **settings) as cluster:
            yield cluster

    @contextmanager
    def loaded(self, scale: int, **settings: object) -> Iterator[PlainCluster]:
        """A running plain cluster with pgbench's tables."""
        with self.plain(**settings) as cluster:
            pgbench(cluster.conninfo, "-i", "-q", "-s", scale)
            cluster.sql("CHECKPOINT")
            yield cluster

    def take_turns(self, systems: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """One value a round from each, in turns, so that what disturbs one disturbs all."""
        taken: dict[str, list[float]] = {name: [] for name in systems}
        for number in range(self.settings.warmup + self.settings.rounds):
            for name, measure in systems.items():
                value = measure()
                if number >= self.settings.warmup:
                    taken[name].append(value)
        return taken

    def row(
        self,
        part: str,
        case: str,
        system: str,
        unit: str,
        values: Sequence[float],
        *,
        better: Better = "less",
        target: Target | None = None,
        relative_to: str = "",
    ) -> None:
        self.report.rows.append(
            Row(part, case, system, unit, list(values), better, target, relative_to)
        )

    def close(self) -> None:
        self._exits.close()


Part = Callable[[Bench], None]


def run(
    parts: Mapping[str, Part],
    settings: Settings,
    work: Path | None = None,
    on_part: Callable[[str, Report, list[Row]], None] = lambda name, report, rows: None,
) -> Report:
    """Runs the parts one after the other. One that fails is in the report, and ends no other.

    Args:
        work: where scratch files go; big enough for some copies of the data.
        on_part: called after each, with its rows.
    """
    settings.check()
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-", dir=work or "/tmp"))
    folder.chmod(0o711)
    report = Report({**asdict(settings), "parts": list(parts)})
    bench = Bench(settings, folder, report)
    with _ending_in_order():
        try:
            for name, part in parts.items():
                before = len(report.rows)
                try:
                    part(bench)
                except Exception as error:
                    report.failures[name] = f"{error}\n{traceback.format_exc()}"
                on_part(name, report, report.rows[before:])
        finally:
            bench.close()
            shutil.rmtree(folder, ignore_errors=True)
    return report


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM, too, stops what a run started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


__all__ = ["BULK", "OURS", "PLAIN", "QUICK", "Bench", "Part", "Settings", "give", "run"]
