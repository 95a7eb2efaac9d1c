"""Sizes as a user writes them: 10737418240, 500M, 10G, 10GiB."""

from __future__ import annotations

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def byte_count(text: str) -> int | None:
    """None of what is no size."""
    words = text.strip().upper().removesuffix("IB").removesuffix("B")
    digits = words.rstrip("KMGT")
    unit = words[len(digits) :]
    if not (digits.isascii() and digits.isdigit() and unit in _UNITS and len(digits) < 16):
        return None
    return int(digits) * _UNITS[unit]
