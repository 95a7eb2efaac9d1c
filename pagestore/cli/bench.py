"""``pagestore bench``: measures this machine; see :mod:`pagestore.bench`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pagestore.cli.session import FAILED, Json, session
from pagestore.errors import InvalidInput

if TYPE_CHECKING:
    from pagestore.bench.report import Report, Row


def bench(
    parts: Annotated[
        list[str] | None, typer.Argument(metavar="[PART]...", help="Default: all of them.")
    ] = None,
    results: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the run's JSON file goes.")
    ] = Path("bench-results"),
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions that count.")] = 3,
    warmup: Annotated[int, typer.Option(min=0, help="Repetitions before them.")] = 1,
    seconds: Annotated[float, typer.Option(help="Of a case measured by the clock.")] = 3.0,
    scale: Annotated[int, typer.Option(min=1, help="Of pgbench, and other data with it.")] = 10,
    branches: Annotated[
        list[int] | None, typer.Option(min=1, help="In a shape of the part branches; repeatable.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Sizes of the targets: 5 GB, 2,000 branches.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only see that all of it runs.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Pictures, too (matplotlib).")] = False,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For scratch files. Default: /tmp.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure pagestore beside plain Postgres, on an installation of its own.

    Parts: getpage, ingest, redo, branch, basebackup, compute, commit, branches, proxy,
    fleet, storage, workflows.

    Example: pagestore bench commit branch --rounds 5
    """
    with session(None, as_json) as run:
        from pagestore.bench import harness, report
        from pagestore.bench.parts import PARTS

        wrong = [part for part in parts or [] if part not in PARTS]
        if wrong:
            raise InvalidInput(
                "NO_SUCH_PART", f"There is no part {wrong[0]!r}.", f"Parts: {', '.join(PARTS)}."
            )
        chosen = {name: PARTS[name] for name in PARTS if not parts or name in parts}
        settings = harness.QUICK if quick else harness.Settings(rounds, warmup, seconds, scale)
        settings = settings.full() if full else settings
        settings = replace(settings, branches=tuple(branches)) if branches else settings

        def show(name: str, found: Report, rows: list[Row]) -> None:
            if rows and not as_json:
                report.print_table(found, rows)
            if name in found.failures:
                run.remark(f"{name} failed: {found.failures[name]}")

        found = harness.run(chosen, settings, work, show)
        path = found.write(results)
        pictures = _pictures(path) if plot else []
        if not as_json:
            report.print_environment(found)
        run.answer({**found.as_json(), "results": str(path)}, str(path))
        for picture in pictures:
            run.remark(str(picture))
        if found.failures:
            sys.stdout.flush()
            raise typer.Exit(FAILED)


def _pictures(path: Path) -> list[Path]:
    from pagestore.bench.plots import plot

    return plot(path)
