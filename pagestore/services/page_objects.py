"""A page server's object store: what is put there, what is kept here, and what is told of both."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pagestore import tasks
from pagestore.ingest.archiver import Archiver
from pagestore.ingest.follower import Follower
from pagestore.ingest.waiters import TimelineKey
from pagestore.ingest.wal_copies import ArchivedCopy
from pagestore.maintenance.evicting import Evictor
from pagestore.maintenance.offsite import Offsite
from pagestore.maintenance.uploader import CLOSE_SECONDS, Uploader
from pagestore.objects.store import ObjectStore
from pagestore.timeline import Repository
from pagestore.v1 import page_pb2 as pb


def object_store(url: str) -> ObjectStore:
    """Raises InvalidInput OBJECT_STORE_URL."""
    return ObjectStore.open(url, os.environ)


def page_objects(
    repository: Repository,
    directory: Path,
    store: ObjectStore,
    cache_bytes: int | None,
    wal_age_seconds: float,
) -> PageObjects:
    """
    Args:
        directory: of the page server's data.
    """
    uploader = Uploader(lambda wake: Offsite(repository, directory, wake))
    return PageObjects(repository, uploader, store.url, cache_bytes, wal_age_seconds)


class PageObjects:
    """Of one page server and event loop.

    Args:
        offsite: of its store.
        cache_bytes: of layers that stay on this disk; None: all.
        wal_age: seconds within which committed WAL is there.
    """

    def __init__(
        self,
        repository: Repository,
        uploader: Uploader,
        url: str,
        cache_bytes: int | None,
        wal_age: float,
    ) -> None:
        assert repository.store.elsewhere is not None
        self._repository = repository
        self._elsewhere = repository.store.elsewhere
        self._objects = self._elsewhere.objects
        self._wal_age = wal_age
        self._archiver: Archiver | None = None
        self.uploader = uploader
        self.offsite: Offsite = uploader.offsite
        self._url = url
        self._remote = self._elsewhere.remote
        self._evictor = (
            None if cache_bytes is None else Evictor(repository, self.offsite, cache_bytes)
        )
        self._tasks: list[asyncio.Task[None]] = []

    def follow(self, follower: Follower) -> None:
        """No WAL is released but what the object store has in layers."""
        loop = asyncio.get_running_loop()
        self._follower = follower
        follower.release_within(self.offsite.durable_lsn)

        def durable(key: TimelineKey) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(follower.release, key)
                if self._archiver is not None:
                    self._archiver.note_durable(key)

        self.offsite.on_durable = durable

    def begin(self) -> None:
        self._tasks.append(tasks.endless(self.uploader.run(), "keep the store in objects"))
        self._tasks.append(tasks.endless(self._archive(), "archive WAL"))
        if self._evictor is not None:
            self._tasks.append(tasks.endless(self._evictor.run(), "evict"))

    async def _archive(self) -> None:
        """Once it is known how far the journal leads, and that it is ours."""
        store_id = await self.uploader.started()
        self._archiver = Archiver(
            *(self._objects, store_id, self._follower.sources, self.offsite, self._knows),
            age=self._wal_age,
        )
        self._follower.on_told = self._archiver.note
        await self._archiver.run()

    def _knows(self, key: TimelineKey) -> bool:
        return not self._repository.store.catalog.unknown([key])

    async def close(self) -> None:
        """After the last flush: waits a moment for what is not there yet."""
        if self._tasks and not self.uploader.failure:
            await self.uploader.settle(CLOSE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.uploader.close()

    def archived(self) -> ArchivedCopy | None:
        """WAL that is there; None before it is known whose store it is."""
        if not self.offsite.generation:
            return None
        return ArchivedCopy(self._objects, self.offsite.store_id)

    def status(self) -> pb.ObjectStoreStatus:
        archiver = self._archiver
        behind, stats = self.offsite.behind(), self._remote.stats()
        return pb.ObjectStoreStatus(
            url=self._url,
            generation=self.offsite.generation,
            behind_bytes=behind.bytes,
            behind_seconds=behind.age,
            wal_seconds=archiver.behind_seconds if archiver is not None else 0.0,
            last_error=self.uploader.failure
            or (archiver.last_error if archiver else "")
            or self._elsewhere.trouble,
            layer_bytes=self.offsite.here_bytes,
            cached_bytes=stats["cached_bytes"],
            fetched_bytes=stats["fetched_bytes"],
        )
