"""When a part that ended is started again: soon, and less often while it keeps ending."""

from __future__ import annotations

from collections.abc import Callable

FIRST_PAUSE = 0.1
LAST_PAUSE = 10.0
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
        self.in_a_row = 0
        """Since the part has last run for a while."""

    def began(self) -> None:
        self._began = self._clock()

    def ended(self) -> float:
        """Seconds until the next start."""
        steady = self._clock() - self._began > STEADY_SECONDS
        self.in_a_row = 1 if steady else self.in_a_row + 1
        self._began = self._clock()
        return min(FIRST_PAUSE * 2.0 ** min(self.in_a_row - 1, 16), LAST_PAUSE)
