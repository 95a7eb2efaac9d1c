"""Work on a thread that the end of the process does not wait for: who it asks may be silent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def begin(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # it comes to its end, whoever gives up

    def run() -> None:
        try:
            found = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(found)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return future


async def aside(work: Callable[[], T]) -> T:
    """What `work` returns or raises; it goes on when nobody waits for it any more."""
    return await asyncio.shield(asyncio.wrap_future(begin(work)))


class Aside(Executor):
    """For `run_in_executor`: each call has a thread of its own."""

    def __init__(self) -> None:
        self._running: set[Future[Any]] = set()

    def submit(self, work: Callable[P, T], /, *args: P.args, **more: P.kwargs) -> Future[T]:
        future = begin(lambda: work(*args, **more))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def finish(self, seconds: float) -> bool:
        """Whether all came to their end within so many seconds."""
        return not wait(list(self._running), seconds).not_done
