"""Reads every layer file of a store beside everything else, and tells what is damaged for whom.

The walk is over the catalog, not over what is loaded: each file once, whoever reads through it,
hidden timelines' too. What is replaced or deleted while the walk goes on is no damage: after a
failure it is asked whether the catalog still names the file. Only the files are read, by the core,
outside its block cache; a walk goes at a bounded pace and holds nothing between two files.

What is damaged here and lies in the object store too is fetched anew, and the damaged file moved
aside. What is nowhere else, whoever asked for the walk may have made again of WAL
(pagestore/ingest/rebuilding.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pagestore.errors import PagestoreError, Unavailable
from pagestore.ids import Lsn, TenantId, TimelineId
from pagestore.layers.files import layer_name
from pagestore.timeline import damage
from pagestore.timeline.entries import LayerEntry, Place, layer_key
from pagestore.timeline.store import Store

OBJECT_STORE = "the object store"


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """One layer file.

    Args:
        failure: what of it does not hold.
        readers: timelines of which reads at `entry`'s first LSN and later may need it.
        unrepaired: why it was not repaired, where that was tried.
        repaired: what of it did not hold, before it was repaired.
        source: from where it was.
        aside: where the damaged file lies now; None where there was none.
    """

    tenant: TenantId
    timeline: TimelineId
    number: int
    path: str
    entry: LayerEntry
    failure: PagestoreError | None = None
    readers: tuple[TimelineId, ...] = ()
    unrepaired: PagestoreError | None = None
    repaired: PagestoreError | None = None
    source: str = ""
    aside: Path | None = None

    def mended(self, source: str, aside: Path | None) -> Scrubbed:
        return replace(
            self, failure=None, readers=(), repaired=self.failure, source=source, aside=aside
        )


class Scrub:
    """
    Args:
        bytes_per_second: of files that are read, on average; 0: as fast as it goes.
        objects: layers that are only in the object store, too; they are fetched.
        repair: else nothing is changed.
    """

    def __init__(
        self,
        store: Store,
        tenant: TenantId | None = None,
        bytes_per_second: int = 0,
        objects: bool = False,
        repair: bool = True,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._store = store
        self._tenant = tenant
        self._rate = bytes_per_second
        self._objects = objects
        self._repair = repair
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
        seen = Scrubbed(tenant, timeline, number, str(path), entry)
        failure = self._failure(key, entry, path)
        if failure is None:
            return seen
        now = self._store.catalog.layer(tenant, timeline, number)
        if now is None:
            return None
        if now.place != entry.place and not (now.place & entry.place & Place.LOCAL):
            return seen  # it was evicted meanwhile
        readers = tuple(self._readers(tenant, timeline, Lsn(entry.summary.first_lsn)))
        seen = replace(seen, entry=now, failure=failure, readers=readers)
        if now.place == Place.LOCAL | Place.REMOTE and self._repair:
            return self._fetched_anew(seen, key)
        return seen

    def _failure(self, key: bytes, entry: LayerEntry, path: Path) -> PagestoreError | None:
        if entry.place & Place.LOCAL:
            return damage.failure(path, key, entry)
        if self._store.elsewhere is not None:
            try:
                self._store.elsewhere.check(key, entry)
            except PagestoreError as error:
                return error
        return None

    def _fetched_anew(self, seen: Scrubbed, key: bytes) -> Scrubbed:
        if self._store.elsewhere is None:
            why = Unavailable(
                "OBJECT_STORE_UNAVAILABLE",
                "The object store has it, but this page server was told of no object store.",
            )
            return replace(seen, unrepaired=why)
        try:
            aside = self._store.elsewhere.restore(key, seen.entry)
        except PagestoreError as error:
            return replace(seen, unrepaired=error)
        return seen.mended(OBJECT_STORE, aside)

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
