"""Numbers for changes of members: given away by the control plane, used here.

No two changes of a timeline may have the same number, whoever makes them, so one durable state
gives them all away. A keeper that has none says so; the control plane sees it among the computes
that it watches, and sends some. What is left when the agent ends is not used by anybody.
"""

from __future__ import annotations

from pagestore.errors import Unavailable

EACH = 3
"""Numbers that one change takes."""


class Generations:
    """None at first."""

    def __init__(self) -> None:
        self.wanted_above = 0
        """Not 0: numbers above this one are wanted."""
        self.wants = 0
        """How often they were wanted."""
        self._next = self._end = 0

    def grant(self, first: int, count: int) -> None:
        self._next, self._end = first, first + count
        self.wanted_above = 0

    def take(self, above: int) -> int:
        """The first of three numbers above another one, which nobody else ever takes.

        Raises:
            Unavailable: NO_GENERATIONS; they are on their way, if the control plane is there.
        """
        first = max(self._next, above + 1)
        if first + EACH > self._end:
            self.wanted_above = max(above, 1)
            self.wants += 1
            raise Unavailable(
                "NO_GENERATIONS", "A change of safekeepers waits for the control plane."
            )
        self._next = first + EACH
        return first
