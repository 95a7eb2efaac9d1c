"""Reads every layer file of a store beside everything else, and tells what is damaged for whom.

The walk is over the catalog, not over what is loaded: each file once, whoever reads through it,
hidden timelines' too. What is replaced or deleted while the walk goes on is no damage: after a
failure it is asked whether the catalog still names the file. Only the files are read, by the core,
outside its block cache; a walk goes at a bounded pace and holds nothing between two files.

What is damaged here and lies in the object store too is fetched anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pagestore._native import Layer
from pagestore.errors import PagestoreError, Unavailable
from pagestore.ids import Lsn, TenantId, TimelineId
from pagestore.layers.files import layer_name
from pagestore.layers.native import store_errors
from pagestore.timeline.entries import LayerEntry, Place, layer_key, layer_of
from pagestore.timeline.store import Store


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """One layer file.

    Args:
        failure: what of it does not hold.
        repaired: what of it did not hold, before it was fetched anew.
        readers: timelines of which reads at `entry`'s first LSN and later may need it.
    """

    tenant: TenantId
    timeline: TimelineId
    path: str
    entry: LayerEntry
    failure: PagestoreError | None = None
    readers: tuple[TimelineId, ...] = ()
    repaired: PagestoreError | None = None


class Scrub:
    """
    Args:
        bytes_per_second: of files that are read, on average; 0: as fast as it goes.
        objects: layers that are only in the object store, too; they are fetched.
    """

    def __init__(
        self,
        store: Store,
        tenant: TenantId | None = None,
        bytes_per_second: int = 0,
        objects: bool = False,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._store = store
        self._tenant = tenant
        self._rate = bytes_per_second
        self._objects = objects
        self._sleep = sleep

    def run(self) -> Iterator[Scrubbed]:
        """Blocks on files. Raises what the catalog raises: without it nothing is known."""
        for tenant, timeline, _ in self._store.catalog.timelines(self._tenant):
            for number, entry in self._store.catalog.layers(tenant, timeline):
                if not entry.place & Place.LOCAL and not self._objects:
                    continue
                found = self._look(tenant, timeline, number, entry)
                if found is not None:
                    yield found
                if self._rate:
                    self._sleep(entry.summary.bytes / self._rate)

    def _look(
        self, tenant: TenantId, timeline: TimelineId, number: int, entry: LayerEntry
    ) -> Scrubbed | None:
        """None: it went meanwhile."""
        key = layer_key(tenant, timeline, number)
        name = layer_name(number, entry.summary.kind)
        path = self._store.root / str(tenant) / str(timeline) / name
        seen = Scrubbed(tenant, timeline, str(path), entry)
        failure = self._failure(key, entry, path)
        if failure is None:
            return seen
        now = self._store.catalog.layer(tenant, timeline, number)
        if now is None:
            return None
        if now.place & Place.LOCAL and now.place & Place.REMOTE:
            repaired, failure = failure, self._repair(key, now)
            if failure is None:
                return replace(seen, repaired=repaired)
        elif now.place != entry.place:  # it was evicted, or put there, meanwhile
            return seen
        readers = tuple(self._readers(tenant, timeline, Lsn(entry.summary.first_lsn)))
        return replace(seen, failure=failure, readers=readers)

    def _failure(self, key: bytes, entry: LayerEntry, path: Path) -> PagestoreError | None:
        tenant, timeline, number = layer_of(key)
        try:
            if entry.place & Place.LOCAL:
                with store_errors():
                    Layer(path, tenant.raw, timeline.raw, number, entry.summary).verify()
            elif self._store.elsewhere is not None:
                self._store.elsewhere.check(key, entry)
        except PagestoreError as error:
            return error
        return None

    def _repair(self, key: bytes, entry: LayerEntry) -> PagestoreError | None:
        """Why it could not be fetched anew, if so."""
        if self._store.elsewhere is None:
            return Unavailable(
                "OBJECT_STORE_UNAVAILABLE",
                "It does not hold, and this page server was told of no object store.",
            )
        try:
            self._store.elsewhere.restore(key, entry)
        except PagestoreError as error:
            return error
        return None

    def _readers(
        self, tenant: TenantId, timeline: TimelineId, first_lsn: Lsn
    ) -> Iterator[TimelineId]:
        """Those whose ancestry runs through the timeline at `first_lsn` or later."""
        catalog = self._store.catalog
        waiting = [timeline]
        while waiting:
            here = waiting.pop()
            entry = catalog.timeline(tenant, here)
            if entry is None:
                continue
            if not entry.deleted:
                yield here
            waiting += [
                child
                for child, branch_lsn in catalog.children(tenant, here)
                if branch_lsn >= first_lsn
            ]
