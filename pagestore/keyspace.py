"""The ordered key of everything versioned.

A key has 18 bytes and is compared as bytes::

    kind u8 | spc u32be | db u32be | rel u32be | fork u8 | block u32be

What each kind means, and what its value holds, stands in docs/formats/keyspace.md;
native/core/key.h has the same layout for the core.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

PAGE_SIZE = 8192
KEY_LENGTH = 18
_KEY = struct.Struct(">BIIIBI")


class Kind(enum.IntEnum):
    CONTROL = 0x00
    DATABASE = 0x01
    RELMAP = 0x02
    REL_SIZE = 0x03
    SLRU_SIZE = 0x04
    TWO_PHASE = 0x05
    FILE = 0x06
    COMMIT_TIME = 0x07
    ORIGIN = 0x08
    LAST_COMMIT = 0x09
    SLOT = 0x0A
    REWRITE = 0x0B
    SLRU_PAGE = 0x10
    REL_BLOCK = 0x20


class Fork(enum.IntEnum):
    MAIN = 0
    FSM = 1
    VM = 2
    INIT = 3


class Slru(enum.IntEnum):
    XACT = 1
    MULTIXACT_OFFSETS = 2
    MULTIXACT_MEMBERS = 3
    COMMIT_TS = 4


class ValueKind(enum.IntEnum):
    """See native/core/value.h."""

    IMAGE = 1
    RECORD = 2
    PATCH = 3
    ZERO = 4
    TOMBSTONE = 5


WILL_INIT = 1
"""Value flag: the chain starts here, from a page of zeros."""


class Key(NamedTuple):
    kind: int
    spc: int = 0
    db: int = 0
    rel: int = 0
    fork: int = 0
    block: int = 0

    def pack(self) -> bytes:
        return _KEY.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Key:
        return cls(*_KEY.unpack(raw))


FILE_PGSTAT, FILE_OWNER = 1, 2
"""Small files by number."""

COUNTERS = Key(Kind.CONTROL, block=0)
SETTINGS = Key(Kind.CONTROL, block=1)
LAST_COMMIT = Key(Kind.LAST_COMMIT)


def database(spc: int, db: int) -> Key:
    return Key(Kind.DATABASE, spc, db)


def relmap(spc: int, db: int) -> Key:
    return Key(Kind.RELMAP, spc, db)


def rel_size(spc: int, db: int, rel: int, fork: int) -> Key:
    return Key(Kind.REL_SIZE, spc, db, rel, fork)


def rel_block(spc: int, db: int, rel: int, fork: int, block: int) -> Key:
    return Key(Kind.REL_BLOCK, spc, db, rel, fork, block)


def slru_size(slru: int, segment: int) -> Key:
    return Key(Kind.SLRU_SIZE, spc=slru, block=segment)


def slru_page(slru: int, page: int) -> Key:
    return Key(Kind.SLRU_PAGE, spc=slru, block=page)


def two_phase(xid: int) -> Key:
    return Key(Kind.TWO_PHASE, block=xid)


def commit_time(unix_micros: int) -> Key:
    return Key(Kind.COMMIT_TIME, spc=unix_micros >> 32, db=unix_micros & 0xFFFFFFFF)


def commit_time_micros(key: Key) -> int:
    return key.spc << 32 | key.db


def kind_range(kind: Kind) -> tuple[bytes, bytes]:
    """The half-open range of packed keys that holds every key of a kind."""
    return Key(kind).pack(), Key(kind + 1).pack()


def database_range(kind: Kind, spc: int, db: int) -> tuple[bytes, bytes]:
    """The half-open range of a database's keys of one kind (REL_SIZE or REL_BLOCK)."""
    following = Key(kind, spc, db + 1) if db < 0xFFFFFFFF else Key(kind, spc + 1)
    return Key(kind, spc, db).pack(), following.pack()
