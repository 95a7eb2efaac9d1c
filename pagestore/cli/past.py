"""Verbs on a database's past: checkpoint, restore, reset, undo, redo, log."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli.databases import At, time_to_live
from pagestore.cli.session import (
    Data,
    Json,
    Name,
    checkpoint_fields,
    database_fields,
    point_message,
    session,
    timestamp,
)
from pagestore.cli.watching import watchable
from pagestore.client.companions import Companions, notes_of
from pagestore.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Unavailable,
)
from pagestore.ids import format_lsn

if TYPE_CHECKING:
    from pagestore.cli.repository import Repository
    from pagestore.cli.session import Session
    from pagestore.v1 import control_pb2 as pb


MOST_COMMITS = 1000
"""That `log --git` shows."""
_SHORT = 12
"""Digits of a commit's hash, for people."""


def checkpoint(
    name: Name,
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Its name.")],
    git: Annotated[
        str | None,
        typer.Option("--git", metavar="REVISION", help="Record this commit: HEAD."),
    ] = None,
    run_id: Annotated[
        str, typer.Option("--run", metavar="ID", help="Record which run of yours made it.")
    ] = "",
    note: Annotated[
        list[str] | None,
        typer.Option("--note", metavar="KEY=VALUE", help="Record this; may be repeated."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="TIME", help="Forget it by itself after 12h, 30d."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Forget it instead.")] = False,
    if_exists: Annotated[
        bool, typer.Option("--if-exists", help="With --delete: succeed when there is none.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Name the state of now, to return to it later; or, with --delete, forget such a name.

    It holds every commit that has returned. What is recorded with it, a restore says again:
    with --git HEAD also what is not committed there.

    Example: pagestore checkpoint app before-migration --git HEAD --keep 30d
    """
    with session(data, as_json) as run:
        if delete:
            given = git or keep or run_id or note
            _delete_checkpoint(run, name, checkpoint, if_exists=if_exists, given=bool(given))
            return
        code = _code_of(git) if git else None
        companions = _companions(code, git or "", run_id, note or [])
        made = run.control.checkpoint(name, checkpoint, companions, time_to_live(keep))
        if code is not None:
            from pagestore.cli.dirty import hold

            hold(code.top, companions.dirty_patch)
        lsn = format_lsn(made.lsn)
        run.answer(
            {"name": name, **checkpoint_fields(made)},
            "",
            f"checkpoint {made.name} of {name} at {lsn}",
        )


def _companions(code: Repository | None, git: str, run_id: str, notes: list[str]) -> Companions:
    commit, patch = "", ""
    if code is not None:
        from pagestore.cli.dirty import kept_dirty

        commit = code.known_commit(git)
        patch = kept_dirty(code.top) if commit == code.commit("HEAD") else ""
    return Companions(commit, patch, run_id, notes_of(notes))


def _delete_checkpoint(
    run: Session, name: str, checkpoint: str, *, if_exists: bool, given: bool
) -> None:
    if given:
        raise InvalidInput(
            "INVALID_OPTIONS",
            "--git, --run, --note and --keep are of one that is made; --delete forgets one.",
            "Leave out one of them.",
        )
    deleted = run.control.delete_checkpoint(name, checkpoint, if_exists=if_exists)
    remark = f"deleted checkpoint {checkpoint} of {name}" if deleted else "deleted nothing"
    run.answer({"name": name, "checkpoint": checkpoint, "deleted": deleted}, "", remark)


def _code_of(revision: str) -> Repository:
    """
    Raises:
        InvalidInput: NO_SUCH_COMMIT.
    """
    try:
        return _around()
    except NotFound as error:
        raise InvalidInput(
            "NO_SUCH_COMMIT", f"{revision[:80]!r} is no commit of a git repository. {error.message}"
        ) from error


def _around() -> Repository:
    """The repository around here.

    Raises:
        NotFound: NO_REPOSITORY, NO_GIT.
    """
    from pagestore.cli.repository import Repository

    return Repository(Path.cwd())


RequestId = Annotated[
    str | None,
    typer.Option(
        "--request-id",
        metavar="ID",
        help="Yours for this move: sent again, it is the same move. Default: a new one.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say where it would go.")]


def restore(
    name: Name,
    point: Annotated[
        str | None, typer.Argument(metavar="[POINT]", help="A checkpoint, LSN or time.")
    ] = None,
    at: At = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="CHECKPOINT", help="A checkpoint, whatever it reads as."),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of the code: it has to know the checkpoint's commit."),
    ] = None,
    any_commit: Annotated[
        bool, typer.Option("--any-commit", help="Whether a repository knows the commit or not.")
    ] = False,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put a database back to a point of its past, under the same name and URL.

    Connections are closed, also where it is there already. What the database was is kept as an
    automatic checkpoint. Checkpoints of what it was branched from can be named too. What else has
    to go back with it is said: commit, what was not committed, run, notes.

    Example: pagestore restore app before-migration
    """
    with session(data, as_json) as run:
        target = _target(point, at, to)
        code = None if any_commit else _code(name, repository)
        if code is not None:
            _refuse_without_commit(code, run.control.restore(name, target, dry_run=True))
        _move(run, request_id, dry_run, lambda **ask: run.control.restore(name, target, **ask))


def _target(point: str | None, at: str | None, to: str | None) -> pb.Point:
    from pagestore.v1 import control_pb2

    given = [text for text in (point, at, to) if text is not None]
    if len(given) != 1:
        raise InvalidInput(
            "POINT_REQUIRED",
            "A restore needs one point to go to.",
            "pagestore restore NAME CHECKPOINT, or --at with an LSN or a time.",
        )
    target = control_pb2.Point(checkpoint=to) if to is not None else point_message(given[0])
    if target is None:
        raise InvalidInput(
            "POINT_REQUIRED",
            "The head is where the database is already.",
            "Name a checkpoint, an LSN or a time; `pagestore log NAME` lists checkpoints.",
        )
    return target


def reset(
    name: Name,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put a branch to the head of the database that it was branched from.

    Connections are closed. What the branch was is kept as an automatic checkpoint.

    Example: pagestore reset try-2
    """
    with session(data, as_json) as run:
        _move(run, request_id, dry_run, lambda **ask: run.control.reset(name, **ask))


def undo(
    name: Name,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="CHECKPOINT", help="The checkpoint to be at afterwards."),
    ] = None,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Undo what was just done to a database. To type it again is harmless.

    What was committed since the last checkpoint (or since the last restore, reset, undo or redo)
    is undone. Right after a restore, the restore is. It never passes a checkpoint and never
    undoes an undo: `redo` does. What the database was is kept as an automatic checkpoint.

    Example: pagestore undo app
    """
    with session(data, as_json) as run:
        if to == "":
            raise InvalidInput("INVALID_POINT", "An empty --to names no checkpoint.")
        _move(run, request_id, dry_run, lambda **ask: run.control.undo(name, to=to or "", **ask))


def redo(
    name: Name,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Take the last undo back, unless something was committed since.

    Example: pagestore redo app
    """
    with session(data, as_json) as run:
        _move(run, request_id, dry_run, lambda **ask: run.control.redo(name, **ask))


def request_of(given: str | None) -> str:
    """The caller's id of a move, or a new one."""
    return secrets.token_hex(8) if given is None else given


@contextmanager
def retryable(request: str) -> Iterator[None]:
    """Whether a move came about may be unknown, and whoever asks again must not undo it."""
    try:
        yield
    except (Unavailable, DeadlineExceeded) as error:
        same = f"Sent again with --request-id {request} it is the same move."
        hint = f"{error.hint} {same}" if error.hint else same
        raise error.restated(hint=hint) from error


def moved_fields(done: pb.RestoreResponse, request: str, *, dry_run: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        **database_fields(done.database),
        "changed": done.changed,
        "dry_run": dry_run,
        "to": None,
        "kept": checkpoint_fields(done.kept) if done.HasField("kept") else None,
        "request_id": request,
        "summary": done.summary,
        "went_to": checkpoint_fields(done.went_to) if done.HasField("went_to") else None,
    }
    if done.HasField("to"):
        fields["to"] = {"timeline_id": done.to.timeline_id.hex(), "lsn": format_lsn(done.to.lsn)}
    return fields


def _move(
    run: Session, request_id: str | None, dry_run: bool, verb: Callable[..., pb.RestoreResponse]
) -> None:
    request = request_of(request_id)
    with retryable(request):
        done = verb(request_id=request, dry_run=dry_run)
    fields = moved_fields(done, request, dry_run=dry_run)
    run.answer(fields, "" if dry_run else done.database.url, done.summary)
    say_what_goes_along(run, done)


def _code(name: str, given: Path | None) -> Repository | None:
    """The repository that is named, or the one around here if this database follows it."""
    from pagestore.cli.repository import Repository

    if given is not None:
        return Repository(given)
    try:
        around = _around()
    except NotFound:
        return None
    return around if name in (around.database, *around.databases().values()) else None


def _refuse_without_commit(code: Repository, would: pb.RestoreResponse) -> None:
    commit = would.went_to.git_commit
    if commit and not code.commit(commit):
        raise FailedPrecondition(
            "COMMIT_MISSING",
            f"Checkpoint {would.went_to.name} belongs to commit {commit}, "
            f"which {code.top} does not have.",
            "git fetch, or --any-commit to go there all the same.",
        )


def say_what_goes_along(run: Session, done: pb.RestoreResponse) -> None:
    """What else has to go back, as far as the checkpoint knows it."""
    if not done.HasField("went_to"):
        return
    made = done.went_to
    if made.git_commit:
        run.remark(f"the code of then: git switch --detach {made.git_commit[:_SHORT]}")
    if made.dirty_patch:
        run.remark(f"what was not committed: git cherry-pick --no-commit {made.dirty_patch}")
    if made.run_id:
        run.remark(f"the run: {made.run_id}")
    for key, value in sorted(made.notes.items()):
        run.remark(f"note: {key}={value}")


@watchable()
def log(
    name: Name,
    with_git: Annotated[
        bool, typer.Option("--git", help="Beside the commits of the repository around here.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List a database's checkpoints and what happened to it, newest first.

    Its times can be pasted into --at.

    Example: pagestore log app
    """
    with session(data, as_json) as run:
        entries = run.control.log(name)
        commits = _commits() if with_git else []
        if as_json:
            fields = [_entry_fields(entry) for entry in entries]
            fields += [
                {"type": "commit", "git_commit": commit, "created_at": timestamp(at), "what": words}
                for at, commit, words in commits
            ]
            run.answer({"name": name, "entries": fields})
            return
        rows = [(_micros(entry), _entry_row(entry)) for entry in entries]
        for at, commit, words in commits:
            rows.append((at, (timestamp(at), "commit", "-", commit[:12], words)))
        if with_git:
            rows.sort(key=lambda row: row[0], reverse=True)
        run.table(("when", "what", "LSN", "git", "remark"), [row for _, row in rows])


def _commits() -> list[tuple[int, str, str]]:
    """Of the repository around here: Unix microsecond, hash, first line."""
    found = _around().subjects(MOST_COMMITS)
    return [(seconds * 1_000_000, commit, words) for seconds, commit, words in found]


def _micros(entry: pb.LogEntry) -> int:
    if entry.WhichOneof("entry") == "checkpoint":
        return entry.checkpoint.created_unix_micros
    return entry.event.unix_micros


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


def _checkpoint_words(made: pb.Checkpoint) -> str:
    notes = [f"{key}={value}" for key, value in sorted(made.notes.items())]
    run = [f"run {made.run_id}"] if made.run_id else []
    return " ".join([made.note, *run, *notes]).strip()


def _entry_row(entry: pb.LogEntry) -> tuple[str, str, str, str, str]:
    if entry.WhichOneof("entry") == "checkpoint":
        made = entry.checkpoint
        when = timestamp(made.created_unix_micros)
        what = f"checkpoint {made.name}"
        code = made.git_commit[:_SHORT] + ("+" if made.dirty_patch else "")
        return when, what, format_lsn(made.lsn), code or "-", _checkpoint_words(made) or "-"
    event = entry.event
    when = timestamp(event.unix_micros)
    return when, event.verb, format_lsn(event.lsn), "-", event.detail or "-"
