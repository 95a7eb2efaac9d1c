"""``pg_replslot/<name>/state``: one replication slot, as Postgres 15 keeps it.

Little-endian, 200 bytes: magic u32, CRC-32C u32 of all behind it, version u32, length u32 of
what follows; then name (64 bytes), database u32 (0: a physical slot), persistency i32, xmin
u32, catalog_xmin u32, restart_lsn, invalidated_at, confirmed_flush, two_phase_at (u64 each),
two_phase bool, plugin (64 bytes), 7 bytes of padding.

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

MAGIC, VERSION = 0x01051CA1, 2
PERSISTENT = 0
NAME = re.compile(r"[a-z0-9_]{1,63}")
_HEAD = struct.Struct("<IIII")
_BODY = struct.Struct("<64sIiIIQQQQ?64s7x")
_CHECKED = 8


@dataclass(frozen=True, slots=True)
class SlotState:
    """``restart_lsn`` 0: it needs no WAL, or has lost it (``invalidated_at`` says where)."""

    name: str
    database: int
    persistency: int
    xmin: int
    catalog_xmin: int
    restart_lsn: int
    invalidated_at: int
    confirmed_flush: int
    two_phase_at: int
    two_phase: bool
    plugin: str

    @property
    def is_logical(self) -> bool:
        return self.database != 0

    @property
    def is_lost(self) -> bool:
        return self.restart_lsn == 0 and self.invalidated_at != 0

    def invalidated(self) -> Self:
        """As Postgres leaves a slot whose WAL is gone."""
        return dataclasses.replace(self, invalidated_at=self.restart_lsn, restart_lsn=0)

    @classmethod
    def parse(cls, raw: bytes, where: str) -> Self:
        """
        Raises:
            DataLoss: SLOT_CORRUPT, naming `where`.
        """
        if len(raw) != _HEAD.size + _BODY.size:
            raise _corrupt(where, f"it has {len(raw)} bytes")
        magic, checksum, version, length = _HEAD.unpack_from(raw)
        if (magic, version, length) != (MAGIC, VERSION, _BODY.size):
            raise _corrupt(where, "it is not of Postgres 15")
        if checksum != crc32c(raw[_CHECKED:]):
            raise _corrupt(where, "its checksum does not hold")
        fields = list(_BODY.unpack_from(raw, _HEAD.size))
        fields[0], fields[-1] = _text(fields[0]), _text(fields[-1])
        state = cls(*fields)
        if NAME.fullmatch(state.name) is None:
            raise _corrupt(where, "its name is none")
        return state

    def pack(self) -> bytes:
        name, *numbers, plugin = dataclasses.astuple(self)
        body = _BODY.pack(name.encode(), *numbers, plugin.encode(errors="surrogateescape"))
        checked = struct.pack("<II", VERSION, _BODY.size) + body
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
