"""What the client knows, as tools answer it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pagestore.client.points import lasting
from pagestore.ids import format_lsn
from pagestore.mcp import answers
from pagestore.mcp.desk import Place
from pagestore.sdk import sql
from pagestore.sdk.client import AsyncClient
from pagestore.sdk.values import Checkpoint, Event, Facts, Move, moment_fields


def database(facts: Facts, url: str) -> answers.Database:
    return answers.Database(
        name=facts.name,
        parent=facts.parent,
        lsn=facts.lsn,
        state=facts.compute,
        postgres=facts.postgres,
        own_bytes=facts.physical_bytes,
        created_at=facts.created_at.isoformat(),
        expires_at=facts.expires_at.isoformat() if facts.expires_at else None,
        url=url,
    )


def moment(entry: Checkpoint | Event) -> answers.Moment:
    return answers.Moment(**moment_fields(entry))


def checkpoint(made: Checkpoint) -> answers.Checkpoint:
    return answers.Checkpoint(**made.fields())


def moved(done: Move) -> answers.Moved:
    return answers.Moved(
        changed=done.changed,
        summary=done.summary,
        kept=done.kept.name if done.kept else None,
        went_to=checkpoint(done.went_to) if done.went_to else None,
    )


def rows(ran: sql.Ran, lsn: str | None, continuation: str | None) -> answers.Rows:
    return answers.Rows(
        columns=ran.columns,
        rows=ran.rows,
        statements=ran.statements,
        at_lsn=lsn,
        more=ran.more,
        cut=ran.cut,
        continuation=continuation,
    )


async def place(client: AsyncClient, name: str, at: str | None) -> Place:
    """Where a point of a database's past is."""
    found = await client.resolve(name, at)
    return Place(format_lsn(found.lsn), lasting(at, found.lsn), found.timeline_id.hex())


@dataclass
class Room:
    """For as many items as there are bytes for, in JSON; how many were left out."""

    bytes: int
    left_out: int = 0

    def of(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        taken = []
        for item in items:
            size = len(json.dumps(item, default=str).encode())
            if size <= self.bytes:
                self.bytes -= size
                taken.append(item)
            else:
                self.left_out += 1
        return taken
