"""Times as a user writes them: 90, 30s, 5m, 1h, 7d."""

from __future__ import annotations

import re

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smhd]?)")


def seconds(text: str) -> float | None:
    """None of what is no time above zero."""
    found = _TIME.fullmatch(text)
    if found is None or not float(found[1]):
        return None
    return float(found[1]) * _UNITS[found[2] or "s"]


def words(seconds: float) -> str:
    """About so long, in the largest unit of which there are two or more."""
    for unit in ("d", "h", "m"):
        if seconds >= 2 * _UNITS[unit]:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
