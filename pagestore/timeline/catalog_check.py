"""Checks a catalog file before LMDB maps it: pages, entries, the whole, and its age.

LMDB checks none of this (pagestore/lmdbfile says why that matters). The check costs half a
microsecond an entry, once at open.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.lmdbfile import whole, witness
from pagestore.lmdbfile.findings import Seal, check_file
from pagestore.lmdbfile.pages import Damaged
from pagestore.lmdbfile.whole import Whole
from pagestore.lmdbfile.witness import Fault
from pagestore.timeline import entries
from pagestore.timeline.entries import corrupt, unpack_format, unpack_needs, unpack_whole

_REASONS = {
    Fault.GONE: "CATALOG_CORRUPT",
    Fault.OLDER: "CATALOG_OLDER",
    Fault.FOREIGN: "CATALOG_FOREIGN",
}


class Checked(NamedTuple):
    """What the newest transaction says; of format 1, which says no more than its number, what
    it would have said."""

    whole: Whole
    version: int


def check_catalog(path: Path) -> Checked | None:
    """None where there is no file, or none was ever written to.

    Raises:
        DataLoss: CATALOG_CORRUPT, naming the file and what does not hold; CATALOG_OLDER,
            CATALOG_FOREIGN: it is whole, but not the one that was written last.
        FailedPrecondition: CATALOG_VERSION.
    """
    try:
        checked = _checked(path)
    except Damaged as error:
        raise corrupt(str(path), str(error)) from error
    identified = checked is not None and checked.version > 1
    complaint = witness.complaint(path, checked.whole if checked else None, identified=identified)
    if complaint is not None and not witness.acceptance_file(path).exists():
        raise DataLoss(
            _REASONS[complaint.fault],
            f"{complaint.words}.",
            "Put the newest catalog back; no layer file was touched. To go on with this one, "
            "`pagestore lost --accept pageserver`: layers it does not name are kept aside.",
        )
    return checked


def _checked(path: Path) -> Checked | None:
    where = str(path)
    asked = [(b"", entries.GENERATION_KEY), (b"", entries.FORMAT_KEY), (b"", entries.NEEDS_KEY)]
    found = check_file(path, Seal.CRC32C_BEHIND, asked)
    if found is None or found.entries + len(found.tables) == 0:
        return None
    said, format_, needs = found.values
    # First: of a newer format nothing else can be said.
    version = _checked_version(format_, needs, where) if format_ is not None else None
    if found.unsealed is not None:
        raise corrupt(where, f"the checksum of entry {found.unsealed[1].hex()} is wrong")
    if found.tables:
        raise corrupt(where, "it has a table, which no catalog has")
    if said is None or version is None:
        raise corrupt(where, "it has no format version or generation")
    says = _says(said, where)
    if version == 1:
        says = Whole(says.transaction, os.urandom(16), found.total)
    before = found.value_before if found.before else None
    whole.check(found, says, _says(before, where) if before else None)
    return Checked(says, version)


def _checked_version(value: bytes, needs: bytes | None, where: str) -> int:
    version = unpack_format(value, where)
    if not 1 <= version <= entries.FORMAT_VERSION:
        reader = f"pagestore {unpack_needs(needs, where)}" if needs else "the version that wrote it"
        raise FailedPrecondition(
            "CATALOG_VERSION",
            f"{where} has format {version}, which needs {reader}; this one reads formats up to "
            f"{entries.FORMAT_VERSION}.",
            "Use that version, or a later one.",
        )
    return version


def _says(value: bytes, where: str) -> Whole:
    """Of format 1, only the transaction."""
    if len(value) == entries.GENERATION_1_BYTES:
        return Whole(entries.unpack_generation(value, where), bytes(16), 0)
    return unpack_whole(value, where)
