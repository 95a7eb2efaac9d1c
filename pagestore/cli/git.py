"""Databases that follow a git repository: ``pagestore git`` and ``pagestore checkout``.

A branch of the repository has a branch of the database, made when it is first checked out; `.env`
says where it is. A commit is a checkpoint. Hooks do that by themselves, and whatever goes wrong
in one, git goes on: what was missed is caught up with by `git sync`.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pagestore.cli import dirty
from pagestore.cli.past import DryRun, moved_fields, request_of, retryable, say_what_goes_along
from pagestore.cli.repository import ENV_FILE, HOOKS, Repository, database_for
from pagestore.cli.session import Data, Json, session, short_time
from pagestore.client.companions import Companions
from pagestore.errors import (
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PagestoreError,
    PermissionDenied,
)
from pagestore.ids import TenantId

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.v1 import control_pb2 as pb

MIGRATIONS = "migrations"
HOOK_SECONDS = 15.0
"""For which git waits for one answer of the control plane; what does not come, `git sync` does."""
_SHORT = 12
_NO_COMMIT = "0" * 40


class Action(StrEnum):
    INIT = "init"
    SYNC = "sync"
    STATUS = "status"
    PRUNE = "prune"
    DOCTOR = "doctor"
    HOOK = "hook"


def git(
    action: Annotated[
        Action, typer.Argument(metavar="init|sync|status|prune|doctor", help="What to do.")
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[DATABASE]", help="init: whose branches follow.")
    ] = None,
    migrations: Annotated[
        str, typer.Option(metavar="PATH", help="init: warn where files below it change.")
    ] = MIGRATIONS,
    env_file: Annotated[
        str, typer.Option(metavar="NAME", help="init: the file that says DATABASE_URL.")
    ] = ENV_FILE,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Let a database's branches follow those of the git repository around here.

    From `init` on each git branch has a database of its own, made at the first checkout, and .env
    points at it; each commit is a checkpoint.

    Example: pagestore git init app
    """
    given = arguments or []
    if action is Action.HOOK:
        _hook(given, data)
        return
    repository_data = None if data is not None else _noted_data()
    with session(data or repository_data, as_json) as run:
        repository = Repository(Path.cwd())
        match action:
            case Action.INIT:
                _init(run, repository, given, migrations, env_file)
            case Action.SYNC:
                _answer_sync(run, repository)
            case Action.STATUS:
                _status(run, repository)
            case Action.PRUNE:
                _prune(run, repository)
            case _:
                _doctor(run, repository)


def _noted_data() -> Path | None:
    """The data directory that `init` noted; what hinders that is told by the verb itself."""
    try:
        noted = Repository(Path.cwd()).noted("data")
    except PagestoreError:
        return None
    return Path(noted) if noted else None


def _init(
    run: Session, repository: Repository, given: list[str], migrations: str, env_file: str
) -> None:
    if Path(env_file).name != env_file:
        raise InvalidInput("INVALID_OPTIONS", "--env-file names a file at the worktree's top.")
    if len(given) != 1:
        raise InvalidInput(
            "DATABASE_REQUIRED",
            "It has to be said which database follows this repository.",
            "pagestore git init app",
        )
    branch = repository.branch
    if not branch:
        raise FailedPrecondition(
            "NO_BRANCH", "No branch is checked out.", "git switch to the one that has the database."
        )
    database = run.control.get(given[0], reveal=True)
    repository.note("database", database.name)
    repository.note("data", str(run.installation.data))
    repository.note("migrations", migrations)
    repository.note("env-file", env_file)
    repository.tell(database.url)
    repository.note_database(branch, database.name)
    program = Path(sys.argv[0]).absolute()
    for name in HOOKS:
        try:
            repository.add_hook(name, program)
        except FailedPrecondition as foreign:
            run.remark(f"{foreign.message} {foreign.hint}")
    if not _has_checkpoint(run, database.name, repository.commit("HEAD")):
        _committed(run, repository)
    run.answer(
        {"database": database.name, "branch": branch, "env_file": str(repository.env_file)},
        "",
        f"{branch} has {database.name}; other branches get one when they are checked out",
    )


def _has_checkpoint(run: Session, database: str, commit: str) -> bool:
    return any(entry.checkpoint.git_commit == commit for entry in run.control.log(database))


def _answer_sync(run: Session, repository: Repository) -> None:
    database, made = _sync(run, repository)
    if database is None:
        run.answer({"branch": None, "database": None}, "", "no branch is checked out")
        return
    words = "made" if made else "in place"
    run.answer(
        {"branch": repository.branch, "database": database.name, "made": made},
        database.name,
        f"{database.name} of {repository.branch} is {words}; {repository.env_file} names it",
    )


