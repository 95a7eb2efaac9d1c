"""One event loop in a daemon thread, on which the blocking clients of a process work.

It is never closed: grpc.aio goes on delivering events to a loop that it has once seen.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_starting = threading.Lock()


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Until it has its outcome."""
    return asyncio.run_coroutine_threadsafe(work, _shared_loop()).result()


def _shared_loop() -> asyncio.AbstractEventLoop:
    with _starting:
        return _start_loop()


@functools.cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="pagestore-client", daemon=True).start()
    return loop
