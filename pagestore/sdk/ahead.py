"""Branches that are used one after the other, each made, and awake, before it is needed.

To make a branch, to start its server and to remove what was used is most of what a test on a branch
of its own costs, and none of it needs the test. So the next one comes while its predecessor is
used, and that goes while the next is. All begin at one point, so it does not matter when. Whoever
knows how many more will be wanted says so; nothing is made on the chance of it.

What was made ahead is a help, and never in the way: where it could not be made (there may be a
bound on how many a tenant has), it is made when it is needed, once what goes is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from pagestore.client.closing import Closing
from pagestore.errors import PagestoreError
from pagestore.sdk.client import AsyncClient, AsyncDatabase
from pagestore.sdk.values import Ttl

MOST_AHEAD = 2
"""To make one and start it takes about twice as long as a small test, and both of two cores."""
MOST_GOING = 2
"""That are being removed at a time, until somebody has to wait for them."""


class Ahead(Closing):
    """Of one event loop. At the end waits for all that goes, and removes what nobody took.

    Args:
        source: the database that they are branches of, at its checkpoint `at`.
        ttl: they go by themselves after so long, if this does not come to remove them.
    """

    def __init__(self, client: AsyncClient, source: str, at: str, ttl: Ttl) -> None:
        self._client = client
        self._source, self._at, self._ttl = source, at, ttl
        self._next: deque[asyncio.Task[AsyncDatabase]] = deque()
        self._going: set[asyncio.Task[None]] = set()

    async def take(self, *, behind: int) -> AsyncDatabase:
        """The next one.

        Args:
            behind: how many will be wanted after it, as far as is known.

        Raises:
            PagestoreError: it could not be made; or one that was used could not be removed.
        """
        while len(self._going) >= MOST_GOING:
            await self._one_gone()
        made = self._next.popleft() if self._next else None
        while len(self._next) < min(behind, MOST_AHEAD):
            self._next.append(asyncio.create_task(self._make_and_start()))
        return await self._make() if made is None else await self._made(made)

    def let_go(self, database: AsyncDatabase) -> None:
        """It was used: it is removed in the background, unless it is kept."""
        self._going.add(asyncio.create_task(database.close()))

    async def close(self) -> None:
        """
        Raises:
            PagestoreError: something could not be removed.
        """
        while self._next:
            with contextlib.suppress(PagestoreError):
                self.let_go(await self._next.popleft())
        while self._going:
            await self._one_gone()

    async def _one_gone(self) -> None:
        gone, _ = await asyncio.wait(self._going, return_when=asyncio.FIRST_COMPLETED)
        self._going -= gone
        for task in gone:
            task.result()

    async def _made(self, making: asyncio.Task[AsyncDatabase]) -> AsyncDatabase:
        try:
            return await making
        except PagestoreError:
            while self._going:
                await self._one_gone()
            return await self._make()

    async def _make(self) -> AsyncDatabase:
        return await self._client.branch(self._source, at=self._at, ttl=self._ttl)

    async def _make_and_start(self) -> AsyncDatabase:
        database = await self._make()
        with contextlib.suppress(PagestoreError):  # whoever connects is told
            await self._client.start(database.name)
        return database