def _sync(run: Session, repository: Repository) -> tuple[pb.Database | None, bool]:
    """The database of the branch that is checked out, made where there is none; whether it was."""
    base, branch = _base(repository), repository.branch
    if not branch:
        return None, False
    name = repository.database_of(branch)
    made = False
    if not name:
        name = database_for(base, branch, taken={*repository.databases().values()})
        # As git's branch begins where one stood, so does the database's.
        here = _database_told(repository) or base
        made = run.control.branch(here, name, if_not_exists=True).created
        repository.note_database(branch, name)
    database = run.control.get(name, reveal=True)
    repository.tell(database.url)
    return database, made


def _base(repository: Repository) -> str:
    base = repository.database
    if not base:
        raise FailedPrecondition(
            "NO_DATABASE",
            f"No database follows the repository {repository.top}.",
            "pagestore git init NAME",
        )
    return base


def _database_told(repository: Repository) -> str:
    """Of those that follow the repository, the one that `.env` named last."""
    from urllib.parse import unquote, urlsplit

    named = unquote(urlsplit(repository.told).path.rpartition("/")[2])
    return named if named in repository.databases().values() else ""


def _status(run: Session, repository: Repository) -> None:
    base = _base(repository)
    there = {item.name: item for item in run.control.databases()}
    branches, current = repository.branches, repository.branch
    rows = []
    for branch, database in sorted(repository.databases().items()):
        state = "there" if database in there else "gone"
        state = state if branch in branches else f"{state}; its git branch is gone"
        rows.append((branch, database, "*" if branch == current else "", state))
    fields = [dict(zip(("branch", "database", "current", "state"), r, strict=True)) for r in rows]
    run.answer({"database": base, "branches": fields})
    if not run.as_json:
        run.table(("git branch", "database", "", "state"), rows)


def _prune(run: Session, repository: Repository) -> None:
    base, branches = _base(repository), repository.branches
    noted = sorted(repository.databases().items())
    needed = {base, *(database for branch, database in noted if branch in branches)}
    removed = []
    for branch, database in noted:
        if branch in branches:
            continue
        if database not in needed and run.control.delete(database, if_exists=True):
            removed.append(database)
        repository.forget(branch)
    patches = _let_patches_go(run, repository)
    words = f"{len(removed)} removed, {len(patches)} commits of what was not committed let go"
    fields = {"removed": removed, "let_go": patches}
    run.answer(fields, "\n".join(removed), words)


def _let_patches_go(run: Session, repository: Repository) -> list[str]:
    """Those that no checkpoint names any more, of whatever database; git's own cleaning has the
    rest to do."""
    held = dirty.held(repository.top)
    gone = sorted(held - _named_patches(run)) if held else []
    dirty.let_go(repository.top, gone)
    return gone


def _named_patches(run: Session) -> set[str]:
    control, ours = run.control, run.control.tenant
    named: set[str] = set()
    try:
        for tenant in _tenants(run):
            control.tenant = tenant
            for database in control.databases():
                named |= {entry.checkpoint.dirty_patch for entry in control.log(database.name)}
    finally:
        control.tenant = ours
    return named


def _tenants(run: Session) -> list[TenantId]:
    """All: whose databases may have checkpoints of this repository. To whom they are not told, its
    own."""
    from pagestore.client.tenants import TenantClient

    try:
        return [TenantId(item.tenant_id) for item in TenantClient(run.control).tenants()]
    except PermissionDenied:
        return [run.control.tenant]


def _doctor(run: Session, repository: Repository) -> None:
    """What keeps databases from following; exit code 1 where something does."""
    base = _base(repository)
    there = {item.name for item in run.control.databases()}
    faults = [
        f"the hook {name} is missing: pagestore git init {base}"
        for name in HOOKS
        if not repository.has_hook(name)
    ]
    if base not in there:
        faults.append(f"there is no database {base}")
    if not repository.hides_env_file:
        faults.append(f"git would commit {repository.env_file}, which has a password")
    database = repository.database_of(repository.branch)
    if repository.branch and not database:
        faults.append(f"{repository.branch} has no database yet: pagestore git sync")
    elif database and _database_told(repository) != database:
        faults.append(f"{repository.env_file} does not name {database}: pagestore git sync")
    run.answer({"faults": faults}, "\n".join(faults), "all is well" if not faults else "")
    if faults:
        raise typer.Exit(1)


