"""Leases: LSNs that somebody is about to read, and whose history stays until they expire.

In memory: a lease is asked for again by whoever still needs it.
"""

from __future__ import annotations

from collections.abc import Callable

from pagestore.errors import InvalidInput
from pagestore.ids import TenantId, TimelineId

LONGEST_SECONDS = 24 * 3600
Key = tuple[TenantId, TimelineId]


class Leases:
    """Of all timelines of a page server.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expire: dict[Key, dict[int, int]] = {}

    def take(self, key: Key, lsn: int, seconds: int) -> int:
        """Holds an LSN, or holds it longer; the Unix second at which that ends.

        Raises:
            InvalidInput: INVALID_LEASE.
        """
        check_seconds(seconds)
        now = int(self._clock())
        alive = {at: end for at, end in self._expire.get(key, {}).items() if end >= now}
        alive[lsn] = max(now + seconds, alive.get(lsn, 0))
        self._expire[key] = alive
        return alive[lsn]

    def held(self, key: Key) -> list[int]:
        """The LSNs that are held now, ascending."""
        now = int(self._clock())
        return sorted(lsn for lsn, end in self._expire.get(key, {}).items() if end >= now)

    def forget(self, key: Key) -> None:
        """The timeline is gone."""
        self._expire.pop(key, None)


def check_seconds(seconds: int) -> None:
    """
    Raises:
        InvalidInput: INVALID_LEASE.
    """
    if not 1 <= seconds <= LONGEST_SECONDS:
        raise InvalidInput("INVALID_LEASE", f"A lease lasts 1 to {LONGEST_SECONDS} seconds.")
