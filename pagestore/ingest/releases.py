"""Telling safekeepers which WAL this page server will not ask for again.

That is what its layers have in files, timeline by timeline: after a crash it reads on from there.
Told lazily, many timelines at once, since it only lets safekeepers drop segments. A safekeeper
keeps what a consumer has not released from the moment it knows the consumer, so the first word
comes when a timeline is first read.

Replication slots need WAL from further back: what their consumers have not confirmed. Their states
are in the timeline, so they hold its WAL back here, and that of the timelines it stems from where
a slot has come with a restore; within a bound, beyond which the next start finds the slot lost.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import structlog

from pagestore import durable
from pagestore.errors import NotFound, PagestoreError
from pagestore.ids import MAX_LSN
from pagestore.ingest.sources import Source, Sources
from pagestore.ingest.waiters import TimelineKey
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.slots import oldest_needed, replication_slots

RELEASE_SECONDS = 3.0
BATCH = 1000
_FILE = "consumer"
_CONSUMER = re.compile(r"page-[0-9a-f]{16}")
_log = structlog.get_logger(__name__)


def consumer_of(data_dir: Path) -> str:
    """The name by which safekeepers know the page server of this directory, made once.

    Who has lost it takes another: then safekeepers keep what the old one has not released.
    """
    path = data_dir / _FILE
    known = path.read_bytes().decode(errors="replace").strip() if path.exists() else ""
    if _CONSUMER.fullmatch(known):
        return known
    name = f"page-{secrets.token_hex(8)}"
    if path.exists():
        _log.warning("no name in this file, another is made", path=str(path), name=name)
    durable.replace(path, name.encode())
    return name


class Releases:
    """
    Args:
        slot_wal_bytes: how much WAL of a timeline replication slots hold back.
    """

    def __init__(
        self, repository: Repository, sources: Sources, consumer: str, slot_wal_bytes: int
    ) -> None:
        self._repository, self._sources, self._consumer = repository, sources, consumer
        self._slot_wal_bytes = slot_wal_bytes
        self.within: Callable[[TimelineKey], int] = lambda key: MAX_LSN
        """Beyond which nothing of a timeline is released, wherever its layers are."""
        self._reading = asyncio.Lock()
        self._below: dict[TimelineKey, dict[TimelineKey, int]] = {}
        """What slots of later timelines need of a timeline."""

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
        later: set[TimelineKey] = set()
        while source.unreleased:
            keys = [source.unreleased.pop() for _ in range(min(BATCH, len(source.unreleased)))]
            try:
                async with self._reading:
                    found = await asyncio.to_thread(self._positions, keys, later)
                if found:
                    await source.client.release_wal(self._consumer, found)
            except PagestoreError as error:
                source.unreleased.update(keys)
                _log.info("not released", address=source.client.address, error=str(error))
                break
        source.unreleased |= later

    def _positions(
        self, keys: list[TimelineKey], later: set[TimelineKey]
    ) -> list[tuple[*TimelineKey, int]]:
        """Of those that there are; of which it cannot be said now are added to `later`."""
        found = []
        for key in keys:
            try:
                position = self._position(key)
            except PagestoreError as error:
                # Its ancestors are behind, or its layers away: that holds up none of the others.
                later.add(key)
                _log.debug("not released yet", timeline=str(key[1]), error=str(error))
                continue
            if position is not None:
                found.append(position)
        return found

    def _position(self, key: TimelineKey) -> tuple[*TimelineKey, int] | None:
        try:
            timeline = self._repository.get(*key)
            ours = self._needed_by_slots(key, timeline)
        except NotFound:
            self._hold_below(key, None, None)
            return None
        durable = min(timeline.disk_consistent_lsn, self.within(key))
        return *key, min(durable, ours, *self._below.get(key, {}).values())

    def _needed_by_slots(self, key: TimelineKey, timeline: Timeline) -> int:
        """From where on; and tells the timelines before it."""
        head = timeline.last_record_lsn
        oldest = oldest_needed(replication_slots(timeline.snapshot(), head))
        needed = head if oldest is None else max(oldest, head - self._slot_wal_bytes)
        self._hold_below(key, timeline, needed)
        return needed

    def _hold_below(self, key: TimelineKey, timeline: Timeline | None, needed: int | None) -> None:
        """Replaces what `key` needs of the timelines that it stems from."""
        before = {held for held, by in self._below.items() if by.pop(key, None) is not None}
        while timeline is not None and needed is not None and needed < timeline.branch_lsn:
            if timeline.parent is None:
                break
            above = (key[0], timeline.parent)
            self._below.setdefault(above, {})[key] = needed
            before.discard(above)
            try:
                timeline = self._repository.get(*above)
            except NotFound:
                break
        self._below = {held: by for held, by in self._below.items() if by}
        for released in before:
            self.note(released)
