"""Two ordered streams of rows, laid beside each other. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["inserted", "updated", "deleted"]


class Row(NamedTuple):
    """``key`` orders rows, as bytes do; ``row`` is all of it."""

    key: str
    row: str


class ChangedRow(NamedTuple):
    kind: Kind
    before: str | None
    after: str | None


@dataclass
class TableDifference:
    """From one database to the other.

    Args:
        rows: the first of those that differ.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    rows: list[ChangedRow] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.inserted + self.updated + self.deleted

    def note(self, kind: Kind, before: str | None, after: str | None, limit: int) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.rows) < limit:
            self.rows.append(ChangedRow(kind, before, after))


async def compare(
    ours: AsyncIterator[Row], theirs: AsyncIterator[Row], limit: int
) -> TableDifference:
    """What makes `theirs` of `ours`.

    Args:
        limit: of rows that are told one by one.
    """
    found = TableDifference()
    # Each sorts before it tells the first: both at once, and where one fails, nobody is left who
    # still reads of the other.
    firsts = await asyncio.gather(_next(ours), _next(theirs), return_exceptions=True)
    a, b = (_row(first) for first in firsts)
    while a is not None or b is not None:
        if b is None or (a is not None and _order(a) < _order(b)):
            assert a is not None
            found.note("deleted", a.row, None, limit)
            a = await anext(ours, None)
        elif a is None or _order(b) < _order(a):
            found.note("inserted", None, b.row, limit)
            b = await anext(theirs, None)
        else:
            if a.row != b.row:
                found.note("updated", a.row, b.row, limit)
            a, b = await anext(ours, None), await anext(theirs, None)
    return found


async def _next(rows: AsyncIterator[Row]) -> Row | None:
    return await anext(rows, None)


def _row(first: Row | BaseException | None) -> Row | None:
    if isinstance(first, BaseException):
        raise first
    return first


def _order(row: Row) -> bytes:
    return row.key.encode()
