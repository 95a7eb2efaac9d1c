"""The commit LSN of every timeline, and those who want to hear of changes.

A timeline that nobody writes costs one dictionary entry here. A watcher that is slow to take
its news gets fewer of them, never more memory than one entry a timeline.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import NamedTuple

from pagestore.ids import TenantId, TimelineId


class TimelineKey(NamedTuple):
    tenant: TenantId
    timeline: TimelineId


class CommitIndex:
    """Of one event loop."""

    def __init__(self) -> None:
        self._commits: dict[TimelineKey, int] = {}
        self._watchers: set[CommitWatcher] = set()

    def __len__(self) -> int:
        return len(self._commits)

    def __contains__(self, key: TimelineKey) -> bool:
        return key in self._commits

    def publish(self, key: TimelineKey, commit_lsn: int) -> None:
        if self._commits.get(key) == commit_lsn:
            return
        self._commits[key] = commit_lsn
        for watcher in self._watchers:
            watcher.tell(key, commit_lsn)

    def forget(self, key: TimelineKey) -> None:
        self._commits.pop(key, None)
        for watcher in self._watchers:
            watcher.forget(key)

    def watch(self) -> CommitWatcher:
        """Everything known now, then every change. Close it at the end."""
        return CommitWatcher(self._commits, self._watchers)


class CommitWatcher:
    """One who wants to know; see :meth:`CommitIndex.watch`."""

    def __init__(self, known: dict[TimelineKey, int], watchers: set[CommitWatcher]) -> None:
        self._news = dict(known)
        self._event = asyncio.Event()
        self._watchers = watchers
        watchers.add(self)

    def close(self) -> None:
        self._watchers.discard(self)

    def tell(self, key: TimelineKey, commit_lsn: int) -> None:
        self._news[key] = commit_lsn
        self._event.set()

    def forget(self, key: TimelineKey) -> None:
        self._news.pop(key, None)

    async def wait(self) -> None:
        """Returns when there may be something to take."""
        await self._event.wait()

    def take(self, limit: int) -> list[tuple[TimelineKey, int]]:
        """At most `limit` news, those first that have waited longest; [] when all are taken."""
        taken = [(key, self._news.pop(key)) for key in list(islice(self._news, limit))]
        if not self._news:
            self._event.clear()
        return taken
