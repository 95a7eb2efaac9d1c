"""The catalog's keys and values, byte by byte. docs/formats/catalog.md draws them.

Each value ends with the CRC-32C of its key and its body, so that a flipped bit, or a value
under another's key, is found where it is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Any, Self

from pagestore._native import LayerSummary, crc32c, layer_filter_bytes
from pagestore.errors import DataLoss
from pagestore.ids import Lsn, TenantId, TimelineId
from pagestore.lmdbfile.whole import Whole

FORMAT_VERSION = 3
NEEDS = "0.1.0 of 2026-11-30"
"""The first pagestore that reads this format; the catalog tells it to those that do not."""
FORMAT_KEY = b"f"
GENERATION_KEY = b"g"
NEEDS_KEY = b"n"
LAYER = b"l"
TIMELINE = b"t"
"""What keys of layers and of timelines begin with."""

_CRC = struct.Struct("<I")
_FORMAT = struct.Struct("<I")
_GENERATION = struct.Struct("<Q")
_TIMELINE = struct.Struct("<B16sQQQqQII")
_LAYER = struct.Struct("<BBBBI18s18sQQIIQ")
_LAYER_2 = struct.Struct("<B18s18sQQQQQ")
_CHILD = struct.Struct("<Q")
_HORIZON = struct.Struct("<QB16sq")
_REPLACED = struct.Struct("<B")
_WINDOW = struct.Struct("<QQ")
_LEASE = struct.Struct("<Q")
_FILTER_LINE_BYTES = 32
_NONE = bytes(16)
GENERATION_1_BYTES = _GENERATION.size + _CRC.size


def timeline_key(tenant: TenantId, timeline: TimelineId) -> bytes:
    return TIMELINE + tenant.raw + timeline.raw


def child_key(tenant: TenantId, parent: TimelineId, child: TimelineId) -> bytes:
    return b"c" + tenant.raw + parent.raw + child.raw


def layer_key(tenant: TenantId, timeline: TimelineId, number: int) -> bytes:
    return LAYER + tenant.raw + timeline.raw + number.to_bytes(8, "big")


def layer_of(key: bytes) -> tuple[TenantId, TimelineId, int]:
    """Whose layer a key is of."""
    return TenantId(key[1:17]), TimelineId(key[17:33]), int.from_bytes(key[33:], "big")


def horizon_key(tenant: TenantId, timeline: TimelineId) -> bytes:
    return b"h" + tenant.raw + timeline.raw


def lease_key(tenant: TenantId, timeline: TimelineId, lsn: int) -> bytes:
    return b"e" + tenant.raw + timeline.raw + lsn.to_bytes(8, "big")


def window_key(tenant: TenantId, timeline: TimelineId) -> bytes:
    return b"w" + tenant.raw + timeline.raw


def point_key(tenant: TenantId, timeline: TimelineId, lsn: int) -> bytes:
    return b"k" + tenant.raw + timeline.raw + lsn.to_bytes(8, "big")


def replaced_key(tenant: TenantId, timeline: TimelineId, number: int) -> bytes:
    return b"d" + tenant.raw + timeline.raw + number.to_bytes(8, "big")


def seal(key: bytes, body: bytes) -> bytes:
    return body + _CRC.pack(crc32c(body, crc32c(key)))


def unseal(key: bytes, value: bytes, where: str) -> bytes:
    """The body of a sealed value.

    Raises:
        DataLoss: CATALOG_CORRUPT: the value is not what was written under this key.
    """
    body, crc = value[:-4], value[-4:]
    if len(value) < 4 or _CRC.pack(crc32c(body, crc32c(key))) != crc:
        raise corrupt(where, f"the checksum of entry {key.hex()} is wrong")
    return body


def corrupt(where: str, what: str) -> DataLoss:
    return DataLoss(
        "CATALOG_CORRUPT", f"{where}: {what}.", "Restore the catalog; nothing of it was used."
    )


def unpack(layout: struct.Struct, key: bytes, value: bytes, where: str) -> tuple[Any, ...]:
    body = unseal(key, value, where)
    if len(body) != layout.size:
        raise corrupt(where, f"entry {key.hex()} has {len(body)} bytes, not {layout.size}")
    return layout.unpack(body)


def pack_format() -> bytes:
    return seal(FORMAT_KEY, _FORMAT.pack(FORMAT_VERSION))


def unpack_format(value: bytes, where: str) -> int:
    (version,) = unpack(_FORMAT, FORMAT_KEY, value, where)
    return int(version)


def pack_needs() -> bytes:
    return seal(NEEDS_KEY, NEEDS.encode())


def unpack_needs(value: bytes, where: str) -> str:
    return unseal(NEEDS_KEY, value, where).decode(errors="replace")


def pack_whole(whole: Whole) -> bytes:
    return seal(GENERATION_KEY, whole.pack())


def unpack_whole(value: bytes, where: str) -> Whole:
    return Whole.unpack(unseal(GENERATION_KEY, value, where))


def unpack_generation(value: bytes, where: str) -> int:
    """The transaction, which is all that format 1 says."""
    (transaction,) = unpack(_GENERATION, GENERATION_KEY, value, where)
    return int(transaction)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """What is durable of a timeline. LSNs are WAL positions; ``created`` is Unix microseconds."""

    parent: TimelineId | None
    branch_lsn: Lsn
    disk_consistent_lsn: Lsn
    prev_record_lsn: Lsn
    created: int
    layer_bytes: int = 0
    layer_count: int = 0
    next_number: int = 1
    deleted: bool = False  # hidden: its children still read through it

    def pack(self, key: bytes) -> bytes:
        body = _TIMELINE.pack(
            self.deleted,
            self.parent.raw if self.parent else _NONE,
            self.branch_lsn,
            self.disk_consistent_lsn,
            self.prev_record_lsn,
            self.created,
            self.layer_bytes,
            self.layer_count,
            self.next_number,
        )
        return seal(key, body)

    @classmethod
    def unpack(cls, key: bytes, value: bytes, where: str) -> Self:
        deleted, parent, branch, disk, prev, created, size, count, number = unpack(
            _TIMELINE, key, value, where
        )
        return cls(
            parent=None if parent == _NONE else TimelineId(parent),
            branch_lsn=branch,
            disk_consistent_lsn=disk,
            prev_record_lsn=prev,
            created=created,
            layer_bytes=size,
            layer_count=count,
            next_number=number,
            deleted=bool(deleted),
        )

    def with_layer(self, number: int, size: int) -> Self:
        return replace(
            self,
            layer_bytes=self.layer_bytes + size,
            layer_count=self.layer_count + 1,
            next_number=max(self.next_number, number + 1),
        )

    def without_layer(self, size: int) -> Self:
        return replace(self, layer_bytes=self.layer_bytes - size, layer_count=self.layer_count - 1)


class Place(IntFlag):
    """Where a layer's file lies."""

    LOCAL = 1
    REMOTE = 2


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """What is durable of a layer.

    ``level``: how often its values have been merged; 0 is what ingest and imports write. Of images
    that were made here it says one more than of how many ancestors they have the changes.
    ``generation``: the page server's that wrote it, which its name in an object store carries; 0
    where there was none. ``filter_bytes``: of its filter; 0 where the entry does not say.
    """

    summary: LayerSummary
    level: int = 0
    generation: int = 0
    place: Place = Place.LOCAL
    filter_bytes: int = 0

    @classmethod
    def fresh(cls, summary: LayerSummary, level: int = 0) -> Self:
        """Of a file that was just written here."""
        return cls(summary, level, filter_bytes=layer_filter_bytes(summary.keys))

    def pack(self, key: bytes) -> bytes:
        kind, least, greatest, first, last, values, keys, size = self.summary
        filter_lines = self.filter_bytes // _FILTER_LINE_BYTES
        body = _LAYER.pack(
            kind,
            self.level,
            self.place,
            filter_lines.bit_length(),  # of a power of two: its exponent and one
            self.generation,
            least,
            greatest,
            first,
            last,
            values,
            keys,
            size,
        )
        return seal(key, body)

    @classmethod
    def unpack(cls, key: bytes, value: bytes, where: str) -> Self:
        """Of format 2 too, whose layers are all here, and were never merged."""
        if len(value) == _LAYER_2.size + _CRC.size:
            return cls(LayerSummary(unpack(_LAYER_2, key, value, where)))
        fields = unpack(_LAYER, key, value, where)
        kind, level, place, filter_bits, generation = fields[:5]
        if not 1 <= place <= Place.LOCAL | Place.REMOTE:
            raise corrupt(where, f"entry {key.hex()} is of a layer that is nowhere")
        return cls(
            LayerSummary((kind, *fields[5:])),
            level,
            generation,
            Place(place),
            _FILTER_LINE_BYTES << filter_bits >> 1 if filter_bits else 0,
        )


