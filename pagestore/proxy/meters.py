"""How many queries the clients of each database have asked, for who is told of its use.

The relay counts, in numbers of meters; here each database gets one. Counts never fall while the
proxy lives, and are told as what they have come to since it began: so to tell one twice, or only
the next time, is no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping

from pagestore.errors import PagestoreError

TELL_SECONDS = 2.0
_NOBODYS = 0


class Meters:
    """
    Args:
        queries: what a meter shows.
        most: meters that there are.
    """

    def __init__(self, queries: Callable[[int], int], most: int) -> None:
        self.life = secrets.token_hex(8)
        """Of these counts, which begin anew with each proxy."""
        self._queries = queries
        self._most = most
        self._numbers: dict[str, int] = {}
        self._told: dict[str, int] = {}

    def of(self, database: str) -> int:
        """The meter of a database, by its lasting id; one that nobody reads when there are no
        more."""
        number = self._numbers.get(database)
        if number is None and len(self._numbers) + 1 < self._most:
            number = self._numbers[database] = len(self._numbers) + 1
        return number or _NOBODYS

    def read(self, database: str) -> int:
        number = self._numbers.get(database)
        return 0 if number is None else self._queries(number)

    def total(self) -> int:
        return self._queries(_NOBODYS) + sum(map(self._queries, self._numbers.values()))

    def news(self) -> dict[str, int]:
        """Counts that were not told yet."""
        found = {name: self._queries(number) for name, number in self._numbers.items()}
        return {name: count for name, count in found.items() if count != self._told.get(name, 0)}

    async def tell(self, hear: Callable[[str, Mapping[str, int]], Awaitable[None]]) -> None:
        """Tells the news, if there are any; what cannot be told is told the next time."""
        news = self.news()
        if news:
            with contextlib.suppress(PagestoreError):
                await hear(self.life, news)
                self._told.update(news)

    async def tell_for_ever(
        self, hear: Callable[[str, Mapping[str, int]], Awaitable[None]]
    ) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            await self.tell(hear)
