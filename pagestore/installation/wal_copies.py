"""Who has committed WAL besides a safekeeper of this machine: the others, and the object store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from functools import cached_property

from pagestore.client.wal import WalClient
from pagestore.errors import Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.installation.layout import Installation
from pagestore.objects.archived_wal import ArchivedWal
from pagestore.objects.claims import identify
from pagestore.objects.store import ObjectStore

ANSWER_SECONDS = 10.0


class Safekeeper:
    """Another one, that serves."""

    def __init__(self, part: str, address: str) -> None:
        self.name = f"{part} at {address}"
        self._address = address

    def read(
        self, tenant: TenantId, timeline: TimelineId, start: int, end: int
    ) -> Iterable[tuple[int, bytes]]:
        return asyncio.run(self._read(tenant, timeline, start, end))

    async def _read(
        self, tenant: TenantId, timeline: TimelineId, start: int, end: int
    ) -> list[tuple[int, bytes]]:
        async with WalClient(self._address, timeout=ANSWER_SECONDS) as client:
            pieces = client.read_back(tenant, timeline, start, end)
            return [(lsn, data) async for lsn, data in pieces]


class Archive:
    """What the page server has archived, and does not have in layers there yet."""

    name = "the object store"

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _found(self) -> ArchivedWal:
        store = ObjectStore.open(self._url, os.environ)
        return ArchivedWal(store, identify(store))

    def read(
        self, tenant: TenantId, timeline: TimelineId, start: int, end: int
    ) -> Iterable[tuple[int, bytes]]:
        key = tenant, timeline
        here = [item for item in self._found.ranges.get(key, ()) if item.start < end]
        begin = max(start, min((item.start for item in here if item.end > start), default=end))
        for wal in self._found.read(key, begin):
            if wal.start >= end:
                return
            yield wal.start, wal.data[: end - wal.start]


def others(installation: Installation, part: str) -> list[Safekeeper | Archive]:
    """Who may have the WAL of the safekeeper `part`."""
    config = installation.config
    found: list[Safekeeper | Archive] = []
    for name, other in config.safekeeper_parts.items():
        if name == part:
            continue
        try:
            address = other.listen if other.elsewhere else installation.address(name)
        except Unavailable:
            continue  # it does not run
        found.append(Safekeeper(name, address))
    if config.objects is not None:
        found.append(Archive(config.objects.url))
    return found
