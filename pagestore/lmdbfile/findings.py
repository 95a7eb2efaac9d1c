"""The check of a whole LMDB file before LMDB maps it, in one native pass.

The pass (native/core/lmdbfile) reads page by page, in memory that does not grow with the file and
without the GIL: half a second for a million entries. ``pages`` is the same in plain Python.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from pagestore import _native
from pagestore.lmdbfile.pages import Damaged

Name = tuple[bytes, bytes]
"""Table (empty: in none) and key."""


class Seal(IntEnum):
    """How an entry's owner has sealed its value: as native/core/lmdbfile/check.h has it."""

    NONE = 0
    CRC32C_BEHIND = 1
    CRC32_BEFORE = 2


class Findings(NamedTuple):
    """What a file has, whose structure holds.

    ``unsealed`` is the first entry whose seal does not hold; ``values`` are of the entries that
    were asked for, ``value_before`` of the first of them in the transaction before. ``total`` is
    over all entries but that first one (`whole.entry_hash`); ``loose`` are in no table.
    """

    transaction: int
    before: int
    entries: int
    loose: int
    total: int
    unsealed: Name | None
    values: list[bytes | None]
    value_before: bytes | None
    tables: frozenset[bytes]


def check_file(
    path: Path, seal: Seal, asked: Sequence[Name], seal_version: int = 0
) -> Findings | None:
    """None where there is no file, or nothing in it: what a crash leaves of one never used.

    Args:
        asked: the first says what the sum over the others is.

    Raises:
        Damaged. OSError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(descriptor).st_size == 0:
            return None
        found = _native.lmdb_check(descriptor, seal, seal_version, tuple(asked))
    except _native.NativeError as error:
        raise Damaged(None, error.args[1]) from error
    finally:
        os.close(descriptor)
    return Findings(
        transaction=found.transaction,
        before=found.before,
        entries=found.entries,
        loose=found.loose,
        total=int.from_bytes(found.total, "little"),
        unsealed=found.unsealed,
        values=found.values,
        value_before=found.value_before,
        tables=frozenset(found.tables),
    )
