"""The databases as the console shows them: in the order of the tree, and what changes.

One watcher follows the control plane and the proxy for everybody who looks. Each row has the number
of the change that made it what it is; who has seen up to one asks for what came since.

What the console itself has done is learned from the control plane's watch like everything else: the
watch tells only of what it saw at its looks, so a branch that was learned elsewhere, and removed
before the next look, would be shown for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from pagestore.errors import PagestoreError
from pagestore.ids import parse_lsn
from pagestore.installation.awake import awake
from pagestore.installation.layout import Installation
from pagestore.sdk.client import AsyncClient
from pagestore.sdk.values import Facts

AWAKE_SECONDS = 2.0
AGAIN_SECONDS = 1.0
LOOKED_SECONDS = 60.0
"""After somebody has asked for news."""
FIGURES_EACH = 0.01
"""Seconds between two looks at figures, for each database that there is; at least AWAKE_SECONDS."""
_log = structlog.get_logger(__name__)


@dataclass
class _Row:
    facts: Facts
    changed: int
    moved: int = 0
    """When it came to where it stands in the tree."""
    awake: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[str, int] | None = None
    """Its head and its own bytes, of which no change tells."""


class Census:
    """Of one event loop. Pure but for `follow`."""

    def __init__(self) -> None:
        self.version = 0
        self._rows: dict[str, _Row] = {}
        self._gone: dict[str, int] = {}
        self._children: dict[str, set[str]] = {}
        """By their parents' names, whether there are such or not."""
        self._order: list[tuple[str, int]] | None = None
        self._places: dict[str, tuple[int, int]] = {}
        """Depth, and where in the order."""
        self._news = asyncio.Event()
        self._asked = -math.inf
        """When somebody last asked for news."""

    # What is learned

    def learn(self, facts: Facts) -> None:
        before = self._rows.get(facts.name)
        if before is not None and before.facts == facts:
            return
        row = self._rows[facts.name] = _Row(facts, self._next())
        if before is None or before.facts.parent != facts.parent:
            self._move(facts.name, before.facts.parent if before else None, facts.parent)
        if before is not None:
            row.moved = max(row.moved, before.moved)
            row.awake = before.awake
            if before.facts.lsn == facts.lsn:  # it was not moved
                row.figures = before.figures
        self._gone.pop(facts.name, None)

    def learn_figures(self, told: Iterable[Facts]) -> None:
        """Where databases stand by now, and what they take."""
        for facts in told:
            row, now = self._rows.get(facts.name), (facts.lsn, facts.physical_bytes)
            if row is not None and row.figures != now:
                row.figures, row.changed = now, self._next()

    def forget(self, name: str) -> None:
        row = self._rows.pop(name, None)
        if row is not None:
            self._gone[name] = self._next()
            self._move(name, row.facts.parent, None)

    def keep_only(self, names: Iterable[str]) -> None:
        """What was not among all of them is gone."""
        for name in self._rows.keys() - set(names):
            self.forget(name)

    def learn_awake(self, states: Iterable[Mapping[str, Any]]) -> None:
        """What the proxy says; of others, that they sleep."""
        told = {state["name"]: state for state in states}
        for name, row in self._rows.items():
            now = told.get(name, {})
            shown = ("state", "sessions", "why", "queries", "wake_seconds")
            if any(now.get(key) != row.awake.get(key) for key in shown):
                row.awake, row.changed = now, self._next()

    def _move(self, name: str, before: str | None, now: str | None) -> None:
        """It has another parent, or has come or gone: all that hang on it are elsewhere."""
        self._order = None
        if before is not None:
            self._children[before].discard(name)
            if not self._children[before]:
                del self._children[before]
        if now is not None:
            self._children.setdefault(now, set()).add(name)
        at, left = self._next(), {name}
        while left:
            below = left.pop()
            row = self._rows.get(below)
            if row is None or row.moved < at:
                left |= self._children.get(below, set())
            if row is not None:
                row.changed = row.moved = at

    def _next(self) -> int:
        self.version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()
        return self.version

    # What is told

    def page(self, offset: int, limit: int) -> dict[str, Any]:
        """Rows in the order of the tree: a parent, then its branches by name."""
        order = self._ordered()
        rows = [self._shown(name) for name, _ in order[offset : offset + limit]]
        return {"version": self.version, "total": len(order), "rows": rows}

    def since(self, version: int) -> dict[str, Any]:
        """Rows that have changed, and names that are gone. Those that have `moved`, new ones too,
        stand where their `index` says, and between them all others in the order they were in."""
        order = self._ordered()
        rows = [
            {**self._shown(name), "moved": row.moved > version}
            for name, row in self._rows.items()
            if row.changed > version and name in self._places
        ]
        gone = [name for name, at in self._gone.items() if at > version]
        return {"version": self.version, "total": len(order), "rows": rows, "gone": gone}

    async def news(self, version: int, seconds: float) -> bool:
        """Waits for something later than `version`; whether there is."""
        self._asked = time.monotonic()
        if self.version > version:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        return self.version > version

    def is_looked_at(self) -> bool:
        return time.monotonic() - self._asked < LOOKED_SECONDS

    def __len__(self) -> int:
        return len(self._rows)

    def _ordered(self) -> list[tuple[str, int]]:
        if self._order is None:
            self._order = in_tree_order({n: row.facts.parent for n, row in self._rows.items()})
            self._places = {name: (depth, at) for at, (name, depth) in enumerate(self._order)}
        return self._order

    def _shown(self, name: str) -> dict[str, Any]:
        row, (depth, index) = self._rows[name], self._places[name]
        facts, state = row.facts, row.awake
        lsn, size = row.figures or (facts.branch_lsn or facts.lsn, facts.physical_bytes)
        return {
            "name": name,
            "depth": depth,
            "index": index,
            "parent": facts.parent,
            "state": state.get("state") or ("awake" if facts.compute == "running" else "asleep"),
            "why": state.get("why"),
            "sessions": state.get("sessions", 0),
            "queries": state.get("queries", 0),
            "wake_seconds": state.get("wake_seconds"),
            "lsn": lsn,
            "at": parse_lsn(lsn),
            "from": parse_lsn(facts.branch_lsn) if facts.branch_lsn else None,
            "bytes": size,
            "created": facts.created_at.isoformat(),
            "expires": facts.expires_at.isoformat() if facts.expires_at else None,
        }


