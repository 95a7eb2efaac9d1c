"""``pg_replslot/<name>/state``: one replication slot.

Little-endian, 200 bytes: magic u32, CRC-32C u32 of all behind it, version u32, length u32 of
what follows; then name (64 bytes), database u32 (0: a physical slot), persistency i32, xmin
u32, catalog_xmin u32, restart_lsn, invalidated_at, confirmed_flush, two_phase_at (u64 each),
two_phase bool, plugin (64 bytes), 7 bytes of padding.

So version 2, of Postgres 15. In version 5, of 17 and 18, the place of invalidated_at has the cause
instead (i32 and 4 bytes of padding), and behind the plugin stand synced and failover, a byte each.

Source: ``replication/slot.h`` and ``slot.c``.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from dataclasses import dataclass
from typing import Self

from pagestore._native import crc32c
from pagestore.errors import DataLoss

MAGIC = 0x01051CA1
PERSISTENT = 0
WAL_REMOVED = 1
"""A cause."""
NAME = re.compile(r"[a-z0-9_]{1,63}")
_HEAD = struct.Struct("<IIII")
_BODIES = {
    2: struct.Struct("<64sIiIIQQQQ?64s7x"),
    5: struct.Struct("<64sIiIIQi4xQQ?64sB?5x"),
}
_LENGTH = 184
_CHECKED = 8
_PLUGIN = 10
"""Its place among the fields."""


@dataclass(frozen=True, slots=True)
class SlotState:
    """``restart_lsn`` 0: it needs no WAL, or has lost it: ``invalidation`` says where, from version
    5 on why."""

    name: str
    database: int
    persistency: int
    xmin: int
    catalog_xmin: int
    restart_lsn: int
    invalidation: int
    confirmed_flush: int
    two_phase_at: int
    two_phase: bool
    plugin: str
    synced: int = 0
    failover: bool = False
    version: int = 2

    @property
    def is_logical(self) -> bool:
        return self.database != 0

    @property
    def is_lost(self) -> bool:
        return self.restart_lsn == 0 and self.invalidation != 0

    def invalidated(self) -> Self:
        """As Postgres leaves a slot whose WAL is gone."""
        invalidation = self.restart_lsn if self.version == 2 else WAL_REMOVED
        return dataclasses.replace(self, invalidation=invalidation, restart_lsn=0)

    @classmethod
    def parse(cls, raw: bytes, where: str) -> Self:
        """
        Raises:
            DataLoss: SLOT_CORRUPT, naming `where`.
        """
        if len(raw) != _HEAD.size + _LENGTH:
            raise _corrupt(where, f"it has {len(raw)} bytes")
        magic, checksum, version, length = _HEAD.unpack_from(raw)
        if magic != MAGIC or version not in _BODIES or length != _LENGTH:
            raise _corrupt(where, "it is of no version that is known")
        if checksum != crc32c(raw[_CHECKED:]):
            raise _corrupt(where, "its checksum does not hold")
        fields = list(_BODIES[version].unpack_from(raw, _HEAD.size))
        fields[0], fields[_PLUGIN] = _text(fields[0]), _text(fields[_PLUGIN])
        if len(fields) == _PLUGIN + 1:
            fields += [0, False]
        state = cls(*[*fields, version])
        if NAME.fullmatch(state.name) is None:
            raise _corrupt(where, "its name is none")
        return state

    def pack(self) -> bytes:
        values = list(dataclasses.astuple(self))[:-1]
        values[0] = self.name.encode()
        values[_PLUGIN] = self.plugin.encode(errors="surrogateescape")
        shape = _BODIES[self.version]
        body = shape.pack(*(values if self.version > 2 else values[: _PLUGIN + 1]))
        checked = struct.pack("<II", self.version, _LENGTH) + body
        return struct.pack("<II", MAGIC, crc32c(checked)) + checked


def state_path(name: str) -> str:
    return f"pg_replslot/{name}/state"


def snapshot_path(restart_lsn: int) -> str:
    """What a logical slot's decoding begins with."""
    return f"pg_logical/snapshots/{restart_lsn >> 32:X}-{restart_lsn & 0xFFFFFFFF:X}.snap"


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode(errors="surrogateescape")


def _corrupt(where: str, why: str) -> DataLoss:
    return DataLoss("SLOT_CORRUPT", f"The state of a replication slot ({where}) is damaged: {why}.")
