"""What was found in a file, and which reader knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Fact: TypeAlias = str | int | bool | None


@dataclass
class Inspected:
    """
    Args:
        kind: of file, in words.
        facts: what it says of itself, by name.
        columns: of `rows`, which are its entries: values, records, blocks.
        count: of all entries, where that is known without reading them.
        damage: what does not hold, each with its place.
    """

    kind: str
    facts: dict[str, Fact] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    count: int | None = None
    damage: list[str] = field(default_factory=list)
