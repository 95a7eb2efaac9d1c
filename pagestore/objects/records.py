"""One object of a journal, as bytes (docs/formats/object-store.md).

::

    offset 0          8             12        13        14           16            32
       ┌──────────┬─────────────┬─────────┬─────────┬────────────┬─────────────┬─ ─
       │ magic, 8 │ u32 version │ u8 kind │ u8 last │ u16 unused │ store id 16 │
       └──────────┴─────────────┴─────────┴─────────┴────────────┴─────────────┴─ ─
       32               36             44                48              56         60
      ─┬────────────────┬──────────────┬─────────────────┬───────────────┬──────────┬──────┬─────┐
       │ u32 generation │ u64 sequence │ u32 generation  │ u64 sequence  │ u32 part │ zstd │ CRC │
       │                │              │ of the one before              │          │      │     │
      ─┴────────────────┴──────────────┴─────────────────┴───────────────┴──────────┴──────┴─────┘

Compressed are batches: the whole as of the transaction (40), u32 changes, and of each the table (u8
length), the key (u16 length), u32 1 + length of the value, the value; 0 is of what went.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import zstandard

from pagestore.lmdbfile.changes import Batch
from pagestore.lmdbfile.pages import Damaged
from pagestore.lmdbfile.whole import Change, Whole
from pagestore.objects import sealed

MAGIC = b"PSJOURN\0"

_FIELDS = struct.Struct("<BB2x16sIQIQI")
_WHOLE = 40
_COUNT = struct.Struct("<I")
_KEY = struct.Struct("<H")
_LEVEL = 3
_GREATEST_BYTES = 1 << 30
"""Uncompressed."""


class Kind(IntEnum):
    SNAPSHOT = 1
    CHANGES = 2


class Link(NamedTuple):
    generation: int
    sequence: int


class Piece(NamedTuple):
    """``part`` counts the objects of one snapshot, of which ``last`` is the last. A part of a
    snapshot has one batch."""

    before: Link
    part: int
    last: bool
    batches: Sequence[Batch]


def encode(store_id: bytes, link: Link, kind: Kind, piece: Piece) -> bytes:
    fields = _FIELDS.pack(kind, piece.last, store_id, *link, *piece.before, piece.part)
    body = b"".join(_packed(piece.batches))
    return sealed.seal(MAGIC, fields + zstandard.ZstdCompressor(level=_LEVEL).compress(body))


class Found(NamedTuple):
    """What an object says of itself, and has."""

    store_id: bytes
    link: Link
    kind: Kind
    piece: Piece


def decode(raw: bytes, where: str, store_id: bytes, link: Link, kind: Kind) -> Piece:
    """
    Raises:
        DataLoss: OBJECT_CORRUPT: damaged, or another object than its name says.
        FailedPrecondition: OBJECT_VERSION.
    """
    found = look(raw, where)
    if found[:3] != (store_id, link, kind):
        raise sealed.corrupt(where, "it is another object than its name says")
    return found.piece


def look(raw: bytes, where: str) -> Found:
    """The same, of whatever name."""
    body = sealed.unseal(MAGIC, raw, where)
    if len(body) < _FIELDS.size:
        raise sealed.corrupt(where, "it ends early")
    found_kind, last, found_store, *numbers = _FIELDS.unpack_from(body)
    generation, sequence, before_generation, before_sequence, part = numbers
    try:
        kind = Kind(found_kind)
        packed = zstandard.ZstdDecompressor().decompress(
            body[_FIELDS.size :], max_output_size=_GREATEST_BYTES
        )
        batches = list(_unpacked(packed))
    except (zstandard.ZstdError, struct.error, IndexError, ValueError, Damaged) as error:
        raise sealed.corrupt(where, str(error)) from error
    if not batches:
        raise sealed.corrupt(where, "it has nothing in it")
    piece = Piece(Link(before_generation, before_sequence), part, bool(last), batches)
    return Found(bytes(found_store), Link(generation, sequence), kind, piece)


def _packed(batches: Sequence[Batch]) -> Iterator[bytes]:
    for whole, changes in batches:
        yield whole.pack() + _COUNT.pack(len(changes))
        for table, key, value in changes:
            yield bytes([len(table)]) + table + _KEY.pack(len(key)) + key
            yield _COUNT.pack(0 if value is None else len(value) + 1) + (value or b"")


def _unpacked(body: bytes) -> Iterator[Batch]:
    at = 0
    while at < len(body):
        whole = Whole.unpack(body[at : at + _WHOLE])
        (count,) = _COUNT.unpack_from(body, at + _WHOLE)
        at += _WHOLE + _COUNT.size
        changes = []
        for _ in range(count):
            change, at = _change(body, at)
            changes.append(change)
        yield Batch(whole, changes)


def _change(body: bytes, at: int) -> tuple[Change, int]:
    table_end = at + 1 + body[at]
    (length,) = _KEY.unpack_from(body, table_end)
    key_end = table_end + _KEY.size + length
    (stored,) = _COUNT.unpack_from(body, key_end)
    begin = key_end + _COUNT.size
    end = begin + max(stored - 1, 0)
    if end > len(body):
        raise Damaged(at, "an entry ends behind the object")
    value = body[begin:end] if stored else None
    return Change(body[at + 1 : table_end], body[table_end + _KEY.size : key_end], value), end
