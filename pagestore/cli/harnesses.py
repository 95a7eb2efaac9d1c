"""Programs that run agents, and the files of a project by which each of them knows pagestore.

What is in those files stays: ours are one server by name, hooks that are known by their command,
and a skill in a folder of its own. So an installation can be repeated, and taken away.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from pagestore import durable
from pagestore.errors import FailedPrecondition

SERVER = "pagestore"
HOOK = "agents hook"
"""In each of our hooks' commands."""
EVENTS = ("SubagentStart", "SubagentStop")
_READABLE = 0o644

SKILL = """\
---
name: pagestore
description: >-
  Postgres databases that branch in milliseconds and can be undone. Use it for anything that reads
  or changes this project's database: migrations, test data, trying several ways, going back.
---

# Databases by pagestore

The server `pagestore` has the tools; the command line has the same verbs (`pagestore help`).

1. Work on a branch, never on the database itself: `create_branch` (milliseconds, whatever its
   size; it goes by itself after a day). If you were told of a branch of your own, take that one.
   A program gets it by `DATABASE_URL="$(pagestore url BRANCH)"`.
2. `checkpoint` what is good, before the next risky step. Say what belongs to it: git commit, run,
   notes.
3. After a change look at what it did: `diff` of database and branch.
4. What went wrong: `undo` goes back to the last checkpoint. Twice is harmless.
5. Where there are several ways: `try` carries each out on a branch of its own.
6. `run_sql` only reads unless `read_only` is false; it reads the past, too (`at`). `explain` with
   `analyze` harms nothing.
7. What is to become the database is a person's to say: name the branch, and
   `pagestore promote DATABASE BRANCH`.
"""


class Tool(StrEnum):
    CLAUDE_CODE = "claude-code"
    CURSOR = "cursor"
    CODEX = "codex"


@dataclass(frozen=True, slots=True)
class Commands:
    """What a tool types.

    Args:
        server: starts the tools.
        hook: at each beginning and end of a subagent.
    """

    server: Sequence[str]
    hook: Sequence[str]


@dataclass(frozen=True, slots=True)
class Places:
    """A tool's files, from the project's folder; empty for what it has not."""

    server: str
    hooks: str
    skill: str


PLACES = {
    Tool.CLAUDE_CODE: Places(
        ".mcp.json", ".claude/settings.json", ".claude/skills/pagestore/SKILL.md"
    ),
    # Its hooks at a subagent's beginning can forbid it, but tell it nothing: a branch that was made
    # there would be nobody's. The skill has each make its own.
    Tool.CURSOR: Places(".cursor/mcp.json", "", ".cursor/skills/pagestore/SKILL.md"),
    Tool.CODEX: Places(
        ".codex/config.toml", ".codex/hooks.json", ".agents/skills/pagestore/SKILL.md"
    ),
}


def install(tool: Tool, project: Path, commands: Commands) -> list[Path]:
    """Writes the tool's files; those that were changed.

    Raises:
        FailedPrecondition: SETTINGS_UNREADABLE; nothing was written.
    """
    entry = {"command": commands.server[0], "args": list(commands.server[1:])}
    hook = {"type": "command", "command": shlex.join(commands.hook)}

    def add_hooks(settings: dict[str, Any]) -> None:
        _remove_hooks(settings)
        for event in EVENTS:
            settings.setdefault("hooks", {}).setdefault(event, []).append({"hooks": [hook]})

    def add_server(settings: dict[str, Any], key: str) -> None:
        settings.setdefault(key, {})[SERVER] = entry

    return _write(_changes(tool, project, add_server, add_hooks, SKILL))


def uninstall(tool: Tool, project: Path) -> list[Path]:
    """Takes away what `install` wrote; files in which nothing else is go, too.

    Raises:
        FailedPrecondition: SETTINGS_UNREADABLE; nothing was written.
    """

    def remove_server(settings: dict[str, Any], key: str) -> None:
        settings.get(key, {}).pop(SERVER, None)
        if not settings.get(key, True):
            del settings[key]

    return _write(_changes(tool, project, remove_server, _remove_hooks, None))


def _changes(
    tool: Tool,
    project: Path,
    server: Callable[[dict[str, Any], str], None],
    hooks: Callable[[dict[str, Any]], None],
    skill: str | None,
) -> dict[Path, str | None]:
    """What each file is to be; None for none. All are read before one is written."""
    places = PLACES[tool]
    wanted: dict[Path, str | None] = {}
    at = project / places.server
    if at.suffix == ".toml":
        wanted[at] = _toml(at, lambda settings: server(settings, "mcp_servers"))
    else:
        wanted[at] = _json(at, lambda settings: server(settings, "mcpServers"))
    if places.hooks:
        wanted[project / places.hooks] = _json(project / places.hooks, hooks)
    wanted[project / places.skill] = skill
    return wanted


def _json(path: Path, change: Callable[[dict[str, Any]], None]) -> str | None:
    try:
        settings = json.loads(path.read_text()) if path.exists() else {}
        if not isinstance(settings, dict):
            raise ValueError("it is no object")
        change(settings)
    except (ValueError, AttributeError, TypeError) as error:
        raise _unreadable(path, error) from error
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n" if settings else None


def _toml(path: Path, change: Callable[[dict[str, Any]], None]) -> str | None:
    try:
        settings = tomlkit.parse(path.read_text() if path.exists() else "")
        change(settings)
    except (TOMLKitError, AttributeError, TypeError) as error:
        raise _unreadable(path, error) from error
    return tomlkit.dumps(settings) if settings or settings.as_string().strip() else None


def _unreadable(path: Path, error: Exception) -> FailedPrecondition:
    return FailedPrecondition(
        "SETTINGS_UNREADABLE",
        f"{path} is not as its tool would have it: {error}",
        "Mend it, or move it aside. Nothing was written.",
    )


def _remove_hooks(settings: dict[str, Any]) -> None:
    events = settings.get("hooks", {})
    for event in EVENTS:
        for group in events.get(event, []):
            group["hooks"] = [item for item in group.get("hooks", []) if not _is_ours(item)]
        left = [group for group in events.get(event, []) if group["hooks"]]
        events[event] = left
        if not left:
            del events[event]
    if not events:
        settings.pop("hooks", None)


def _is_ours(hook: dict[str, Any]) -> bool:
    command = str(hook.get("command", ""))
    return SERVER in command and HOOK in command


def _write(wanted: dict[Path, str | None]) -> list[Path]:
    changed = []
    for path, text in wanted.items():
        if text == (path.read_text() if path.exists() else None):
            continue
        changed.append(path)
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = path.stat().st_mode & 0o777 if path.exists() else _READABLE
            durable.replace(path, text.encode(), mode=mode)
            continue
        path.unlink()
        if path.name == "SKILL.md" and not [*path.parent.iterdir()]:
            path.parent.rmdir()
    return changed
