"""The command ``pagestore``.

Only the module of the verb that is typed is loaded, and only its options are read: a verb that asks
the control plane one question answers in little more time than importing gRPC takes. Such a verb
holds nothing but a connection, so nothing of it is collected, and nothing torn down at the end.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer

from pagestore.cli import border, completion
from pagestore.cli.choosing import for_tenant


class Verb(NamedTuple):
    module: str
    function: str = ""
    """The verb's own name by default."""
    hidden: bool = False
    psqls: bool = False
    """What stands behind the database is psql's, `--` or not; its -h is psql's, too."""


_PSQLS = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
PANELS: dict[str, dict[str, Verb]] = {
    "Everything": {
        "up": Verb("running"),
        "down": Verb("running"),
        "status": Verb("running"),
        "recover": Verb("recover"),
        "safekeepers": Verb("safekeepers"),
        "lost": Verb("lost"),
        "service": Verb("service"),
        "keys": Verb("keys"),
        "certificate": Verb("certificate"),
    },
    "Databases": {
        "create": Verb("databases"),
        "branch": Verb("databases"),
        "try": Verb("attempts", "try_"),
        "keep": Verb("databases"),
        "ls": Verb("databases"),
        "show": Verb("databases"),
        "url": Verb("databases"),
        "psql": Verb("databases", psqls=True),
        "start": Verb("databases"),
        "stop": Verb("databases"),
        "rename": Verb("databases"),
        "detach": Verb("databases"),
        "rm": Verb("databases"),
        "tenant": Verb("tenants"),
        "settings": Verb("settings"),
        "idle": Verb("settings"),
        "password": Verb("settings"),
        "role": Verb("roles"),
    },
    "Seeing": {
        "console": Verb("console"),
        "usage": Verb("usage"),
        "top": Verb("seeing"),
        "metrics": Verb("seeing"),
    },
    "The past": {
        "checkpoint": Verb("past"),
        "restore": Verb("past"),
        "reset": Verb("past"),
        "promote": Verb("attempts"),
        "diff": Verb("difference"),
        "undo": Verb("past"),
        "redo": Verb("past"),
        "upgrade": Verb("upgrade"),
        "retention": Verb("settings"),
        "log": Verb("past"),
        "verify": Verb("verify"),
    },
    "Truth at rest": {
        "scrub": Verb("inspecting"),
        "inspect": Verb("inspecting"),
    },
    "Parts, each on its own": {
        "pageserver": Verb("parts"),
        "safekeeper": Verb("parts"),
        "compute": Verb("parts"),
        "control": Verb("parts"),
        "proxy": Verb("parts"),
        "exporter": Verb("parts"),
    },
    "With git": {
        "git": Verb("git"),
        "checkout": Verb("git"),
    },
    "With agents": {
        "mcp": Verb("mcp"),
        "agents": Verb("agents"),
    },
    "Moving data": {
        "import": Verb("transfer", "import_"),
        "export": Verb("transfer"),
    },
    "Measuring": {"bench": Verb("bench")},
    "This command line": {"completion": Verb("completion"), "man": Verb("man")},
    "": {
        "supervise": Verb("running", hidden=True),
        "help": Verb("main", "help_", hidden=True),
    },
}

_ASKING = frozenset(
    {
        "attempts",
        "databases",
        "difference",
        "settings",
        "past",
        "lost",
        "tenants",
        "roles",
        "usage",
        "seeing",
    }
)
"""Modules of verbs that ask the control plane, and answer."""
_OF_TENANTS = frozenset(
    {
        "agents",
        "attempts",
        "databases",
        "difference",
        "mcp",
        "settings",
        "past",
        "transfer",
        "verify",
        "roles",
        "upgrade",
        "usage",
        "seeing",
        "console",
    }
)
"""Modules of verbs on a tenant's databases, which take --tenant."""


def build(typed: Sequence[str]) -> typer.Typer:
    """The application for a command line: with all verbs, unless it names one."""
    made = typer.Typer(
        name="pagestore",
        help="Postgres databases as cheap as files, and undone as easily.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_everywhere)
    only = typed[0] if typed and any(typed[0] in verbs for verbs in PANELS.values()) else None
    for panel, verbs in PANELS.items():
        for name, verb in verbs.items():
            if only not in (None, name):
                continue
            module = importlib.import_module(f"pagestore.cli.{verb.module}")
            function = getattr(module, verb.function or name)
            if verb.module in _OF_TENANTS:
                function = for_tenant(function)
            made.command(
                name,
                rich_help_panel=panel or None,
                hidden=verb.hidden,
                context_settings=_PSQLS if verb.psqls else None,
            )(function)
    return made


def __getattr__(name: str) -> Any:
    """`app`, with all verbs; made when it is first asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()["app"] = build([])
    return made


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"pagestore {version('pagestore')}\n")
        raise typer.Exit


def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Postgres databases as cheap as files, and undone as easily."""


def help_(
    verb: Annotated[str | None, typer.Argument(metavar="[VERB]", help="Of this verb.")] = None,
) -> None:
    """Show help, as --help does."""
    words = [verb] if verb else []
    build(words)([*words, "--help"], prog_name="pagestore", standalone_mode=False)


def main() -> None:
    if completion.is_asked():
        completion.answer(build([]))
    words = sys.argv[1:]
    asks = bool(words) and any(
        verbs[words[0]].module in _ASKING for verbs in PANELS.values() if words[0] in verbs
    )
    if asks:
        gc.disable()
    code = border.main(build(words), words)
    if asks:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
