"""What is known last of every timeline, and those who want to hear of changes.

A timeline that nobody writes costs one dictionary entry here. A watcher that is slow to take
what changes gets fewer of the changes, never more memory than one entry a timeline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from pagestore.ids import TenantId, TimelineId

_T = TypeVar("_T")


class TimelineKey(NamedTuple):
    tenant: TenantId
    timeline: TimelineId


class Watchable(Generic[_T]):
    """One value a timeline, such as its commit LSN. Of one event loop."""

    def __init__(self) -> None:
        self._values: dict[TimelineKey, _T] = {}
        self._watchers: set[Watcher[_T]] = set()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: TimelineKey) -> bool:
        return key in self._values

    def get(self, key: TimelineKey) -> _T | None:
        return self._values.get(key)

    def publish(self, key: TimelineKey, value: _T) -> None:
        if self._values.get(key) == value:
            return
        self._values[key] = value
        for watcher in self._watchers:
            watcher.tell(key, value)

    def forget(self, key: TimelineKey) -> None:
        self._values.pop(key, None)
        for watcher in self._watchers:
            watcher.forget(key)

    def watch(self, wanted: Callable[[_T], bool] = lambda _: True) -> Watcher[_T]:
        """Everything known now, then every change, of what is wanted. Close it at the end."""
        known = {key: value for key, value in self._values.items() if wanted(value)}
        return Watcher(known, wanted, self._watchers)


class Watcher(Generic[_T]):
    """One who wants to know; see :meth:`Watchable.watch`."""

    def __init__(
        self,
        known: dict[TimelineKey, _T],
        wanted: Callable[[_T], bool],
        watchers: set[Watcher[_T]],
    ) -> None:
        self._pending = known
        self._wanted = wanted
        self._event = asyncio.Event()
        self._watchers = watchers
        watchers.add(self)

    def close(self) -> None:
        self._watchers.discard(self)

    def tell(self, key: TimelineKey, value: _T) -> None:
        if self._wanted(value):
            self._pending[key] = value
            self._event.set()

    def forget(self, key: TimelineKey) -> None:
        self._pending.pop(key, None)

    def wake(self) -> None:
        """There is something else to tell."""
        self._event.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Returns when there may be something to take, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            pass

    def take(self, limit: int) -> list[tuple[TimelineKey, _T]]:
        """At most `limit` changes, those first that have waited longest; [] when all are taken."""
        taken = [(key, self._pending.pop(key)) for key in list(islice(self._pending, limit))]
        if not self._pending:
            self._event.clear()
        return taken
