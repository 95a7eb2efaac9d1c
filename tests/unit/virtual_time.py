"""Virtual time: whoever sleeps sleeps no time, and the same story always goes the same way.

When nothing is left to be done at a moment, the clock moves on to the next one at which something
is due. What is given to threads is done in the event loop, after `work_seconds`: a thread could
not be waited for by such a clock, which would have passed every deadline meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

LONGEST_SECONDS = 1e6
"""After so long nothing that a test waits for will come about."""

_T = TypeVar("_T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    Raises:
        AssertionError: everybody waits, and nothing is ever due.
    """

    _ready: Any
    _scheduled: Any
    _selector: Any
    _process_events: Any

    def __init__(self) -> None:
        self._virtual = 0.0
        self.work_seconds = 0.0
        super().__init__()

    def time(self) -> float:
        return self._virtual

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As a thread that has begun, `func` comes to its end even if nobody waits any more."""
        future = self.create_future()

        def work() -> None:
            nonlocal future
            try:
                outcome = func(*args)
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(outcome)
            finally:
                del future  # as in a thread: who waits has it, and what was raised has this frame

        if self.work_seconds:
            self.call_later(self.work_seconds, work)
        else:
            self.call_soon(work)
        return future

    def _run_once(self) -> None:
        if not self._ready:
            self._process_events(self._selector.select(0))
        if not self._ready:
            due = [timer for timer in self._scheduled if not timer.cancelled()]
            assert due, "everybody waits, and nothing is ever due"
            assert self._virtual < LONGEST_SECONDS, "what is waited for does not come about"
            self._virtual = max(self._virtual, min(timer.when() for timer in due))
        super()._run_once()


def play(story: Coroutine[Any, Any, _T]) -> _T:
    """A story from its beginning to its end, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)


def now() -> float:
    """Seconds since the story began."""
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Until all that is due now has been done."""
    await asyncio.sleep(1e-6)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> float:
    """Waits for `condition`, within so many virtual seconds; the moment it came about."""
    began = now()
    while not condition():
        passed = now() - began
        assert passed < seconds, f"not within {seconds} s"
        await asyncio.sleep(min(max(passed / 100, 0.001), 0.1))
    return now()
