"""What Tab completes: verbs, options, and names of databases.

The shell asks the program itself, by the variable COMPLETE; the scripts that make it ask are
typer's. A name is asked of the control plane, briefly: nobody waits at a prompt for one that is
away, or is told about it.
"""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import Annotated

import typer

from pagestore.client.credentials import default_data_dir

PROGRAM = "pagestore"
COMPLETE = "_PAGESTORE_COMPLETE"
PATIENCE_SECONDS = 1.0


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
    return [name for name in found if name.startswith(incomplete)]
