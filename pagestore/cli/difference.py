"""``pagestore diff``: what another database has that this one has not, and the other way about."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagestore.cli import completion
from pagestore.cli.session import Data, Json, Name, session
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres import majors

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.difference.databases import Difference, Side
    from pagestore.difference.rows import TableDifference
    from pagestore.difference.tables import TableName

_SIGNS = {"inserted": "+", "deleted": "-", "updated": "~"}


def diff(
    name: Name,
    other: Annotated[
        str,
        typer.Argument(
            metavar="OTHER", help="What it is compared with.", autocompletion=completion.names
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

    Example: pagestore diff app try-2
    """
    with session(data, as_json) as run:
        found = asyncio.run(_difference(run, name, other, rows, whole=whole))
        run.answer({"name": name, "other": other, **_fields(found)}, _words(found))
        if found.is_empty:
            run.remark(f"{other} is as {name} is")
        if exit_code and not found.is_empty:
            raise typer.Exit(1)


async def _difference(
    run: Session, name: str, other: str, limit: int, *, whole: bool
) -> Difference:
    from pagestore.client.page import AsyncPageClient
    from pagestore.difference.databases import difference

    ours, theirs = _side(run, name), _side(run, other)
    program = majors.latest_programs(run.installation.config.computes.postgres_bindir) / "pg_dump"
    async with AsyncPageClient(run.control.system_status().page_server_address) as pages:
        return await difference(pages, ours, theirs, program, limit, whole=whole)


def _side(run: Session, name: str) -> Side:
    from pagestore.difference.databases import Side
    from pagestore.v1 import control_pb2 as pb

    database = run.control.get(name, reveal=True)
    return Side(
        name,
        database.url,
        TenantId(database.tenant_id),
        TimelineId(database.timeline_id),
        lambda: run.control.resolve(name, pb.Point()).lsn,
    )


def _fields(found: Difference) -> dict[str, Any]:
    return {
        "differs": not found.is_empty,
        "schema": [
            {
                "kind": item.what.kind,
                "schema": item.what.schema,
                "name": item.what.name,
                "before": item.before,
                "after": item.after,
            }
            for item in found.schema
        ],
        "tables": [_table_fields(name, table) for name, table in found.tables.items()],
        "only_in_name": [str(name) for name in found.only_ours],
        "only_in_other": [str(name) for name in found.only_theirs],
        "tables_read": found.tables_read,
        "blocks_read": found.blocks_read,
        "changed_blocks_known": found.known_blocks,
    }


def _table_fields(name: TableName, table: TableDifference) -> dict[str, Any]:
    return {
        "schema": name.schema,
        "name": name.name,
        "inserted": table.inserted,
        "updated": table.updated,
        "deleted": table.deleted,
        "rows": [row._asdict() for row in table.rows],
    }


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
