"""Attempts: ``pagestore try``, a command on several branches side by side; ``pagestore promote``,
one of them as the database."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli import choosing, completion
from pagestore.cli.databases import At, time_to_live
from pagestore.cli.past import DryRun, RequestId, moved_fields, request_of, retryable
from pagestore.cli.session import Data, Json, Name, session
from pagestore.errors import InvalidInput

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.sdk.attempts import Outcome


def try_(
    name: Name,
    count: Annotated[int, typer.Argument(metavar="COUNT", help="How many attempts.", min=1)],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND...", help="Run once on each, with DATABASE_URL."),
    ] = None,
    at: At = None,
    stem: Annotated[
        str, typer.Option("--as", metavar="STEM", help="The branches are STEM-1, STEM-2, ...")
    ] = "try",
    ttl: Annotated[
        str, typer.Option(metavar="TIME", help="The branches go by themselves after so long.")
    ] = "1d",
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="A command is ended after so long: 10m.")
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For what they print. Default: a new one in TMPDIR."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Run a command on several branches of a database, side by side.

    Each has DATABASE_URL, PAGESTORE_DATABASE and PAGESTORE_ATTEMPT set. All branch at one point.
    Exit code 0 if one of them succeeds. The branches stay: `promote` takes one of them.

    Example: pagestore try app 3 -- ./migrate-and-test.sh
    """
    with session(data, as_json) as run:
        if not command:
            raise InvalidInput(
                "INVALID_ATTEMPTS",
                "There is no command to try.",
                f"It stands behind two dashes: pagestore try {name} {count} -- ./test.sh",
            )
        options = {
            "stem": stem,
            "at": at,
            "ttl": time_to_live(ttl),
            "timeout": time_to_live(timeout),
        }
        with _logs(logs) as place:
            outcomes = asyncio.run(_attempts(run, name, count, command, place, options))
        run.answer({"name": name, "attempts": [_outcome_fields(item) for item in outcomes]})
        if not as_json:
            columns = ("branch", "outcome", "seconds", "rows changed", "log")
            run.table(columns, [_outcome_row(item) for item in outcomes])
        good = [item.database for item in outcomes if item.succeeded]
        if not good:
            run.remark("none succeeded; the branches stay to be looked at")
            raise typer.Exit(1)
        run.remark(f"{len(good)} of {count} succeeded; pagestore promote {name} {good[0]}")


@contextlib.contextmanager
def _logs(given: Path | None) -> Iterator[Path]:
    """The directory for what commands print; one of ours stays only where something was tried."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.absolute()
        return
    made = Path(tempfile.mkdtemp(prefix="pagestore-try-"))
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.rmdir()  # if it is empty


async def _attempts(
    run: Session,
    name: str,
    count: int,
    command: list[str],
    logs: Path,
    options: dict[str, Any],
) -> list[Outcome]:
    from pagestore.sdk.attempts import Watcher, attempt
    from pagestore.sdk.client import AsyncClient

    def line(database: str, text: str) -> None:
        sys.stderr.write(f"{database} | {text}\n")

    def done(outcome: Outcome) -> None:
        run.remark(f"{outcome.database} {outcome.words} after {outcome.seconds:.1f} s")

    watcher = Watcher(done=done) if run.as_json else Watcher(line, done)
    # It says by name what does not run, which a client that waits for it would not.
    address = run.control.address
    async with AsyncClient(address, tenant=choosing.chosen()) as client:
        return await attempt(client, name, count, command, logs, watcher=watcher, **options)


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.database,
        "url": outcome.url,
        "succeeded": outcome.succeeded,
        "outcome": outcome.words,
        "exit_code": outcome.code,
        "seconds": round(outcome.seconds, 3),
        "rows_changed": outcome.rows_changed,
        "log": str(outcome.log),
    }


def _outcome_row(outcome: Outcome) -> tuple[str, ...]:
    rows = "-" if outcome.rows_changed is None else str(outcome.rows_changed)
    return (
        outcome.database,
        outcome.words,
        f"{outcome.seconds:.1f}",
        rows,
        str(outcome.log),
    )


def promote(
    name: Name,
    branch: Annotated[
        str,
        typer.Argument(metavar="BRANCH", help="What it is to be.", autocompletion=completion.names),
    ],
    keep: Annotated[
        bool, typer.Option("--keep", help="Let the branch, and the attempts beside it, be.")
    ] = False,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a branch the database: under its name and URL, with what the branch has now.

    What the database was is kept as an automatic checkpoint; `undo` takes it back. Where the
    branch is one of several attempts (`try`), all of them are removed afterwards.

    Example: pagestore promote app try-2
    """
    with session(data, as_json) as run:
        request = request_of(request_id)
        gone = [] if keep else _attempts_beside(run, branch)
        with retryable(request):
            done = run.control.promote(name, branch, request_id=request, dry_run=dry_run)
        # One attempt may be promoted to another, which is the database then.
        gone = [attempt for attempt in gone if attempt != done.database.name]
        if not dry_run:
            for attempt in gone:
                run.control.delete(attempt, if_exists=True)
        fields = moved_fields(done, request, dry_run=dry_run)
        run.answer({**fields, "removed": gone}, "" if dry_run else done.database.url, done.summary)
        if gone:
            would = "would be removed" if dry_run else "removed"
            run.remark(f"{would}: {', '.join(gone)}")


def _attempts_beside(run: Session, branch: str) -> list[str]:
    from pagestore.sdk.attempts import siblings
    from pagestore.sdk.values import Facts

    return siblings(branch, [Facts.of(item) for item in run.control.databases()])
