"""Reads pg_authid without a server: who may log in, and by which verifier.

A database that sleeps has nobody to ask, and who is not authenticated must not wake it. So the
heap pages of pg_authid are read as they lie, at the commit LSN: what CREATE ROLE and ALTER ROLE
did holds from the next login on, whether the database is awake, asleep, or has crashed.

Source: ``catalog/pg_authid.h``; ``access/htup_details.h`` for how columns are laid out.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from pagestore.postgres.shared_catalogs import (
    BOOTSTRAP_SUPERUSER,
    Committed,
    breaks_lines,
    live_tuples,
)

_FIXED = struct.Struct("<I64s7?xi")
"""oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
rolbypassrls, rolconnlimit: none of them is ever null."""
_PASSWORD, _VALID_UNTIL = 10, 11
"""Numbers of columns, from 0."""
MOST_NAMED = 1000
"""The files are read by each new session."""
_PLAIN = re.compile(r"[^\x00-\x1f\x7f/+@\\][^\x00-\x1f\x7f\\]*")
_POSTGRES_EPOCH_MICROS = 946_684_800_000_000
_INFINITY, _MINUS_INFINITY = 2**63 - 1, -(2**63)


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """A row of pg_authid."""

    oid: int
    name: str
    superuser: bool
    can_login: bool
    connection_limit: int
    """Sessions at a time; -1 for no limit."""
    password: str | None = field(repr=False)
    """``rolpassword``: a SCRAM verifier, an md5 hash, or None."""
    valid_until: float | None
    """Unix seconds; None for no end."""

    def expired(self, now: float) -> bool:
        return self.valid_until is not None and self.valid_until < now


def find_roles(pages: Iterable[bytes], committed: Committed) -> dict[str, RoleEntry]:
    """By name, from the heap pages of pg_authid.

    Args:
        committed: whether a transaction id has committed, by pg_xact.
    """
    rows = (_parse(nulls, data) for nulls, data in live_tuples(pages, committed))
    return {row.name: row for row in rows}


def superuser_to_enter_by(roles: Iterable[RoleEntry]) -> str | None:
    """As :func:`pagestore.postgres.shared_catalogs.find_entry` chooses him; None for none."""
    able = (
        role
        for role in roles
        if role.superuser and role.can_login and not breaks_lines(os.fsencode(role.name))
    )
    chosen = min(able, key=lambda role: (role.oid != BOOTSTRAP_SUPERUSER, role.oid), default=None)
    return chosen.name if chosen is not None else None


def roles_to_enter_as(roles: Iterable[RoleEntry], superuser: str) -> list[str]:
    """Those that may log in, besides the superuser, and that pg_hba.conf and pg_ident.conf can name
    in every version: nothing of a name is read there but as a name."""
    names = [role.name for role in roles if role.can_login and role.name != superuser]
    plain = [name for name in names if _PLAIN.fullmatch(name)]
    return sorted(plain)[:MOST_NAMED]


def _parse(nulls: frozenset[int], data: bytes) -> RoleEntry:
    oid, name, superuser, _, _, _, can_login, _, _, limit = _FIXED.unpack_from(data)
    at = _FIXED.size
    password = None
    if _PASSWORD not in nulls:
        password, at = _text(data, at)
    valid_until = None
    if _VALID_UNTIL not in nulls:
        valid_until = _time(data, at)
    return RoleEntry(
        oid,
        name.partition(b"\0")[0].decode(errors="surrogateescape"),
        superuser,
        can_login,
        limit,
        password,
        valid_until,
    )


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A varlena that is neither compressed nor out of line, and where it ends."""
    if data[at] & 1:
        length = data[at] >> 1
        return data[at + 1 : at + length].decode(errors="replace"), at + length
    at += -at % 4
    (header,) = struct.unpack_from("<I", data, at)
    length = header >> 2
    return data[at + 4 : at + length].decode(errors="replace"), at + length


def _time(data: bytes, at: int) -> float | None:
    (micros,) = struct.unpack_from("<q", data, at + -at % 8)
    if micros == _INFINITY:
        return None
    if micros == _MINUS_INFINITY:
        return float("-inf")
    return float(micros + _POSTGRES_EPOCH_MICROS) / 1e6
