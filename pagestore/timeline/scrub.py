"""Reads every layer file of a store beside everything else, and tells what is damaged for whom.

The walk is over the catalog, not over what is loaded: each file once, whoever reads through it,
hidden timelines' too. What is replaced or deleted while the walk goes on is no damage: after a
failure it is asked whether the catalog still names the file. Only the files are read, by the core,
outside its block cache; a walk goes at a bounded pace and holds nothing between two files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pagestore._native import Layer
from pagestore.errors import PagestoreError
from pagestore.ids import Lsn, TenantId, TimelineId
from pagestore.layers.files import layer_name
from pagestore.layers.native import store_errors
from pagestore.timeline.entries import LayerEntry, Place
from pagestore.timeline.store import Store


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """One layer file.

    Args:
        failure: what of it does not hold.
        readers: timelines of which reads at `entry`'s first LSN and later may need it.
    """

    tenant: TenantId
    timeline: TimelineId
    path: str
    entry: LayerEntry
    failure: PagestoreError | None = None
    readers: tuple[TimelineId, ...] = ()


class Scrub:
    """
    Args:
        bytes_per_second: of files that are read, on average; 0: as fast as it goes.
    """

    def __init__(
        self,
        store: Store,
        tenant: TenantId | None = None,
        bytes_per_second: int = 0,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._store = store
        self._tenant = tenant
        self._rate = bytes_per_second
        self._sleep = sleep

    def run(self) -> Iterator[Scrubbed]:
        """Blocks on files. Raises what the catalog raises: without it nothing is known."""
        for tenant, timeline, _ in self._store.catalog.timelines(self._tenant):
            for number, entry in self._store.catalog.layers(tenant, timeline):
                if not entry.place & Place.LOCAL:
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
        name = layer_name(number, entry.summary.kind)
        path = self._store.root / str(tenant) / str(timeline) / name
        try:
            with store_errors():
                Layer(path, tenant.raw, timeline.raw, number, entry.summary).verify()
        except PagestoreError as error:
            if not self._store.catalog.has_layer(tenant, timeline, number):
                return None
            readers = tuple(self._readers(tenant, timeline, Lsn(entry.summary.first_lsn)))
            return Scrubbed(tenant, timeline, str(path), entry, error, readers)
        return Scrubbed(tenant, timeline, str(path), entry)

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
