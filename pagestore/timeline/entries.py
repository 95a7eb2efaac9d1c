"""The catalog's keys and values, byte by byte. docs/formats/catalog.md draws them.

Each value ends with the CRC-32C of its key and its body, so that a flipped bit, or a value
under another's key, is found where it is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, Self

from pagestore._native import LayerSummary, crc32c
from pagestore.errors import DataLoss
from pagestore.ids import Lsn, TenantId, TimelineId
from pagestore.lmdbfile.whole import Whole

FORMAT_VERSION = 2
FORMAT_KEY = b"f"
GENERATION_KEY = b"g"

_CRC = struct.Struct("<I")
_FORMAT = struct.Struct("<I")
_GENERATION = struct.Struct("<Q")
_TIMELINE = struct.Struct("<B16sQQQqQII")
_LAYER = struct.Struct("<B18s18sQQQQQ")
_NONE = bytes(16)
GENERATION_1_BYTES = _GENERATION.size + _CRC.size


def timeline_key(tenant: TenantId, timeline: TimelineId) -> bytes:
    return b"t" + tenant.raw + timeline.raw


def child_key(tenant: TenantId, parent: TimelineId, child: TimelineId) -> bytes:
    return b"c" + tenant.raw + parent.raw + child.raw


def layer_key(tenant: TenantId, timeline: TimelineId, number: int) -> bytes:
    return b"l" + tenant.raw + timeline.raw + number.to_bytes(8, "big")


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


def pack_layer(key: bytes, summary: LayerSummary) -> bytes:
    return seal(key, _LAYER.pack(*summary))


def unpack_layer(key: bytes, value: bytes, where: str) -> LayerSummary:
    return LayerSummary(unpack(_LAYER, key, value, where))


TIMELINE_ENTRY_BYTES = 33 + _TIMELINE.size + _CRC.size
CHILD_ENTRY_BYTES = 49 + _CRC.size
LAYER_ENTRY_BYTES = 41 + _LAYER.size + _CRC.size
