"""Verbs on a database's past: checkpoint, restore, undo, log."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.databases import At
from pagestore.cli.session import (
    Data,
    Json,
    Name,
    checkpoint_fields,
    database_fields,
    point_message,
    session,
    short_time,
    timestamp,
)
from pagestore.errors import InvalidInput
from pagestore.ids import format_lsn

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.v1 import control_pb2 as pb


def git_commit(revision: str) -> str:
    """The full hash of a revision of the repository around the current directory.

    Raises:
        InvalidInput: NO_SUCH_COMMIT.
    """
    git = shutil.which("git")
    if git is None:
        raise InvalidInput("NO_SUCH_COMMIT", "--git needs git, which is not installed.")
    done = subprocess.run(
        [git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InvalidInput(
            "NO_SUCH_COMMIT",
            f"{revision[:80]!r} is no commit of a git repository here. {done.stderr.strip()}",
            "Run it inside the repository, with a revision it has: --git HEAD.",
        )
    return done.stdout.strip()


def checkpoint(
    name: Name,
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Its name.")],
    git: Annotated[
        str | None,
        typer.Option("--git", metavar="REVISION", help="Record this commit: HEAD."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Name the state of now, to return to it later.

    It holds every commit that has returned.

    Example: pagestore checkpoint app before-migration --git HEAD
    """
    with session(data, as_json) as run:
        commit = git_commit(git) if git else ""
        made = run.control.checkpoint(name, checkpoint, commit)
        lsn = format_lsn(made.lsn)
        run.answer(
            {"name": name, **checkpoint_fields(made)},
            "",
            f"checkpoint {made.name} of {name} at {lsn}",
        )


def restore(
    name: Name,
    point: Annotated[
        str | None, typer.Argument(metavar="[POINT]", help="A checkpoint, LSN or time.")
    ] = None,
    at: At = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put a database back to a point of its past, under the same name and URL.

    Connections are closed. What the database was is kept as an automatic checkpoint.

    Example: pagestore restore app before-migration
    """
    with session(data, as_json) as run:
        if (point is None) == (at is None):
            raise InvalidInput(
                "POINT_REQUIRED",
                "A restore needs one point to go to.",
                "pagestore restore NAME CHECKPOINT, or --at with an LSN or a time.",
            )
        target = point_message(point or at)
        if target is None:
            raise InvalidInput("POINT_REQUIRED", "The head is where the database is already.")
        _moved(run, run.control.restore(name, target))


def undo(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Undo what was just done to a database.

    If something was committed since the last checkpoint (or since the last restore or undo),
    the database goes back to that. Otherwise the last restore or undo is itself undone. What
    the database was is kept as an automatic checkpoint, so nothing is lost.

    Example: pagestore undo app
    """
    with session(data, as_json) as run:
        _moved(run, run.control.undo(name))


def _moved(run: Session, done: pb.RestoreResponse) -> None:
    fields = {**database_fields(done.database), "kept": checkpoint_fields(done.kept)}
    fields["summary"] = done.summary
    run.answer(fields, done.database.url, done.summary)


def log(name: Name, data: Data = None, as_json: Json = False) -> None:
    """List a database's checkpoints and what happened to it, newest first.

    Example: pagestore log app
    """
    with session(data, as_json) as run:
        entries = run.control.log(name)
        if as_json:
            run.answer({"name": name, "entries": [_entry_fields(entry) for entry in entries]})
            return
        run.table(("when", "what", "LSN", "git", "remark"), [_entry_row(e) for e in entries])


def _entry_fields(entry: pb.LogEntry) -> dict[str, Any]:
    if entry.WhichOneof("entry") == "checkpoint":
        return {"type": "checkpoint", **checkpoint_fields(entry.checkpoint)}
    event = entry.event
    return {
        "type": "event",
        "verb": event.verb,
        "timeline_id": event.timeline_id.hex(),
        "lsn": format_lsn(event.lsn),
        "created_at": timestamp(event.unix_micros),
        "detail": event.detail or None,
    }


def _entry_row(entry: pb.LogEntry) -> tuple[str, str, str, str, str]:
    if entry.WhichOneof("entry") == "checkpoint":
        made = entry.checkpoint
        when = short_time(made.created_unix_micros)
        what = f"checkpoint {made.name}"
        return when, what, format_lsn(made.lsn), made.git_commit[:12] or "-", made.note or "-"
    event = entry.event
    when = short_time(event.unix_micros)
    return when, event.verb, format_lsn(event.lsn), "-", event.detail or "-"
