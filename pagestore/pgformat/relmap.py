"""``pg_filenode.map``: which file a mapped catalog lies in.

512 bytes: magic i32, count i32, 62 pairs (catalog oid u32, file number u32), CRC-32C u32
over all before it, 4 bytes of padding. Source: ``utils/cache/relmapper.c``.
"""

from __future__ import annotations

import struct

from pagestore._native import crc32c
from pagestore.errors import DataLoss

FILE_SIZE = 512
FILE_NAME = "pg_filenode.map"
_MAGIC = 0x592717
_MAX_MAPPINGS = 62
_CRC_OFFSET = 8 + 8 * _MAX_MAPPINGS


def parse(data: bytes, where: str = FILE_NAME) -> dict[int, int]:
    """Catalog oid to file number.

    Raises:
        DataLoss: the length, magic, count or checksum is wrong.
    """
    if len(data) != FILE_SIZE:
        raise DataLoss("RELMAP_CORRUPT", f"{where} has {len(data)} bytes, not {FILE_SIZE}.")
    magic, count = struct.unpack_from("<ii", data)
    if magic != _MAGIC or not 0 <= count <= _MAX_MAPPINGS:
        raise DataLoss("RELMAP_CORRUPT", f"{where} is not a relation map of Postgres 15.")
    (stored,) = struct.unpack_from("<I", data, _CRC_OFFSET)
    if stored != crc32c(data[:_CRC_OFFSET]):
        raise DataLoss("RELMAP_CORRUPT", f"The checksum of {where} does not hold.")
    return dict(struct.iter_unpack("<II", data[8 : 8 + 8 * count]))


def pack(mapping: dict[int, int]) -> bytes:
    body = struct.pack("<ii", _MAGIC, len(mapping))
    body += b"".join(struct.pack("<II", oid, number) for oid, number in mapping.items())
    body = body.ljust(_CRC_OFFSET, b"\0")
    return (body + struct.pack("<I", crc32c(body))).ljust(FILE_SIZE, b"\0")
