"""The command ``pagestore``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from pagestore.cli import (
    bench,
    border,
    databases,
    lost,
    parts,
    past,
    running,
    safekeepers,
    transfer,
)
from pagestore.cli.verify import verify

app = typer.Typer(
    name="pagestore",
    help="Postgres databases as cheap as files, and undone as easily.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# What stands behind the database is psql's, `--` or not; its -h is psql's, too.
PSQLS = {
    "ignore_unknown_options": True,
    "help_option_names": ["--help"],
}


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"pagestore {version('pagestore')}\n")
        raise typer.Exit


@app.callback()
def pagestore(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say which, and end."),
    ] = False,
) -> None:
    """Postgres databases as cheap as files, and undone as easily."""


def help_(
    verb: Annotated[str | None, typer.Argument(metavar="[VERB]", help="Of this verb.")] = None,
) -> None:
    """Show help, as --help does."""
    app([*([verb] if verb else []), "--help"], prog_name="pagestore", standalone_mode=False)


VERBS: tuple[tuple[str, tuple[Callable[..., None], ...]], ...] = (
    (
        "Everything",
        (running.up, running.down, running.status, safekeepers.safekeepers, lost.lost),
    ),
    (
        "Databases",
        (
            databases.create,
            databases.branch,
            databases.ls,
            databases.show,
            databases.url,
            databases.psql,
            databases.start,
            databases.stop,
            databases.rename,
            databases.rm,
        ),
    ),
    ("The past", (past.checkpoint, past.restore, past.reset, past.undo, past.redo, past.log)),
    ("Parts, each on its own", (parts.pageserver, parts.safekeeper, parts.control)),
)

for panel, verbs in VERBS:
    for verb in verbs:
        settings = PSQLS if verb is databases.psql else None
        app.command(rich_help_panel=panel, context_settings=settings)(verb)
app.command("help", hidden=True)(help_)
app.command("import", rich_help_panel="Moving data")(transfer.import_)
app.command(rich_help_panel="Moving data")(transfer.export)
app.command(rich_help_panel="Measuring")(bench.bench)
app.command(rich_help_panel="The past")(verify)
app.command(hidden=True)(running.supervise)


def main() -> None:
    sys.exit(border.main(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
