"""Verbs on databases: create, branch, ls, show, rename, rm, url, psql, start, stop."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pagestore.cli.session import (
    Data,
    Json,
    Name,
    compute_state,
    database_fields,
    human_bytes,
    point_message,
    session,
    short_time,
)
from pagestore.errors import FailedPrecondition
from pagestore.ids import format_lsn

At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="POINT",
        help="LSN (0/16B3748), time (2026-11-23T10:15, '10 minutes ago'), checkpoint, or head.",
    ),
]
IfNotExists = Annotated[
    bool, typer.Option("--if-not-exists", help="Succeed when it exists already.")
]


def create(
    name: Name, if_not_exists: IfNotExists = False, data: Data = None, as_json: Json = False
) -> None:
    """Make an empty database and print its URL.

    Example: pagestore create app
    """
    with session(data, as_json) as run:
        database = run.control.create(name, if_not_exists=if_not_exists)
        remark = f"created {database.name}" if database.created else f"{database.name} exists"
        run.answer(database_fields(database), database.url, remark)


def branch(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The database to branch.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new database.")],
    at: At = None,
    if_not_exists: IfNotExists = False,
    stopped: Annotated[bool, typer.Option("--stopped", help="Do not start it.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a database that begins as another one was at a point of its past.

    Its cost does not depend on the size of the source. Without --at the point is the last
    commit of now.

    Example: pagestore branch app try-2 --at before-migration
    """
    with session(data, as_json) as run:
        database = run.control.branch(
            source,
            name,
            point_message(at),
            if_not_exists=if_not_exists,
            leave_stopped=stopped,
        )
        where = format_lsn(database.branch_lsn)
        made = f"branched {source} at {where}" if database.created else f"{name} exists"
        run.answer(database_fields(database), database.url, made)


def ls(data: Data = None, as_json: Json = False) -> None:
    """List databases.

    Example: pagestore ls
    """
    with session(data, as_json) as run:
        databases = run.control.databases()
        if as_json:
            run.answer({"databases": [database_fields(database) for database in databases]})
            return
        rows = [
            (
                database.name,
                compute_state(database),
                database.parent or "-",
                format_lsn(database.lsn),
                human_bytes(database.physical_bytes),
                short_time(database.created_unix_micros),
            )
            for database in databases
        ]
        run.table(("name", "compute", "parent", "LSN", "own bytes", "created"), rows)


def show(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Show everything about a database.

    Example: pagestore show app
    """
    with session(data, as_json) as run:
        database = run.control.get(name)
        fields = {**database_fields(database), "wal_bytes": database.wal_bytes}
        fields["compute_dir"] = database.compute_dir or None
        if as_json:
            run.answer(fields)
            return
        run.table(
            ("field", "value"),
            [(key, str(value)) for key, value in fields.items() if value is not None],
        )


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Databases.")],
    if_exists: Annotated[
        bool, typer.Option("--if-exists", help="Succeed when there is none.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Delete databases, with their checkpoints. Branches of them stay whole.

    Example: pagestore rm try-1 try-2
    """
    with session(data, as_json) as run:
        deleted = [name for name in names if run.control.delete(name, if_exists=if_exists)]
        run.answer({"deleted": deleted}, "", f"deleted {', '.join(deleted) or 'nothing'}")


def rename(
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its name from now on.")],
    if_exists: Annotated[
        bool, typer.Option("--if-exists", help="Succeed when there is no such database.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give a database another name. Its URL, connections and checkpoints stay.

    Example: pagestore rename try-2 app-next
    """
    with session(data, as_json) as run:
        done = run.control.rename(name, new_name, if_exists=if_exists)
        found = done.HasField("database")
        fields = database_fields(done.database) if found else {"name": new_name}
        remark = f"renamed {name} to {new_name}" if done.changed else f"there is no {name}"
        run.answer({**fields, "changed": done.changed}, done.database.url, remark)


def url(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Print the connection URL, which stays the same for the database's life.

    Example: psql "$(pagestore url app)"
    """
    with session(data, as_json) as run:
        database = run.control.get(name, brief=True)
        run.answer({"name": database.name, "url": database.url}, database.url)


def psql(
    name: Name,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]", help="Passed on to psql.")
    ] = None,
    data: Data = None,
) -> None:
    """Open psql on a database, starting it if it is stopped.

    Example: pagestore psql app -- -c 'SELECT 1'
    """
    with session(data, False) as run:
        database = run.control.wake(name)
        program = run.installation.config.computes.postgres_bindir / "psql"
        try:
            os.execv(program, ["psql", database.url, *(arguments or [])])  # noqa: S606
        except FileNotFoundError as error:
            raise FailedPrecondition(
                "PSQL_MISSING", f"There is no {program}.", "apt-get install postgresql-client-15"
            ) from error


def start(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Start a database's Postgres, unless it runs.

    Example: pagestore start app
    """
    with session(data, as_json) as run:
        database = run.control.wake(name)
        run.answer(database_fields(database), database.url, f"{database.name} runs")


def stop(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Databases.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Stop the Postgres of databases cleanly; their data stays.

    Example: pagestore stop try-1 try-2
    """
    with session(data, as_json) as run:
        stopped = [database_fields(run.control.stop(name)) for name in names]
        run.answer({"stopped": stopped}, "", f"stopped {', '.join(names)}")