def pack_child(key: bytes, branch_lsn: int) -> bytes:
    return seal(key, _CHILD.pack(branch_lsn))


def unpack_child(key: bytes, value: bytes, where: str) -> Lsn | None:
    """The branch LSN; None of format 2, where only the child says it."""
    if len(value) == _CRC.size:
        unseal(key, value, where)
        return None
    (branch_lsn,) = unpack(_CHILD, key, value, where)
    return Lsn(branch_lsn)


def pack_replaced(key: bytes, kind: int) -> bytes:
    return seal(key, _REPLACED.pack(kind))


def unpack_replaced(key: bytes, value: bytes, where: str) -> int:
    """The kind of layer that it was, which its file's name tells too."""
    (kind,) = unpack(_REPLACED, key, value, where)
    return int(kind)


class Holder(IntEnum):
    """What keeps a timeline's history from being dropped above its horizon."""

    NOTHING = 0  # the horizon is where it was asked to be
    WINDOW = 1
    CHILD = 2
    LEASE = 3
    CHECKPOINT = 4
    COMPUTE = 5


@dataclass(frozen=True, slots=True)
class Horizon:
    """The cutoff: history below ``lsn`` may be gone. ``since``: Unix microseconds.

    ``held_by`` is the child where it is one that holds it.
    """

    lsn: Lsn
    holder: Holder = Holder.NOTHING
    held_by: TimelineId | None = None
    since: int = 0

    def pack(self, key: bytes) -> bytes:
        held_by = self.held_by.raw if self.held_by else _NONE
        return seal(key, _HORIZON.pack(self.lsn, self.holder, held_by, self.since))

    @classmethod
    def unpack(cls, key: bytes, value: bytes, where: str) -> Self:
        lsn, holder, held_by, since = unpack(_HORIZON, key, value, where)
        if holder not in list(Holder):
            raise corrupt(where, f"entry {key.hex()} says that {holder} holds history")
        return cls(
            Lsn(lsn), Holder(holder), None if held_by == _NONE else TimelineId(held_by), since
        )


