"""Work that is finished once it has begun, whoever stops waiting for it.

A gRPC call is cancelled when its client goes away, at any await; a thread it waits for is not.
What changes files under a lock must therefore not run in the call's own task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from pagestore import tasks
from pagestore.errors import PagestoreError

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Finishing:
    """Holds the tasks, which the event loop itself only refers to weakly."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Nobody needs to wait; what it raises ends the process."""
        return tasks.errand(work, getattr(work, "__qualname__", "errand"))

    async def finish(self, work: Coroutine[Any, Any, _T]) -> _T:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_unheard)
            raise


def _unheard(task: asyncio.Task[Any]) -> None:
    """Whoever asked has gone: a refusal was for them, anything else must stand somewhere."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, PagestoreError):
        _log.error("failed unheard", exc_info=error)