# Hooks


def _hook(given: list[str], data: Path | None) -> None:
    """Says in a line what it did, or could not do; git never waits for more, nor fails by it."""
    name, rest = (given[0], given[1:]) if given else ("", [])
    try:
        with session(data or _noted_data(), as_json=False) as run:
            repository = Repository(Path.cwd())
            if name == "post-commit":
                _committed(run, repository)
            elif name == "post-checkout" and rest[2:] != ["1"]:
                return  # of files
            else:
                _switched(run, repository, rest)
    except typer.Exit:
        return  # what it was stands there already


def _committed(run: Session, repository: Repository) -> None:
    database = repository.database_of(repository.branch)
    commit = repository.commit("HEAD")
    if not database or not commit:
        return
    patch = ""
    try:
        patch = dirty.kept_dirty(repository.top)
    except PagestoreError as error:
        run.remark(f"pagestore: what is not committed is not in the checkpoint: {error.message}")
    companions = Companions(commit, patch)
    run.control.timeout = HOOK_SECONDS
    made = run.control.checkpoint(database, f"git-{commit[:_SHORT]}", companions)
    dirty.hold(repository.top, patch)
    run.remark(f"pagestore: checkpoint {made.name} of {database}")


def _switched(run: Session, repository: Repository, rest: list[str]) -> None:
    if not repository.database:
        return
    run.control.timeout = HOOK_SECONDS
    database, made = _sync(run, repository)
    if database is not None:
        run.remark(f"pagestore: {'made ' if made else ''}{database.name} for {repository.branch}")
    before = rest[0] if len(rest) > 1 else repository.commit("ORIG_HEAD")
    after = rest[1] if len(rest) > 1 else repository.commit("HEAD")
    if not before or before in (_NO_COMMIT, after):
        return
    # The database of a branch knows its own migrations; a merge brings others'.
    if len(rest) > 1 and not made:
        return
    path = repository.noted("migrations") or MIGRATIONS
    changed = repository.changed(before, after, path)
    if changed:
        run.remark(f"pagestore: {len(changed)} files below {path} differ: migrate the database")


# The past by commits


def checkout(
    commit: Annotated[str, typer.Argument(metavar="COMMIT", help="HEAD~2, a hash, a tag, ...")],
    request_id: Annotated[str | None, typer.Option("--request-id", hidden=True)] = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put the database of this git branch to where it was at a commit. The code stays.

    Where no checkpoint was made with that commit, the nearest one before it is taken, and named.

    Example: pagestore checkout HEAD~2
    """
    with session(data or _noted_data(), as_json) as run:
        repository = Repository(Path.cwd())
        database = repository.database_of(repository.branch)
        if not database:
            _base(repository)
            raise NotFound(
                "NO_DATABASE",
                f"Branch {repository.branch or 'HEAD'} has no database.",
                "pagestore git sync",
            )
        wanted = repository.known_commit(commit)
        found = _nearest(run, repository, database, wanted)
        request = request_of(request_id)
        from pagestore.v1 import control_pb2 as pb

        with retryable(request):
            done = run.control.restore(
                database, pb.Point(checkpoint=found.name), request_id=request, dry_run=dry_run
            )
        run.answer(moved_fields(done, request, dry_run=dry_run), "", done.summary)
        say_what_goes_along(run, done)
        if found.git_commit != wanted:
            when = short_time(found.created_unix_micros)
            run.remark(f"the nearest checkpoint is of {found.git_commit[:_SHORT]}, of {when}")


def _nearest(run: Session, repository: Repository, database: str, wanted: str) -> pb.Checkpoint:
    """The latest checkpoint of a commit, or of the nearest of its ancestors that has one."""
    of_commit: dict[str, pb.Checkpoint] = {}
    name: str = database
    seen: set[str] = set()
    while name and name not in seen:
        seen.add(name)
        for entry in run.control.log(name):
            made = entry.checkpoint
            if entry.WhichOneof("entry") == "checkpoint" and made.git_commit:
                of_commit.setdefault(made.git_commit, made)
        name = run.control.get(name, brief=True).parent
    for ancestor in repository.ancestors(wanted):
        if ancestor in of_commit:
            return of_commit[ancestor]
    raise NotFound(
        "CHECKPOINT_NOT_FOUND",
        f"Neither {wanted[:_SHORT]} nor a commit before it is a checkpoint of {database}.",
        "`pagestore log` lists checkpoints with their commits; from `git init` on each has one.",
    )
