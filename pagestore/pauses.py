"""Pauses between attempts: they double up to a bound, and begin anew after a success.

Whoever tries again pauses by this, and nobody by a rule of his own. It knows no clock: the event
loop's, a thread's or the simulation's virtual one passes while its owner waits. Libraries for this
(tenacity, stamina) measure by the machine's, and wrap a call; what is tried here is as often a
stream or a process, which succeeds long before it ends.
"""

from __future__ import annotations

import asyncio
import random


class Pauses:
    """
    Args:
        first, longest: seconds.
        spread: each is of a random length, from half of it to the whole, so that those who have
            lost the same thing do not come back in step.
    """

    def __init__(self, first: float, longest: float, *, spread: bool = True) -> None:
        self._first, self._longest, self._spread = first, longest, spread
        self._next = first

    def reset(self) -> None:
        """The last attempt has succeeded."""
        self._next = self._first

    def next(self) -> float:
        """Seconds of the pause that is due."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause * random.uniform(0.5, 1.0) if self._spread else pause  # noqa: S311

    async def sleep(self) -> None:
        await asyncio.sleep(self.next())
