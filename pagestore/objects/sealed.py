"""Small objects, and the file beside them, as bytes: a magic, a version, fields, CRC-32C.

::

    offset 0          8             12
           ┌──────────┬─────────────┬────────┬─────────────┐
           │ magic, 8 │ u32 version │ fields │ u32 CRC-32C │
           └──────────┴─────────────┴────────┴─────────────┘
"""

from __future__ import annotations

import struct
from typing import Any

from pagestore._native import crc32c
from pagestore.errors import DataLoss, FailedPrecondition

VERSION = 1

_HEAD = struct.Struct("<8sI")
_CRC = struct.Struct("<I")


def seal(magic: bytes, fields: bytes) -> bytes:
    body = _HEAD.pack(magic, VERSION) + fields
    return body + _CRC.pack(crc32c(body))


def unseal(magic: bytes, raw: bytes, where: str) -> memoryview:
    """The fields.

    Raises:
        DataLoss: OBJECT_CORRUPT. FailedPrecondition: OBJECT_VERSION: a later pagestore made it.
    """
    body = raw[: -_CRC.size]
    if len(raw) < _HEAD.size + _CRC.size or raw[-_CRC.size :] != _CRC.pack(crc32c(body)):
        raise corrupt(where, "its checksum does not hold")
    found, version = _HEAD.unpack_from(body)
    if found != magic:
        raise corrupt(where, "it is of another kind")
    if version != VERSION:
        raise FailedPrecondition(
            "OBJECT_VERSION",
            f"{where} has version {version}; this pagestore reads {VERSION}.",
            "Use the version of pagestore that wrote it, or a later one.",
        )
    return memoryview(body)[_HEAD.size :]


def fields(layout: struct.Struct, magic: bytes, raw: bytes, where: str) -> tuple[Any, ...]:
    """Of an object that has these and nothing else; raises as `unseal`."""
    body = unseal(magic, raw, where)
    if len(body) != layout.size:
        raise corrupt(where, "it has another length")
    return layout.unpack(body)


def corrupt(where: str, what: str) -> DataLoss:
    return DataLoss(
        "OBJECT_CORRUPT",
        f"{where} is damaged: {what}.",
        "Nothing of it was used. Restore the object from a copy or an older version of the bucket.",
    )
