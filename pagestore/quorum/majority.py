"""The same call to several safekeepers, until enough of them have answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from pagestore.client.backoff import patiently
from pagestore.errors import Aborted, PagestoreError, Unavailable

LONGEST_PAUSE = 0.5
SPREAD = 0.02
"""Seconds for the others, once enough have answered."""

_T = TypeVar("_T")


class Calls:
    """Calls under way. Those that nobody waits for any more come to their end by themselves."""

    def __init__(self) -> None:
        self._left: set[asyncio.Task[object]] = set()

    async def close(self) -> None:
        for task in self._left:
            task.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)

    async def enough(
        self,
        calls: Mapping[int, Callable[[], Awaitable[_T]]],
        are_enough: Callable[[Iterable[int]], bool],
        seconds: float,
    ) -> dict[int, _T]:
        """The answers by number, as soon as they are enough and the others had a moment more.

        Who is away is asked again for `seconds`.

        Raises:
            PagestoreError: a refusal of one, when those left cannot be enough.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        tasks = {
            number: asyncio.create_task(patiently(call, deadline, longest=LONGEST_PAUSE))
            for number, call in calls.items()
        }
        answers: dict[int, _T] = {}
        refusals: list[PagestoreError] = []
        waiting = dict(tasks)
        try:
            while not are_enough(answers):
                if not are_enough({*answers, *waiting}):
                    raise _the_reason(refusals)
                await asyncio.wait(waiting.values(), return_when=asyncio.FIRST_COMPLETED)
                _collect(waiting, answers, refusals)
            if waiting:
                await asyncio.wait(waiting.values(), timeout=SPREAD)
                _collect(waiting, answers, refusals)
            return answers
        finally:
            for task in waiting.values():
                self._left.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()


def _collect(
    waiting: dict[int, asyncio.Task[_T]], answers: dict[int, _T], refusals: list[PagestoreError]
) -> None:
    for number, task in list(waiting.items()):
        if task.done():
            del waiting[number]
            error = task.exception()
            if error is None:
                answers[number] = task.result()
            elif isinstance(error, PagestoreError):
                refusals.append(error)
            else:
                raise error


def _the_reason(refusals: list[PagestoreError]) -> PagestoreError:
    """A term that is over explains the rest; then whatever is not mere absence."""
    for kind in (Aborted, PagestoreError):
        for error in refusals:
            if isinstance(error, kind) and not isinstance(error, Unavailable):
                return error
    said = "; ".join(sorted({str(error) for error in refusals}))
    return Unavailable("NO_QUORUM", f"Too few safekeepers answer. {said}".rstrip())
