"""How far a long verb is, for whoever listens: the latest word counts, others are passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

_T = TypeVar("_T")


class Step(NamedTuple):
    """What is being done, and bytes of it; `total` is 0 where that is not known."""

    words: str
    done: int
    total: int


class Followed(Generic[_T]):
    """Work under way, with what it says of itself. Belongs to one event loop."""

    def __init__(self) -> None:
        self._latest: Step | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[_T] | None = None

    def told(self, words: str, done: int, total: int) -> None:
        self._latest = Step(words, done, total)
        self._news.set()

    async def steps(self, work: Coroutine[Any, Any, _T]) -> AsyncIterator[Step]:
        """Until the work has ended; who stops listening cancels it."""
        task = self._task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._news.set())
        try:
            while not task.done():
                await self._news.wait()
                self._news.clear()
                step, self._latest = self._latest, None
                if step is not None:
                    yield step
        finally:
            task.cancel()
            await asyncio.wait([task])

    def result(self) -> _T:
        """Of work that has ended; raises what it raised."""
        assert self._task is not None, "nothing was begun"
        return self._task.result()
