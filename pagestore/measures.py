"""What a part counts of itself while it works, for whoever asks: cheap to count, shown elsewhere.

Plain numbers, so that nothing here decides how they are shown (services/metrics.py does), and
counting costs next to nothing where nobody looks. Of one thread each, or of the event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Durations:
    """How often something took how long.

    Args:
        bounds: of the ranges that are told apart, in seconds, ascending; each is of its range.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By range; the last has no bound."""
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds
