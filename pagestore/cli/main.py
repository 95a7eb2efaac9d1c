"""The command ``pagestore``."""

from __future__ import annotations

from collections.abc import Callable

import typer

from pagestore.cli import bench, databases, lost, parts, past, running, safekeepers, transfer
from pagestore.cli.verify import verify

app = typer.Typer(
    name="pagestore",
    help="Postgres databases as cheap as files, and undone as easily.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
        app.command(rich_help_panel=panel)(verb)
app.command("import", rich_help_panel="Moving data")(transfer.import_)
app.command(rich_help_panel="Moving data")(transfer.export)
app.command(rich_help_panel="Measuring")(bench.bench)
app.command(rich_help_panel="The past")(verify)
app.command(hidden=True)(running.supervise)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
