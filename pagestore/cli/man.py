"""``pagestore man``: the manual page, made of what the verbs themselves say."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from typing import Any

_HEAD = """\
.TH PAGESTORE 1 "" "pagestore {version}" "User Commands"
.SH NAME
pagestore \\- Postgres databases as cheap as files, and undone as easily
.SH SYNOPSIS
.B pagestore
.I VERB
[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]
.SH DESCRIPTION
A database is a pointer into a versioned page store: to create, branch, restore or undo one takes a
moment, whatever its size. A Postgres process exists only while a database is awake.
.PP
Results go to standard output, remarks and errors to standard error; with \\fB\\-\\-json\\fR
standard output has one JSON object.
"""
_TAIL = """\
.SH EXIT STATUS
0 done; 1 failed otherwise; 2 wrong usage; 3 no such thing; 4 exists already, or not possible in
this state; 5 not running, or no answer in time; 6 a limit or the disk is full; 7 damaged data; 8 no
token, or one that does not open this.
.SH ENVIRONMENT
.TP
.B PAGESTORE_DATA
The data directory.
.TP
.B PAGESTORE_TENANT
Whose databases.
.TP
.BR PAGESTORE_TOKEN ", " PAGESTORE_TOKEN_FILE
What is shown to the parts; by default the operator's token of the data directory.
"""


def man() -> None:
    """Print the manual page: troff, as `man` takes it.

    Example: pagestore man > /usr/local/share/man/man1/pagestore.1
    """
    sys.stdout.write(page())


def page() -> str:
    """All verbs that are shown, by their panels."""
    from typer.main import get_command

    from pagestore.cli.main import PANELS, app

    group: Any = get_command(app)
    commands: dict[str, Any] = group.commands
    parts = [_HEAD.format(version=_text(version("pagestore")))]
    for panel, verbs in PANELS.items():
        shown = [name for name in verbs if not commands[name].hidden]
        if shown:
            parts.append(f".SH {_text(panel.upper())}\n")
        parts += [_verb(name, commands[name]) for name in shown]
    return "".join([*parts, _TAIL])


def _verb(name: str, command: Any) -> str:
    import click

    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f".SS {_text(name)}", f".B pagestore {_text(name)}", _text(usage)]
    for paragraph in re.split(r"\n\s*\n", command.help or ""):
        lines += [".PP", _text(" ".join(paragraph.split()))]
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None:
            lines += [".TP", f"\\fB{_text(record[0])}\\fR", _text(record[1])]
    return "\n".join(lines) + "\n"


def _text(words: str) -> str:
    """As troff reads it: nothing in it is a request, and what stands in backquotes is bold."""
    safe = words.replace("\\", "\\e").replace("-", "\\-")
    safe = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", safe)
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
