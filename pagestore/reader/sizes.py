"""What a snapshot knows besides relation blocks: lengths, databases, SLRU segments, counters.

Plain functions over a snapshot at an LSN. Metadata values are whole (docs/formats/keyspace.md),
so nothing here needs redo but the transaction status pages, whose patches the core applies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pagestore import keyspace
from pagestore._native import RedoPool, Snapshot
from pagestore.errors import DataLoss, NotFound
from pagestore.ids import format_lsn
from pagestore.keyspace import Key, Kind
from pagestore.pg_control_values import unpack_counters, unpack_settings
from pagestore.pgformat.layout import PAGE_SIZE
from pagestore.pgformat.slru import PAGES_PER_SEGMENT
from pagestore.v1 import page_pb2 as pb

GLOBAL_SPACE, GLOBAL_DATABASE = 1664, 0
_U32 = struct.Struct("<I")
_ROW = struct.Struct("<5I")


class Relation(NamedTuple):
    spc: int
    db: int
    rel: int
    fork: int
    nblocks: int


def _number(raw: bytes, key: Key) -> int:
    if len(raw) != 4:
        raise DataLoss("LAYER_CORRUPT", f"The value of {key} has {len(raw)} bytes, not 4.")
    return int(_U32.unpack(raw)[0])


def rel_size(snapshot: Snapshot, lsn: int, key: Key) -> int | None:
    """Blocks of the relation fork of a REL_SIZE key; None where it does not exist."""
    raw = snapshot.get(key.pack(), lsn)
    return None if raw is None else _number(raw, key)


def packed_relations(
    snapshot: Snapshot, lsn: int, bounds: tuple[bytes, bytes] | None = None
) -> bytes:
    """Every relation fork (or those within `bounds`), ascending, as rows of five numbers."""
    return bytes(snapshot.relations(*(bounds or keyspace.kind_range(Kind.REL_SIZE)), lsn))


def relations(
    snapshot: Snapshot, lsn: int, bounds: tuple[bytes, bytes] | None = None
) -> list[Relation]:
    """The same, unpacked."""
    return [Relation(*row) for row in _ROW.iter_unpack(packed_relations(snapshot, lsn, bounds))]


def databases(snapshot: Snapshot, lsn: int) -> list[tuple[int, int, int]]:
    """(tablespace, database, flags) of every database directory, ascending; database 0 is a
    tablespace of a user's own."""
    found = []
    for raw_key, raw in snapshot.scan(*keyspace.kind_range(Kind.DATABASE), lsn):
        key = Key.unpack(raw_key)
        found.append((key.spc, key.db, _number(raw, key)))
    return found


def db_size(snapshot: Snapshot, lsn: int, db_oid: int) -> int:
    """Bytes of all relation forks of a database; 0 is the shared one.

    Raises:
        NotFound: DATABASE_NOT_FOUND.
    """
    known = databases(snapshot, lsn)
    if db_oid == GLOBAL_DATABASE:
        spaces = {GLOBAL_SPACE}
    elif not any(db == db_oid for _, db, _ in known):
        raise NotFound(
            "DATABASE_NOT_FOUND", f"No database has the oid {db_oid} at {format_lsn(lsn)}."
        )
    else:
        spaces = {spc for spc, db, _ in known if db in (0, db_oid)}
    return sum(
        relation.nblocks * PAGE_SIZE
        for spc in spaces
        for relation in relations(
            snapshot, lsn, keyspace.database_range(Kind.REL_SIZE, spc, db_oid)
        )
    )


def slru_segments(snapshot: Snapshot, lsn: int, slru: int) -> Iterator[tuple[int, int]]:
    """(segment, pages) of an SLRU, ascending."""
    low = Key(Kind.SLRU_SIZE, slru).pack()
    high = Key(Kind.SLRU_SIZE, slru + 1).pack()
    for raw_key, raw in snapshot.scan(low, high, lsn):
        key = Key.unpack(raw_key)
        yield key.block, _number(raw, key)


def slru_segment(
    snapshot: Snapshot, lsn: int, slru: int, segment: int, redo: RedoPool | None
) -> bytes:
    """All pages of a segment.

    Raises:
        NotFound: SEGMENT_NOT_FOUND.
        DataLoss: a size that no segment can have.
    """
    key = keyspace.slru_size(slru, segment)
    raw = snapshot.get(key.pack(), lsn)
    if raw is None:
        raise NotFound(
            "SEGMENT_NOT_FOUND", f"SLRU {slru} has no segment {segment:X} at {format_lsn(lsn)}."
        )
    pages = _number(raw, key)
    if pages > PAGES_PER_SEGMENT:
        raise DataLoss("LAYER_CORRUPT", f"The value of {key} says {pages} pages.")
    first = segment * PAGES_PER_SEGMENT
    keys = b"".join(keyspace.slru_page(slru, first + i).pack() for i in range(pages))
    return snapshot.read_pages(keys, lsn, redo) if keys else b""


def counters(snapshot: Snapshot, lsn: int) -> pb.ControlCounters:
    """
    Raises:
        DataLoss: CONTROL_MISSING.
    """
    return unpack_counters(_control(snapshot, lsn, keyspace.COUNTERS))


def settings(snapshot: Snapshot, lsn: int) -> pb.ControlSettings:
    """
    Raises:
        DataLoss: CONTROL_MISSING.
    """
    return unpack_settings(_control(snapshot, lsn, keyspace.SETTINGS))


def _control(snapshot: Snapshot, lsn: int, key: Key) -> bytes:
    raw = snapshot.get(key.pack(), lsn)
    if raw is None:
        raise DataLoss("CONTROL_MISSING", f"Nothing is stored for {key} at {format_lsn(lsn)}.")
    return raw