def pack_window(key: bytes, seconds: int, wal_bytes: int) -> bytes:
    return seal(key, _WINDOW.pack(seconds, wal_bytes))


def unpack_window(key: bytes, value: bytes, where: str) -> tuple[int, int]:
    """Seconds, and bytes of WAL."""
    seconds, wal_bytes = unpack(_WINDOW, key, value, where)
    return int(seconds), int(wal_bytes)


def pack_lease(key: bytes, expires: int) -> bytes:
    return seal(key, _LEASE.pack(expires))


def unpack_lease(key: bytes, value: bytes, where: str) -> int:
    """The Unix second at which it ends."""
    (expires,) = unpack(_LEASE, key, value, where)
    return int(expires)


TIMELINE_ENTRY_BYTES = 33 + _TIMELINE.size + _CRC.size
CHILD_ENTRY_BYTES = 49 + _CHILD.size + _CRC.size
LAYER_ENTRY_BYTES = 41 + _LAYER.size + _CRC.size


def physical_bytes(record: TimelineEntry) -> int:
    """Of its own files and entries."""
    total = TIMELINE_ENTRY_BYTES + record.layer_count * LAYER_ENTRY_BYTES
    if record.parent is not None:
        total += CHILD_ENTRY_BYTES
    return record.layer_bytes + total
