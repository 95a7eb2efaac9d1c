"""The verb `upgrade`: a database to another major of Postgres, with its steps shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import typer

from pagestore.cli.databases import tell_set_aside
from pagestore.cli.past import RequestId, moved_fields, request_of, retryable
from pagestore.cli.session import Data, Json, Name, session


class Told(Protocol):
    def __call__(self, step: str, done: int, total: int) -> None: ...


@dataclass
class Steps:
    """What was done, with seconds; the last one goes on until `end`."""

    taken: list[tuple[str, float]] = field(default_factory=list)
    _began: float = 0.0
    _step: str = ""

    def at(self, step: str) -> bool:
        """Whether it is another one than before."""
        if step == self._step:
            return False
        self.end()
        self._step, self._began = step, time.monotonic()
        return True

    def end(self) -> None:
        if self._step:
            self.taken.append((self._step, round(time.monotonic() - self._began, 3)))
        self._step = ""


@contextmanager
def shown_steps(steps: Steps, shown: bool) -> Iterator[Told]:
    """A line a step on stderr; on a terminal with a bar for what has bytes."""
    if not (shown and sys.stderr.isatty()):

        def told(step: str, done: int, total: int) -> None:
            if steps.at(step) and shown:
                sys.stderr.write(f"{step}\n")

        yield told
        steps.end()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def drawn(step: str, done: int, total: int) -> None:
            if steps.at(step):
                bar.console.print(step)
            bar.update(task, description=step, completed=done, total=total or None)

        yield drawn
        steps.end()


def upgrade(
    name: Name,
    to: Annotated[
        int, typer.Option("--to", min=1, max=999, metavar="MAJOR", help="Of Postgres: 18.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only let pg_upgrade check; the database goes on.")
    ] = False,
    request_id: RequestId = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Bring a database to a later major of Postgres, by its own pg_upgrade.

    Nobody is let in meanwhile. Name, URL, roles and settings stay; what the database was is kept
    as an automatic checkpoint, to which `undo` goes back.

    Example: pagestore upgrade app --to 18
    """
    with session(data, as_json) as run:
        request, steps = request_of(request_id), Steps()
        with retryable(request), shown_steps(steps, not as_json) as told:
            moved, remarks = run.control.upgrade(
                name, to, request_id=request, dry_run=dry_run, told=told
            )
        fields = moved_fields(moved, request, dry_run=dry_run)
        fields["remarks"] = [*(fields["remarks"] or ()), *remarks] or None
        fields["steps"] = [{"step": step, "seconds": seconds} for step, seconds in steps.taken]
        run.answer(fields, "" if dry_run else moved.database.url, moved.summary)
        tell_set_aside(run, moved.database)
