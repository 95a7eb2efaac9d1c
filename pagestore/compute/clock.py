"""How long a start takes, phase by phase."""

from __future__ import annotations

import time


class Clock:
    """How long each phase of a start took, in seconds."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._last = time.monotonic()

    def mark(self, phase: str) -> None:
        now = time.monotonic()
        self.phases[phase] = now - self._last
        self._last = now
