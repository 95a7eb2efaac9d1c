"""When a part that ended is started again: soon, and less often while it keeps ending."""

from __future__ import annotations

from collections.abc import Callable

from pagestore.pauses import Pauses

FIRST_PAUSE = 0.1
LAST_PAUSE = 10.0
FINAL_PAUSE = 600.0
"""Of one that has said that another start will not help (tasks.FINAL_STATUS)."""
STEADY_SECONDS = 20.0
"""A part that ran this long has started well."""


class Restarts:
    """Of one part.

    Args:
        clock: seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._pauses = Pauses(FIRST_PAUSE, LAST_PAUSE, spread=False)
        self.in_a_row = 0
        """Since the part has last run for a while."""

    def began(self) -> None:
        self._began = self._clock()

    def ended(self, *, for_good: bool = False) -> float:
        """Seconds until the next start."""
        steady = self._clock() - self._began > STEADY_SECONDS
        if steady:
            self.in_a_row = 0
            self._pauses.reset()
        self.in_a_row += 1
        self._began = self._clock()
        return FINAL_PAUSE if for_good else self._pauses.next()
