"""Leases: LSNs that somebody is about to read, and whose history stays until they expire.

A lease is granted once it is durable, so that one restart of the page server, or a collection of
old history right after it, takes nothing away from under a reader. It is asked for again by
whoever still needs it. All that there are stay in memory too: as many as there are readers that
begin, not as there are timelines.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from pagestore.errors import InvalidInput, NotFound, ResourceExhausted
from pagestore.ids import TenantId, TimelineId
from pagestore.timeline.catalog import CatalogWriter
from pagestore.timeline.store import Store

LONGEST_SECONDS = 24 * 3600
Key = tuple[TenantId, TimelineId]


class Leases:
    """Of all timelines of a page server. Thread-safe; `take` waits for the catalog's sync.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._changing = threading.Lock()
        self._expire: dict[Key, dict[int, int]] = {}
        now = int(clock())
        ended: list[tuple[Key, int]] = []
        for tenant, timeline, lsn, end in store.catalog.leases():
            if end >= now:
                self._expire.setdefault((tenant, timeline), {})[lsn] = end
            else:
                ended.append(((tenant, timeline), lsn))
        if ended:
            # On a full disk they stay until the next opening: they hold nothing.
            with contextlib.suppress(ResourceExhausted):
                store.commit(lambda txn: _remove(txn, ended))

    def take(self, key: Key, lsn: int, seconds: int) -> int:
        """Holds an LSN, or holds it longer; the Unix second at which that ends.

        Raises:
            InvalidInput: INVALID_LEASE. NotFound: TIMELINE_NOT_FOUND.
            ResourceExhausted: STORE_FULL.
        """
        check_seconds(seconds)
        with self._changing:
            now = int(self._clock())
            held = self._expire.get(key, {})
            end = max(now + seconds, held.get(lsn, 0))
            if held.get(lsn) == end:
                return end
            ended = [at for at, until in held.items() if until < now and at != lsn]
            self._store.commit(lambda txn: _put(txn, key, lsn, end, ended))
            kept = {at: until for at, until in held.items() if at not in ended}
            self._expire[key] = {**kept, lsn: end}
            return end

    def held(self, key: Key) -> list[int]:
        """The LSNs that are held now, ascending."""
        now = int(self._clock())
        return sorted(lsn for lsn, end in self._expire.get(key, {}).items() if end >= now)

    def forget(self, key: Key) -> None:
        """The timeline is gone, and with it what was durable of them."""
        with self._changing:
            self._expire.pop(key, None)


def _remove(txn: CatalogWriter, leases: list[tuple[Key, int]]) -> None:
    for key, lsn in leases:
        txn.remove_lease(*key, lsn)


def _put(txn: CatalogWriter, key: Key, lsn: int, end: int, ended: list[int]) -> None:
    record = txn.timeline(*key)
    if record is None or record.deleted:
        raise NotFound("TIMELINE_NOT_FOUND", f"There is no timeline {key[1]} of tenant {key[0]}.")
    txn.put_lease(*key, lsn, end)
    for at in ended:
        txn.remove_lease(*key, at)


def check_seconds(seconds: int) -> None:
    """
    Raises:
        InvalidInput: INVALID_LEASE.
    """
    if not 1 <= seconds <= LONGEST_SECONDS:
        raise InvalidInput("INVALID_LEASE", f"A lease lasts 1 to {LONGEST_SECONDS} seconds.")
