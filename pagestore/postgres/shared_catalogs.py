"""Reads two shared catalogs without a server: who is superuser, which database to enter.

A cluster that was imported need not have a role or a database named ``postgres``, and until
somebody connects, nobody can be asked. So the heap pages of pg_authid and pg_database are
read as they lie. At a start nothing runs, so a row is live if its inserter committed and its
deleter did not: hint bits say so, or pg_xact does.

Sources: ``access/htup_details.h``, ``catalog/pg_authid.h``, ``catalog/pg_database.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pagestore.errors import FailedPrecondition

PG_AUTHID = 1260
PG_DATABASE = 1262
BOOTSTRAP_SUPERUSER = 10

_LINE_POINTERS_AT = 24
_NORMAL = 1
_XMIN_COMMITTED, _XMIN_INVALID = 0x0100, 0x0200
_XMAX_COMMITTED, _XMAX_INVALID, _XMAX_IS_MULTI = 0x0400, 0x0800, 0x1000
_XMAX_LOCK_ONLY = 0x0080
_HAS_NULL = 0x0001
_COLUMN_COUNT = 0x07FF
_HEADER = 23
"""Bytes of a tuple's header, behind which the null bitmap stands."""
_ROLE = struct.Struct("<I64s?xxx?")  # oid, rolname, rolsuper, ..., rolcanlogin
_DATABASE = struct.Struct("<I64sIic??")  # ..., datistemplate, datallowconn
_FIRST_NORMAL_XID = 3

Committed = Callable[[int], bool]


class Entry(NamedTuple):
    """How to enter a cluster over its Unix socket."""

    superuser: str
    database: str


def find_entry(authid: Iterable[bytes], database: Iterable[bytes], committed: Committed) -> Entry:
    """From the heap pages of pg_authid and pg_database.

    Args:
        committed: whether a transaction id has committed, by pg_xact.

    Raises:
        FailedPrecondition: NO_ENTRY; no superuser may log in, or no database takes sessions.
    """
    roles = [_ROLE.unpack_from(row) for row in live_rows(authid, committed)]
    supers = sorted(
        (oid != BOOTSTRAP_SUPERUSER, oid, name)
        for oid, name, is_super, can_login in roles
        if is_super and can_login and not breaks_lines(name)
    )
    databases = [_DATABASE.unpack_from(row) for row in live_rows(database, committed)]
    open_ones = sorted(
        (_text(name) != "postgres", is_template, oid, name)
        for oid, name, _, _, _, is_template, allows in databases
        if allows
    )
    if not supers or not open_ones:
        raise FailedPrecondition(
            "NO_ENTRY",
            "The cluster has no superuser that may log in."
            if not supers
            else "The cluster has no database that accepts connections.",
        )
    return Entry(_text(supers[0][-1]), _text(open_ones[0][-1]))


def find_databases(pages: Iterable[bytes], committed: Committed) -> frozenset[str]:
    """The names of those inside, from the heap pages of pg_database."""
    rows = (_DATABASE.unpack_from(row) for row in live_rows(pages, committed))
    return frozenset(_text(row[1]) for row in rows)


def live_rows(pages: Iterable[bytes], committed: Committed) -> Iterator[bytes]:
    """The user data of every live row, from its first column on."""
    return (data for _, data in live_tuples(pages, committed))


def live_tuples(
    pages: Iterable[bytes], committed: Committed
) -> Iterator[tuple[frozenset[int], bytes]]:
    """Which columns are null, counted from 0, and the user data, of every live row."""
    for page in pages:
        (lower,) = struct.unpack_from("<H", page, 12)
        for at in range(_LINE_POINTERS_AT, min(lower, len(page)), 4):
            (pointer,) = struct.unpack_from("<I", page, at)
            offset, state, length = pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17
            row = page[offset : offset + length]
            if state == _NORMAL and len(row) > _HEADER and _is_live(row, committed):
                yield _nulls(row), row[row[22] :]


def _nulls(row: bytes) -> frozenset[int]:
    mask2, mask = struct.unpack_from("<HH", row, 18)
    if not mask & _HAS_NULL:
        return frozenset()
    columns = mask2 & _COLUMN_COUNT
    bitmap = row[_HEADER:]
    return frozenset(n for n in range(columns) if not bitmap[n // 8] >> n % 8 & 1)


def _is_live(row: bytes, committed: Committed) -> bool:
    xmin, xmax = struct.unpack_from("<II", row)
    (mask,) = struct.unpack_from("<H", row, 20)
    inserted = bool(mask & _XMIN_COMMITTED) or (
        not mask & _XMIN_INVALID and (xmin < _FIRST_NORMAL_XID or committed(xmin))
    )
    if not inserted:
        return False
    if mask & (_XMAX_INVALID | _XMAX_LOCK_ONLY) or xmax < _FIRST_NORMAL_XID:
        return True
    return not (mask & (_XMAX_COMMITTED | _XMAX_IS_MULTI) or committed(xmax))


def breaks_lines(name: bytes) -> bool:
    """Such a role cannot be named in pg_hba.conf."""
    return b"\n" in name or b"\r" in name


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode(errors="surrogateescape")
