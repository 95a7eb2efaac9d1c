"""What was found in a file, and which reader knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pagestore import lost_found

Fact: TypeAlias = str | int | bool | None
Reader: TypeAlias = "Callable[[Path, bytes, int], Inspected]"
"""Of a file's path, its bytes, and how many of its entries are to be shown."""
_WITH_DOTS = ("catalog.lmdb-lock", "lock.mdb", ".log", ".so", ".json", ".conf", ".tmp")
NOT_SHOWN = "(not shown)"
_SECRET = ("password", "key", "secret", "verifier", "answers")
"""Fields whose names end so are not shown."""


def shown(name: str, value: Any) -> Any:
    """A field's value, for everybody."""
    return NOT_SHOWN if value and name.endswith(_SECRET) else value


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


def called(path: Path) -> str:
    """A file's name, also of one that was moved aside: there the path of before stands in front,
    and perhaps a number behind (pagestore/lost_found.py)."""
    if path.parent.name != lost_found.DIRECTORY:
        return path.name
    name = path.name.partition("~")[0]
    return next((known for known in _WITH_DOTS if name.endswith(known)), name.rpartition(".")[2])
