"""One event loop in a daemon thread, on which the blocking clients of a process work.

It is never closed: grpc.aio goes on delivering events to a loop that it has once seen.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_starting = threading.Lock()


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Until it has its outcome."""
    return asyncio.run_coroutine_threadsafe(work, _shared_loop()).result()


def blocking(
    method: Callable[Concatenate[Any, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[Any, _P], _T]:
    """An asynchronous client's method for the blocking one, which has that as `_client`: it returns
    when it has its answer."""

    @functools.wraps(method)
    def call(client: Any, /, *args: _P.args, **options: _P.kwargs) -> _T:
        return run(method(client._client, *args, **options))

    return call


def _shared_loop() -> asyncio.AbstractEventLoop:
    with _starting:
        return _start_loop()


@functools.cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="pagestore-client", daemon=True).start()
    return loop
