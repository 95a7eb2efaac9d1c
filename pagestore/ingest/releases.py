"""Telling safekeepers which WAL this page server will not ask for again.

That is what its layers have in files, timeline by timeline: after a crash it reads on from there.
Told lazily, many timelines at once, since it only lets safekeepers drop segments. A safekeeper
keeps what a consumer has not released from the moment it knows the consumer, so the first word
comes when a timeline is first read.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import structlog

from pagestore import durable
from pagestore.errors import NotFound, PagestoreError
from pagestore.ingest.sources import Source, Sources
from pagestore.ingest.waiters import TimelineKey
from pagestore.timeline import Repository

RELEASE_SECONDS = 3.0
BATCH = 1000
_FILE = "consumer"
_log = structlog.get_logger(__name__)


def consumer_of(data_dir: Path) -> str:
    """The name by which safekeepers know the page server of this directory, made once."""
    path = data_dir / _FILE
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        name = f"page-{secrets.token_hex(8)}"
        durable.replace(path, name.encode())
        return name


class Releases:
    def __init__(self, repository: Repository, sources: Sources, consumer: str) -> None:
        self._repository, self._sources, self._consumer = repository, sources, consumer

    def note(self, key: TimelineKey) -> None:
        """A timeline is durable further than it was, or is read for the first time."""
        for source in self._sources.all:
            source.unreleased.add(key)

    async def run(self) -> None:
        """Tells, until cancelled."""
        while True:
            await asyncio.sleep(RELEASE_SECONDS)
            due = [item for item in self._sources.all if item.unreleased and not item.lost]
            await asyncio.gather(*map(self._release, due))

    async def _release(self, source: Source) -> None:
        while source.unreleased:
            keys = [source.unreleased.pop() for _ in range(min(BATCH, len(source.unreleased)))]
            try:
                positions = [item for key in keys if (item := self._position(key)) is not None]
                await source.client.release_wal(self._consumer, positions)
            except PagestoreError as error:
                source.unreleased.update(keys)
                _log.info("not released", address=source.client.address, error=str(error))
                return

    def _position(self, key: TimelineKey) -> tuple[*TimelineKey, int] | None:
        try:
            return *key, self._repository.get(*key).disk_consistent_lsn
        except NotFound:
            return None
