"""The replication slots of a timeline, as of an LSN, and what else decoding needs besides WAL.

A compute logs every state of a slot that it makes durable (native/postgres/shim/slots.c), and
Postgres itself logs where the rewrite of a catalog has moved rows to. What is written here came
from a tenant's server: what does not have the right form is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pagestore import keyspace
from pagestore._native import Snapshot
from pagestore.errors import DataLoss
from pagestore.keyspace import Key, Kind
from pagestore.layers.native import store_errors
from pagestore.pgformat.slot_state import SlotState, snapshot_path, state_path

_HEAD = struct.Struct("<64sII")
_REWRITE = struct.Struct("<IIII4xQI4xQ")
"""The rewriting transaction, then xl_heap_rewrite_mapping of ``access/heapam_xlog.h``."""
_MAPPING_BYTES = 36
_MAX_MAPPING_FILE = 1 << 30


@dataclass(frozen=True, slots=True)
class StoredSlot:
    """``snapshot``: of the transactions running at its restart_lsn, or empty."""

    state: SlotState
    snapshot: bytes


def replication_slots(snapshot: Snapshot, lsn: int) -> list[StoredSlot]:
    """Of users, by name.

    Raises:
        Unavailable: IO_ERROR, OBJECT_STORE_UNAVAILABLE. DataLoss: LAYER_CORRUPT.
    """
    with store_errors():
        stored = snapshot.scan(*keyspace.kind_range(Kind.SLOT), lsn)
    found = [slot for _, value in stored if (slot := _parse(bytes(value))) is not None]
    return sorted(found, key=lambda slot: slot.state.name)


def oldest_needed(slots: list[StoredSlot]) -> int | None:
    """The LSN from which on the slots need WAL; None where none does."""
    return min((slot.state.restart_lsn for slot in slots if slot.state.restart_lsn), default=None)


def decoding_files(snapshot: Snapshot, lsn: int) -> Iterator[tuple[str, bytes]]:
    """(path, content) of all files in pg_replslot and pg_logical that a data directory has. Raises
    as `replication_slots`."""
    slots = replication_slots(snapshot, lsn)
    for slot in slots:
        yield state_path(slot.state.name), slot.state.pack()
    yield from {
        snapshot_path(slot.state.restart_lsn): slot.snapshot for slot in slots if slot.snapshot
    }.items()
    oldest = oldest_needed([slot for slot in slots if slot.state.is_logical])
    if oldest is not None:
        yield from _mapping_files(snapshot, lsn, oldest)


def _parse(value: bytes) -> StoredSlot | None:
    if len(value) < _HEAD.size:
        return None
    name, state_length, snapshot_length = _HEAD.unpack_from(value)
    end = _HEAD.size + state_length
    try:
        state = SlotState.parse(value[_HEAD.size : end], "in the page store")
    except DataLoss:
        return None
    if state.name.encode() != name.rstrip(b"\0"):
        return None
    return StoredSlot(state, value[end : end + snapshot_length])


def _mapping_files(snapshot: Snapshot, lsn: int, oldest: int) -> Iterator[tuple[str, bytes]]:
    """Of the rewrites that began at or after `oldest`: Postgres keeps no others either."""
    files: dict[str, bytearray] = {}
    low = Key(Kind.REWRITE, oldest >> 32, oldest & 0xFFFFFFFF).pack()
    with store_errors():
        stored = snapshot.scan(low, Key(Kind.REWRITE + 1).pack(), lsn)
    for _, raw in stored:
        value = bytes(raw)
        xid, mapped_xid, db, rel, offset, count, start = _REWRITE.unpack_from(value)
        data = value[_REWRITE.size : _REWRITE.size + count * _MAPPING_BYTES]
        path = (
            f"pg_logical/mappings/map-{db:x}-{rel:x}-{start >> 32:X}_{start & 0xFFFFFFFF:X}"
            f"-{mapped_xid:x}-{xid:x}"
        )
        file = files.setdefault(path, bytearray())
        if start >= oldest and offset == len(file) < _MAX_MAPPING_FILE:
            file += data
    for path, content in files.items():
        if content:
            yield path, bytes(content)
