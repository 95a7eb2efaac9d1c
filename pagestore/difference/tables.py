"""Tables, and how their rows are asked for."""

# ruff: noqa: S608 - what is put into queries here is quoted, or a number.

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagestore.difference.session import SqlSession

MOST_ROWS_A_PAGE = 291
"""Of 8 kB; Postgres's MaxHeapTuplesPerPage."""
WHOLE_PART = 0.5
"""Of a table's blocks: where as many were changed, all are read one after another."""
_TABLES = """
COPY (
    SELECT n.nspname, c.relname, coalesce(nullif(c.reltablespace, 0), d.dattablespace), d.oid,
        pg_catalog.pg_relation_filenode(c.oid), pg_catalog.pg_relation_size(c.oid) / 8192,
        (SELECT coalesce(string_agg(pg_catalog.quote_ident(a.attname), ',' ORDER BY a.attnum), '')
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
            WHERE i.indisprimary AND a.attrelid = c.oid AND a.attnum = ANY (i.indkey)),
        c.relam = 2,
        (SELECT coalesce(string_agg(pg_catalog.concat_ws(' ', pg_catalog.quote_ident(a.attname),
                a.atttypid, a.attmissingval), ',' ORDER BY a.attnum), '')
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
        pg_catalog.pg_database d
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND d.datname = current_database()
        AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    ORDER BY 1, 2
) TO STDOUT
"""


class TableName(NamedTuple):
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class Place(NamedTuple):
    """The relation that a table's rows are in."""

    spc: int
    db: int
    rel: int


class Table(NamedTuple):
    """``key``: its primary key's columns, quoted, by commas; empty for none. ``heap``: rows stay in
    the block where they were written. ``columns``: what makes a row of what stands in a block:
    names, types, and values of columns that came later than the row."""

    name: TableName
    place: Place
    blocks: int
    key: str
    heap: bool
    columns: str


async def tables_of(session: SqlSession) -> dict[TableName, Table]:
    found = {}
    for schema, name, spc, db, rel, blocks, key, heap, columns in await session.rows(_TABLES):
        table = TableName(unescaped(schema), unescaped(name))
        place = Place(int(spc), int(db), int(rel))
        found[table] = Table(
            table, place, int(blocks), unescaped(key), heap == "t", unescaped(columns)
        )
    return found


def select_rows(table: Table, blocks: NDArray[np.uint32] | None) -> str:
    """A COPY of rows, ordered: of each its key as text, and all of it as JSON; where there is no
    key, that is the key.

    Args:
        blocks: None for all.
    """
    # With its star it is the row also where a column is called as the table is here.
    of_key = f"ROW({table.key})::text" if table.key else "pg_catalog.row_to_json(t.*)::text"
    where = "" if blocks is None else f" WHERE ctid = ANY (ARRAY({_tids(blocks)}))"
    return (
        f"COPY (SELECT k, r FROM (SELECT {of_key} AS k, pg_catalog.row_to_json(t.*)::text AS r "
        f"FROM ONLY {_quoted(table.name)} AS t{where}) AS s "
        'ORDER BY k COLLATE "C", r COLLATE "C") TO STDOUT'
    )


def _tids(blocks: NDArray[np.uint32]) -> str:
    numbers = ",".join(map(str, blocks.tolist()))
    return (
        f"SELECT ('(' || b || ',' || i || ')')::tid FROM unnest('{{{numbers}}}'::bigint[]) b, "
        f"generate_series(1, {MOST_ROWS_A_PAGE}) AS i"
    )


def blocks_to_read(
    ours: Table, theirs: Table, changed: Sequence[NDArray[np.uint32]] | None
) -> NDArray[np.uint32] | None:
    """Of both tables; None for all. None of them differ: an empty array.

    Args:
        changed: of either since they parted; None where that is not known.
    """
    if changed is None or not (ours.heap and theirs.heap) or ours.place != theirs.place:
        return None
    # A column may come, go and get another name without a block being touched.
    if (ours.columns, ours.key) != (theirs.columns, theirs.key):
        return None
    # Of what lay behind a truncation the page server may know nothing any more.
    behind = np.arange(*sorted((ours.blocks, theirs.blocks)), dtype=np.uint32)
    both = np.unique(np.concatenate([*changed, behind]))
    if len(both) > WHOLE_PART * max(ours.blocks, theirs.blocks, 1):
        return None
    return both


def _quoted(name: TableName) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name)


def unescaped(field: str) -> str:
    """Of COPY's text format."""
    if "\\" not in field:
        return field
    out, characters = [], iter(field)
    for character in characters:
        if character != "\\":
            out.append(character)
            continue
        escaped = next(characters, "\\")
        out.append(_ESCAPES.get(escaped, escaped))
    return "".join(out)


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
