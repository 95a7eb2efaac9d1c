"""``pagestore diff``: what another database has that this one has not, and the other way about."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from pagestore.cli import choosing, completion
from pagestore.cli.session import Data, Json, Name, session
from pagestore.postgres import majors

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.difference.databases import Difference

_SIGNS = {"inserted": "+", "deleted": "-", "updated": "~"}


def diff(
    name: Name,
    other: Annotated[
        str,
        typer.Argument(
            metavar="OTHER",
            help="What it is compared with; either may be NAME@POINT, a moment of the past.",
            autocompletion=completion.names,
        ),
    ],
    rows: Annotated[
        int, typer.Option(min=0, help="Rows of a table that are shown one by one.")
    ] = 10,
    whole: Annotated[
        bool, typer.Option("--whole", help="Read all of both, whatever is known to be the same.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 where there is a difference.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show what differs between a database and another: schema, and rows of each table.

    As a way from NAME to OTHER: + is what OTHER has and NAME has not. Of branches, only tables and
    blocks that were changed since they parted are read.

    Example: pagestore diff app@before-migration app
    """
    with session(data, as_json) as run:
        found = asyncio.run(_difference(run, name, other, rows, whole=whole))
        from pagestore.sdk.difference import fields_of

        run.answer({"name": name, "other": other, **fields_of(found)}, _words(found))
        if found.is_empty:
            run.remark(f"{other} is as {name} is")
        if exit_code and not found.is_empty:
            raise typer.Exit(1)


async def _difference(
    run: Session, name: str, other: str, limit: int, *, whole: bool
) -> Difference:
    from pagestore.sdk.client import AsyncClient

    program = majors.latest_programs(run.installation.config.computes.postgres_bindir) / "pg_dump"
    # It says by name what does not run, which a client that waits for it would not.
    address = run.control.address
    async with AsyncClient(address, tenant=choosing.chosen()) as client:
        return await client.diff(name, other, limit, whole=whole, pg_dump=program)


def _words(found: Difference) -> str:
    lines = []
    for item in found.schema:
        lines += [f"schema: {item.what}", *(f"  {line}" for line in item.lines)]
    for name, table in found.tables.items():
        lines.append(
            f"table {name}: {table.inserted} inserted, {table.updated} updated, "
            f"{table.deleted} deleted"
        )
        for row in table.rows:
            shown = row.before if row.after is None else row.after
            lines.append(f"  {_SIGNS[row.kind]} {shown}")
        if table.total > len(table.rows):
            lines.append(f"  ... and {table.total - len(table.rows)} more; --rows shows them")
    return "\n".join(lines)
