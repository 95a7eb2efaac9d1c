"""Who may still have committed WAL of a timeline: safekeepers, and the object store."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from pagestore.client.walservice import WalPiece
from pagestore.ingest.sources import WalSource
from pagestore.ingest.waiters import TimelineKey
from pagestore.objects.archived_wal import ArchivedWal
from pagestore.objects.store import ObjectStore
from pagestore.threads_aside import aside


class SafekeeperCopy:
    """What a safekeeper keeps within its budget, though everybody has released it."""

    def __init__(self, client: WalSource) -> None:
        self._client = client
        self.name = f"safekeeper {client.address}"

    def starts(self, key: TimelineKey) -> Iterable[int]:
        return ()

    async def read(self, key: TimelineKey, start: int, end: int) -> AsyncGenerator[WalPiece, None]:
        async with aclosing(self._client.read_wal(*key, start)) as pieces:
            async for lsn, data in pieces:
                yield WalPiece(lsn, data[: end - lsn])
                if lsn + len(data) >= end:
                    return


class ArchivedCopy:
    """What was archived, and does not lie in journaled layers yet."""

    name = "the object store"

    def __init__(self, store: ObjectStore, store_id: bytes) -> None:
        self._store, self._store_id = store, store_id
        self._lock = threading.Lock()
        self._found: ArchivedWal | None = None

    def _listed(self) -> ArchivedWal:
        """Once: what is archived later is not older."""
        with self._lock:
            if self._found is None:
                self._found = ArchivedWal(self._store, self._store_id)
            return self._found

    def starts(self, key: TimelineKey) -> Iterable[int]:
        return [range_.start for range_ in self._listed().ranges.get(key, ())]

    async def read(self, key: TimelineKey, start: int, end: int) -> AsyncGenerator[WalPiece, None]:
        found = (await aside(self._listed)).read(key, start)
        while (wal := await aside(lambda: next(found, None))) is not None:
            yield WalPiece(wal.start, wal.data[: end - wal.start])
            if wal.end >= end:
                return
