"""Timelines that are made independent: one at a time, in the background, whoever waits for it."""

from __future__ import annotations

import asyncio
import threading

from pagestore import tasks
from pagestore.errors import PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.maintenance.detaching import detach
from pagestore.services.page_access import PageAccess
from pagestore.timeline import Timeline

LONGEST_WAIT_MS = 60_000
Key = tuple[TenantId, TimelineId]


class Detaching:
    """Of one page server. Ends with it, half done work as if it had not begun."""

    def __init__(self, access: PageAccess) -> None:
        self._access = access
        self._one = asyncio.Lock()
        self._stopped = threading.Event()
        self._under_way: dict[Key, asyncio.Task[PagestoreError | None]] = {}

    async def detach(self, timeline: Timeline, wait_ms: int) -> None:
        """Returns when it is done, or the time is over.

        Raises:
            PagestoreError: as `pagestore.maintenance.detaching.detach`.
        """
        key = timeline.tenant_id, timeline.timeline_id
        if key not in self._under_way:
            work = self._detached(key)
            self._under_way[key] = tasks.errand(work, f"detach {key[1]}")
        task, failure = self._under_way[key], None
        try:
            async with asyncio.timeout(min(wait_ms, LONGEST_WAIT_MS) / 1000):
                failure = await asyncio.shield(task)
        except TimeoutError:
            return
        try:
            if failure is not None:
                raise failure.with_traceback(None)  # not of all who were told before
        finally:
            # It has this frame, and so the timeline and its files, until the garbage is collected.
            del task, failure

    async def _detached(self, key: Key) -> PagestoreError | None:
        """Why not, if not."""
        access = self._access
        try:
            async with self._one:
                timeline = access.timeline(key[0].raw, key[1].raw)
                parent = timeline.parent
                await access.whole_snapshot(timeline)
                redo = access.redo(timeline.major)
                await asyncio.to_thread(detach, access.repository, timeline, redo, self._stopped)
                if parent is not None:
                    access.collector.note((key[0], parent), now=True)
        except PagestoreError as error:
            return error
        finally:
            del self._under_way[key]
        return None

    async def close(self) -> None:
        self._stopped.set()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
