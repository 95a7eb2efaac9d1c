"""CRC-32C (Castagnoli) as Postgres uses it for WAL records and the control file.

The plain-Python reference of native/core/crc32c.c: reflected polynomial 0x82F63B78, all ones
before and after. Meant for headers and test data, not for bulk.
"""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_TABLE = _table()


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC of ``data`` appended to bytes whose CRC is ``crc``."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
