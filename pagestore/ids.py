"""Names of things: tenants, timelines, and positions in WAL.

A tenant id and a timeline id are 16 bytes, written as 32 hexadecimal digits. An LSN is an
unsigned 64-bit byte position, written as Postgres writes it: ``0/16B3748``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NewType, Self

from pagestore.errors import InvalidInput

Lsn = NewType("Lsn", int)
"""A byte position in WAL; 0 is "no position"."""

MAX_LSN = Lsn(2**64 - 1)

_LSN_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def format_lsn(lsn: int) -> str:
    """``0x16B3748`` as ``0/16B3748``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> Lsn:
    """The inverse of :func:`format_lsn`.

    Raises:
        InvalidInput: ``text`` is not two hexadecimal numbers around a slash.
    """
    match = _LSN_TEXT.fullmatch(text)
    if match is None:
        raise InvalidInput(
            "INVALID_LSN", f"{text[:40]!r} is not an LSN.", "Write it as Postgres does: 0/16B3748."
        )
    return Lsn(int(match[1], 16) << 32 | int(match[2], 16))


@dataclass(frozen=True, slots=True, order=True)
class _Id:
    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 16:
            raise InvalidInput(
                "INVALID_ID", f"A {self._noun()} id has 16 bytes, not {len(self.raw)}."
            )

    @classmethod
    def _noun(cls) -> str:
        return cls.__name__.removesuffix("Id").lower()

    @classmethod
    def generate(cls) -> Self:
        return cls(os.urandom(16))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 32 hexadecimal digits."""
        if re.fullmatch(r"[0-9a-fA-F]{32}", text) is None:
            raise InvalidInput(
                "INVALID_ID", f"{text[:40]!r} is not a {cls._noun()} id (32 hexadecimal digits)."
            )
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.raw.hex()


class TenantId(_Id):
    """The owner of databases."""

    __slots__ = ()


class TimelineId(_Id):
    """One history of WAL and pages."""

    __slots__ = ()


DEFAULT_TENANT = TenantId(bytes(15) + b"\x01")
DEFAULT_TENANT_NAME = "default"
