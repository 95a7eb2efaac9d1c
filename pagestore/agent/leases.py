"""Computes hold the LSN that they read at.

What a compute has not fetched yet it reads as of where it started, for as long as it runs, while
its database's history is kept for a while only. So its agent leases that LSN at the page server,
and renews the lease as long as the compute is there. One that lives for a moment has none: some
minutes of history stay in any case. What is there when the agent begins is leased at once: nobody
knows how many of these minutes are over, and an agent that ends again and again would never do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog

from pagestore.agent.watched import WatchedCompute
from pagestore.client.page import AsyncPageClient
from pagestore.errors import PagestoreError

LOOK_SECONDS = 30.0
FIRST_SECONDS = 60.0
"""Within the history that stays in any case (pagestore.timeline.horizons)."""
RENEW_SECONDS = 3600.0
LEASE_SECONDS = 6 * 3600
_log = structlog.get_logger(__name__)


class ReadLeases:
    """
    Args:
        computes: those that there are now.
    """

    def __init__(
        self, pages: AsyncPageClient, computes: Callable[[], Collection[WatchedCompute]]
    ) -> None:
        self._pages = pages
        self._computes = computes
        self._due: dict[WatchedCompute, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        now = asyncio.get_running_loop().time
        first = now()
        while True:
            here = [item for item in self._computes() if item.alive and item.running.read_lsn]
            self._due = {item: self._due.get(item, first) for item in here}
            for compute, due in self._due.items():
                if due <= now() and await self._renewed(compute):
                    self._due[compute] = now() + RENEW_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            first = now() + FIRST_SECONDS

    async def _renewed(self, compute: WatchedCompute) -> bool:
        record, lsn = compute.running.record, compute.running.read_lsn
        try:
            await self._pages.lease(record.tenant, record.timeline, lsn, LEASE_SECONDS)
        except PagestoreError as error:
            _log.warning("a compute's history is not held", compute=compute.name, error=str(error))
            return False
        return True
