"""``pagestore agents``: programs that run agents get to know pagestore, and a branch for each of
their subagents."""

from __future__ import annotations

import json
import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli import choosing, harnesses
from pagestore.cli.harnesses import PLACES, Commands, Tool
from pagestore.cli.session import Data, Json, session
from pagestore.client import durations
from pagestore.errors import FailedPrecondition, NotFound, PagestoreError, Unavailable
from pagestore.ids import DEFAULT_TENANT_NAME

if TYPE_CHECKING:
    from pagestore.cli.session import Session

TTL = "1d"
_PREFIX = "agent-"
_LONGEST_ID = 40


class Action(StrEnum):
    INSTALL = "install"
    UNINSTALL = "uninstall"
    HOOK = "hook"


class AtEnd(StrEnum):
    KEEP = "keep"
    DROP = "drop"


def agents(
    action: Annotated[Action, typer.Argument(metavar="install|uninstall", help="What to do.")],
    tool: Annotated[
        Tool, typer.Argument(metavar="claude-code|cursor|codex", help="Whose settings.")
    ],
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="The project's. Default: this one.")
    ] = Path(),
    database: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="What subagents branch. Default: what `git init` has chosen."
        ),
    ] = "",
    at_end: Annotated[
        AtEnd,
        typer.Option("--at-end", help="keep: a branch that was written to stays, for its ttl."),
    ] = AtEnd.KEEP,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Let a program that runs agents know pagestore: tools, a branch per subagent, a short skill.

    What is in its settings stays. To repeat it is harmless.

    Example: pagestore agents install claude-code --database app
    """
    if action is Action.HOOK:
        _hook(database, at_end, data)
        return
    with session(data, as_json) as run:
        project = directory.absolute()
        if not project.is_dir():
            raise NotFound("NO_SUCH_FILE", f"There is no directory {project}.")
        if action is Action.INSTALL:
            _refuse_unknown(run, database)
            commands = _commands(run, tool, database, at_end, named=data is not None)
            changed = harnesses.install(tool, project, commands)
        else:
            changed = harnesses.uninstall(tool, project)
        paths = [str(path) for path in changed]
        hooks = action is Action.INSTALL and bool(PLACES[tool].hooks)
        run.answer(
            {"tool": tool, "directory": str(project), "changed": paths, "hooks": hooks},
            "\n".join(paths),
            "" if paths else "nothing was to be done",
        )
        if paths and action is Action.INSTALL:
            run.remark(f"{tool} knows it from its next start on")


def _refuse_unknown(run: Session, database: str) -> None:
    """One that is misspelt; where nothing runs, nobody knows."""
    if database:
        try:
            run.control.get(database, brief=True)
        except Unavailable:
            run.remark("pagestore does not run: whether there is such a database is not known")


def _commands(run: Session, tool: Tool, database: str, at_end: AtEnd, *, named: bool) -> Commands:
    program = str(Path(sys.argv[0]).absolute())
    where: list[str] = []
    # Whoever starts the program later has not our environment.
    if named or os.environ.get("PAGESTORE_DATA"):
        where += ["--data", str(run.installation.data)]
    tenant = choosing.chosen()
    if tenant != DEFAULT_TENANT_NAME:
        where += ["--tenant", tenant]
    which = ["--database", database] if database else []
    hook = [program, "agents", "hook", tool, *which, "--at-end", at_end, *where]
    return Commands([program, "mcp", *where], hook)


# Hooks


def _hook(database: str, at_end: AtEnd, data: Path | None) -> None:
    """Whatever happens, the agent goes on: an error is a line that it does not wait for."""
    try:
        told: Any = json.loads(sys.stdin.read() or "{}")
        event, agent = str(told.get("hook_event_name", "")), str(told.get("agent_id", ""))
        where = Path(str(told.get("cwd") or "."))
    except (ValueError, AttributeError):
        sys.stderr.write("pagestore: a hook is told of an event by JSON\n")
        return
    name = branch_of(agent)
    if event not in harnesses.EVENTS or not name:
        return
    try:
        with session(data, as_json=False) as run:
            source = database or _followed(where)
            if not source:
                return
            said = (
                _begun(run, source, name)
                if event == harnesses.EVENTS[0]
                else _ended(run, source, name, at_end)
            )
            sys.stdout.write(json.dumps(said) + "\n")
    except typer.Exit:
        return  # what it was stands there already


def branch_of(agent: str) -> str:
    """The name of an agent's branch; empty for an agent that has no id."""
    slug = re.sub(r"[^a-z0-9]+", "-", agent.lower()).strip("-")[:_LONGEST_ID].rstrip("-")
    return _PREFIX + slug if slug else ""


def _followed(directory: Path) -> str:
    """The database that the git repository around a directory has, if it has one."""
    from pagestore.cli.repository import Repository

    try:
        repository = Repository(directory)
    except (PagestoreError, OSError):
        return ""
    return repository.database_of(repository.branch) or repository.database


def _begun(run: Session, source: str, name: str) -> dict[str, Any]:
    made = run.control.branch(source, name, if_not_exists=True, ttl=durations.seconds(TTL))
    run.remark(f"pagestore: {'made' if made.created else 'there is'} {name}")
    words = (
        f"You have a database of your own: `{name}`, a branch of `{source}`, for whatever you do "
        f"there. Tools of the server pagestore take it by that name; a program gets it by "
        f'DATABASE_URL="$(pagestore url {name})". It goes by itself after {TTL}.'
    )
    return {"hookSpecificOutput": {"hookEventName": "SubagentStart", "additionalContext": words}}


def _ended(run: Session, source: str, name: str, at_end: AtEnd) -> dict[str, Any]:
    try:
        there = run.control.get(name, brief=True)
    except NotFound:
        return {}
    if there.parent != source:
        return {}  # a namesake
    if at_end is AtEnd.KEEP and _was_written(run, name):
        kept = f"pagestore diff {source} {name} shows what is in it"
        return {"systemMessage": f"pagestore: {name} was written to and stays for {TTL}; {kept}"}
    run.control.delete(name, if_exists=True)
    return {}


def _was_written(run: Session, name: str) -> bool:
    """Whether anything was committed since it was made, or somebody made a checkpoint of it."""
    log = run.control.log(name)
    if any(entry.HasField("checkpoint") for entry in log):
        return True
    try:
        run.control.undo(name, dry_run=True)
    except FailedPrecondition as error:
        return error.reason == "NO_MARK"  # commits, and no checkpoint to go back to
    return False
