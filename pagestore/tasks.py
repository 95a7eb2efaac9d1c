"""Background tasks whose unplanned end is the end of their process.

A loop that has died silently is worse than a part that is down: the part says that it serves, and
what the loop did is never done again. Every part comes back from a kill at any instruction, so it
is ended on the spot, with a line in its log, and its supervisor starts it anew::

    self._task = tasks.endless(self._listen(), "peers")     # ends only by cancel()
    tasks.errand(self._tidy(), "tidy")                      # may return, must not raise

What can fail by the world's doing (a full disk, a peer that is away) is the task's own to catch;
what comes out here is a fault of the program, or a failure that nobody has thought of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from pagestore.errors import FINAL, PagestoreError

EXIT_STATUS = 70
"""Of a process that such a task has ended; EX_SOFTWARE of sysexits.h."""
FINAL_STATUS = 78
"""Of one that ends by what no other start will change (errors.FINAL); EX_CONFIG there."""

_T = TypeVar("_T")
_running: set[asyncio.Task[Any]] = set()
"""The event loop itself refers to tasks only weakly."""
_log = structlog.get_logger(__name__)


def endless(
    work: Coroutine[Any, Any, None], name: str, *, end: Callable[[int], object] = os._exit
) -> asyncio.Task[None]:
    """Starts `work`, which is to run until it is cancelled: both an exception and a return end
    the process. `name` stands in the log."""
    return _watched(work, name, end, may_return=False)


def errand(
    work: Coroutine[Any, Any, _T], name: str, *, end: Callable[[int], object] = os._exit
) -> asyncio.Task[_T]:
    """Starts `work` that nobody needs to wait for: an exception ends the process."""
    return _watched(work, name, end, may_return=True)


def _watched(
    work: Coroutine[Any, Any, _T], name: str, end: Callable[[int], object], *, may_return: bool
) -> asyncio.Task[_T]:
    task = asyncio.create_task(work, name=name)
    _running.add(task)

    def done(ended: asyncio.Task[_T]) -> None:
        _running.discard(ended)
        if ended.cancelled():
            return
        error = ended.exception()
        if error is not None or not may_return:
            end_process(name, error, end=end)

    task.add_done_callback(done)
    return task


def end_process(
    name: str, error: BaseException | None, *, end: Callable[[int], object] = os._exit
) -> None:
    """What a thread does whose work ended unplanned, and what is done for a task."""
    cause = error
    while isinstance(cause, BaseExceptionGroup):  # of a task that has others
        cause = cause.exceptions[0]
    # The log may be on the disk that is full, which must not keep the process alive.
    with contextlib.suppress(OSError, ValueError):
        _log.critical("task ended unplanned: this process ends", task=name, exc_info=error)
        if isinstance(cause, PagestoreError):
            # In the form in which `status` looks for the last words of a part.
            sys.stderr.write(cause.last_words())
            sys.stderr.flush()
    end(status_of(cause))


def status_of(error: BaseException | None) -> int:
    """Of a process that ends by an error which is nobody's to answer."""
    is_final = isinstance(error, PagestoreError) and error.reason in FINAL
    return FINAL_STATUS if is_final else EXIT_STATUS