def in_tree_order(parents: Mapping[str, str | None]) -> list[tuple[str, int]]:
    """Names with their depths. A parent that is not there any more is none."""
    children: dict[str | None, list[str]] = {}
    for name in sorted(parents, reverse=True):
        parent = parents[name]
        children.setdefault(parent if parent in parents else None, []).append(name)
    order: list[tuple[str, int]] = []
    left = [(name, 0) for name in children.get(None, [])]
    while left:
        name, depth = left.pop()
        order.append((name, depth))
        left += [(child, depth + 1) for child in children.get(name, [])]
    return order


async def follow(census: Census, client: Callable[[], AsyncClient]) -> None:
    """Learns of databases until cancelled; begins anew where the control plane went away."""
    while True:
        try:
            seen: set[str] | None = set()
            async for change in client().watch():
                match change:
                    case None:
                        census.keep_only(seen or ())
                        seen = None
                    case str(gone):
                        census.forget(gone)
                    case facts:
                        census.learn(facts)
                        if seen is not None:
                            seen.add(facts.name)
        except PagestoreError as error:
            _log.info("the control plane is away", error=str(error))
        await asyncio.sleep(AGAIN_SECONDS)


async def follow_awake(census: Census, installation: Installation) -> None:
    """Learns who is awake, and why, until cancelled."""
    while True:
        census.learn_awake(await asyncio.to_thread(awake, installation))
        await asyncio.sleep(AWAKE_SECONDS)


async def follow_figures(census: Census, client: Callable[[], AsyncClient]) -> None:
    """Learns where databases stand and what they take, while somebody looks; until cancelled."""
    while True:
        try:
            if census.is_looked_at() or census.version == 0:
                census.learn_figures(await client().databases())
        except PagestoreError as error:
            _log.info("the control plane is away", error=str(error))
        await asyncio.sleep(max(AWAKE_SECONDS, len(census) * FIGURES_EACH))
