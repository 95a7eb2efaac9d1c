"""What a proxy counts of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pagestore.measures import Durations
from pagestore.proxy.places import Place


@dataclass
class Counts:
    wakes: Durations = field(default_factory=Durations)
    """From wanting a place awake to its first query working."""
    latest: dict[Place, float] = field(default_factory=dict)
    """Of those that are awake, how long their wake took."""
    failed_wakes: int = 0
    logins: Counter[str] = field(default_factory=Counter)
    """By how they ended."""
