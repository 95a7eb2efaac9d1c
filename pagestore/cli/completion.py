"""What Tab completes: verbs, options, and names of databases.

The shell asks the program itself, by the variable COMPLETE; the scripts that make it ask are
typer's. A name is asked of the control plane, briefly: nobody waits at a prompt for one that is
away, or is told about it.

A name is whatever someone called a database, and zsh evaluates what it is offered: a name that a
shell may read as more than text is not offered. Who has such a database types its name.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from enum import Enum
from typing import Annotated

import typer

from pagestore.client.credentials import default_data_dir

PROGRAM = "pagestore"
COMPLETE = "_PAGESTORE_COMPLETE"
PATIENCE_SECONDS = 1.0
_PLAIN = re.compile(r"[\w.@+ -]+")


class Shell(Enum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Whose script.")]) -> None:
    """Print a shell's script for completion, of verbs, options and names of databases.

    Example: pagestore completion bash > ~/.local/share/bash-completion/completions/pagestore
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE, shell=shell.value)
    sys.stdout.write(script + "\n")


def is_asked() -> bool:
    """Whether a shell asks, rather than a user."""
    return COMPLETE in os.environ


def answer(app: typer.Typer) -> None:
    """Says what could come next, and ends the process."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
    typer.main.get_command(app).main(prog_name=PROGRAM, complete_var=COMPLETE)


def names(incomplete: str) -> list[str]:
    """Of databases that begin so; none where that is not to be had at once."""
    from pagestore.cli import choosing
    from pagestore.client.control import ControlClient
    from pagestore.client.credentials import Credentials
    from pagestore.client.tenants import TenantClient
    from pagestore.ids import TenantId
    from pagestore.installation.layout import Installation

    try:
        data = default_data_dir()
        address = Installation(data).address("control")
        with ControlClient(
            address, timeout=PATIENCE_SECONDS, credentials=Credentials.of_data_dir(data)
        ) as control:
            control.tenant = TenantId(TenantClient(control).get(choosing.chosen()).tenant_id)
            found = [database.name for database in control.databases()]
    except Exception:
        return []
    return offered(found, incomplete, os.environ.get(COMPLETE, ""))


def offered(found: Iterable[str], incomplete: str, asker: str) -> list[str]:
    """What the script of a shell may be told.

    Args:
        asker: what :data:`COMPLETE` says, such as ``complete_bash``, which alone types a name as it
            is offered, without a backslash before a space.
    """
    names = [name for name in found if name.startswith(incomplete) and _PLAIN.fullmatch(name)]
    return [name.replace(" ", "\\ ") for name in names] if asker.endswith("bash") else names
