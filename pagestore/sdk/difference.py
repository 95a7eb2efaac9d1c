"""What differs between two databases, asked through a client of the control plane."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pagestore.client.page import AsyncPageClient
from pagestore.client.urls import past_url
from pagestore.difference.databases import Difference, Side, difference
from pagestore.difference.rows import TableDifference
from pagestore.difference.tables import TableName
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.postgres import majors
from pagestore.v1 import control_pb2 as pb

if TYPE_CHECKING:
    from pagestore.sdk.client import AsyncClient


class Told(NamedTuple):
    """A side as the control plane tells it."""

    database: pb.Database
    point: pb.ResolvePointResponse | None = None
    """Of its past; None: as it is."""
    words: str = ""
    """By which a URL leads to that point."""


async def difference_of(
    client: AsyncClient,
    ours: Told,
    theirs: Told,
    limit: int,
    *,
    whole: bool,
    pg_dump: Path | None,
) -> Difference:
    """As :meth:`AsyncClient.diff`: of two databases, each with a point of its past or as it is."""
    program = pg_dump or majors.latest_programs(majors.BINDIR) / "pg_dump"
    address = (await client.system_status()).page_server_address
    async with AsyncPageClient(address, credentials=client.credentials) as pages:
        one, other = _side(client, ours), _side(client, theirs)
        return await difference(pages, one, other, program, limit, whole=whole)


def _side(client: AsyncClient, told: Told) -> Side:
    database, point, words = told
    tenant = TenantId(database.tenant_id)
    if point is not None:
        lsn = point.lsn
        return Side(
            f"{database.name} at {format_lsn(lsn)}",
            past_url(database.url, words),
            tenant,
            TimelineId(point.timeline_id),
            lambda: lsn,
            is_past=True,
        )
    loop = asyncio.get_running_loop()

    def head() -> int:  # from another thread
        resolved = asyncio.run_coroutine_threadsafe(client.resolve(database.name), loop)
        return resolved.result().lsn

    return Side(
        database.name,
        database.url,
        tenant,
        TimelineId(database.timeline_id),
        head,
    )


def fields_of(found: Difference) -> dict[str, Any]:
    """For programs, as JSON has them."""
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
