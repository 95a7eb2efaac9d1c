"""``pg_filenode.map``: which file a mapped catalog lies in.

Magic i32, count i32, pairs (catalog oid u32, file number u32), CRC-32C u32 over all before it. In
Postgres 15 there are 62 pairs and 4 bytes of padding behind, 512 bytes in all; later 64 and 524.
Source: ``utils/cache/relmapper.c``.
"""

from __future__ import annotations

import struct

from pagestore._native import crc32c
from pagestore.errors import DataLoss
from pagestore.pgformat import versions
from pagestore.pgformat.versions import Version

FILE_NAME = "pg_filenode.map"
_MAGIC = 0x592717
_LENGTHS = frozenset(version.relation_map_length for version in versions.ALL)


def _mappings(length: int) -> int:
    """How many pairs a file of that length has room for."""
    return (length - 12) // 8


def parse(data: bytes, where: str = FILE_NAME) -> dict[int, int]:
    """Catalog oid to file number.

    Raises:
        DataLoss: the length, magic, count or checksum is wrong.
    """
    if len(data) not in _LENGTHS:
        known = " or ".join(map(str, sorted(_LENGTHS)))
        raise DataLoss("RELMAP_CORRUPT", f"{where} has {len(data)} bytes, not {known}.")
    magic, count = struct.unpack_from("<ii", data)
    if magic != _MAGIC or not 0 <= count <= _mappings(len(data)):
        raise DataLoss("RELMAP_CORRUPT", f"{where} is not a relation map.")
    at = 8 + 8 * _mappings(len(data))
    (stored,) = struct.unpack_from("<I", data, at)
    if stored != crc32c(data[:at]):
        raise DataLoss("RELMAP_CORRUPT", f"The checksum of {where} does not hold.")
    return dict(struct.iter_unpack("<II", data[8 : 8 + 8 * count]))


def pack(mapping: dict[int, int], version: Version = versions.OLDEST) -> bytes:
    length = version.relation_map_length
    body = struct.pack("<ii", _MAGIC, len(mapping))
    body += b"".join(struct.pack("<II", oid, number) for oid, number in mapping.items())
    body = body.ljust(8 + 8 * _mappings(length), b"\0")
    return (body + struct.pack("<I", crc32c(body))).ljust(length, b"\0")
