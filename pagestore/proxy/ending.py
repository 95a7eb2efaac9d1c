"""Places that somebody is just ending.

Whoever moves or stops a database tells the proxy first, and ends the compute when no session is in
it any more. Until then the control plane names it among those that are awake, and a list that was
asked for before says so even later: by such a list nobody may be let in again.
"""

from __future__ import annotations

from pagestore.proxy.places import Address, Place

FORGET_SECONDS = 120.0
"""After so long it has ended, or does not end."""


class Ending:
    def __init__(self) -> None:
        self._ending: dict[Place, tuple[Address | None, float]] = {}

    def begin(self, place: Place, address: Address | None, now: float) -> None:
        """
        Args:
            address: of the compute, if it is known; each start has another.
            now: in seconds, as everywhere here.
        """
        self._ending = {
            other: found for other, found in self._ending.items() if now - found[1] < FORGET_SECONDS
        }
        self._ending[place] = address, now

    def concerns(self, place: Place, address: Address, asked_at: float) -> bool:
        """Whether a compute is about to end, or may be, by a list that was asked for then."""
        ended, begun_at = self._ending.get(place, (None, -FORGET_SECONDS))
        if asked_at - begun_at >= FORGET_SECONDS:
            return False
        return ended == address or asked_at <= begun_at
