"""Work on a thread that the end of the process does not wait for: who it asks may be silent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def begin(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

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
