"""The command ``pagestore``."""

from __future__ import annotations

import typer

from pagestore.cli import databases, parts, past, running, transfer

app = typer.Typer(
    name="pagestore",
    help="Postgres databases as cheap as files, and undone as easily.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUNNING = (running.up, running.down, running.status)
DATABASES = (
    databases.create,
    databases.branch,
    databases.ls,
    databases.show,
    databases.url,
    databases.psql,
    databases.start,
    databases.stop,
    databases.rm,
)
PAST = (past.checkpoint, past.restore, past.undo, past.log)
PARTS = (parts.pageserver, parts.safekeeper, parts.control)

for panel, verbs in (
    ("Everything", RUNNING),
    ("Databases", DATABASES),
    ("The past", PAST),
):
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)
app.command("import", rich_help_panel="Moving data")(transfer.import_)
app.command(rich_help_panel="Moving data")(transfer.export)
for verb in PARTS:
    app.command(rich_help_panel="Parts, each on its own")(verb)
app.command(hidden=True)(running.supervise)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
