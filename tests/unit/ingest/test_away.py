"""What ingest has to read lies in an object store alone, which is away for a while."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError

from pagestore import keyspace
from pagestore.errors import Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.ingest.apply import TimelineIngest
from pagestore.ingest.releases import RELEASE_SECONDS
from pagestore.keyspace import PAGE_SIZE, Kind, ValueKind
from pagestore.maintenance.offsite import Offsite
from pagestore.objects.backends import connect
from pagestore.objects.store import ObjectStore
from pagestore.timeline import elsewhere
from tests.unit import virtual_time
from tests.unit.ingest.fakes import START, World
from tests.unit.layers.model import Entry
from tests.unit.maintenance.offsite import evict_all, settle
from tests.unit.objects.faulty import faulty
from tests.unit.virtual_time import until

Key = tuple[TenantId, TimelineId]
Story = Callable[[World, Key, Key], Coroutine[Any, Any, None]]


SLOT = keyspace.Key(Kind.SLOT).pack(), START, ValueKind.IMAGE, 0, b"of no slot"
"""Has to be read to be known for what it is."""


class Remote:
    """An object store that is there or not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "objects"
        self._aside = directory / "aside"
        url = f"file://{self.directory}"
        self.store = ObjectStore(url, connect(url, {}), sleep=lambda _: None)

    def go(self) -> None:
        self.directory.rename(self._aside)

    def come_back(self) -> None:
        self._aside.rename(self.directory)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch) -> Remote:
    monkeypatch.setattr(elsewhere, "AWAY_SECONDS", 0.0)
    return Remote(tmp_path)


def play(directory: Path, remote: Remote, story: Story) -> None:
    """Of two timelines the first has its layers in the object store alone."""

    async def whole() -> None:
        world = World(directory, objects=remote.store)
        key = world.timeline(2, SLOT)
        offsite = Offsite(world.repository, directory)
        offsite.start()
        settle(offsite)
        assert evict_all(world.repository, offsite) > 0
        await world.close()
        remote.go()
        world = World(directory, objects=remote.store)
        try:
            await story(world, key, world.timeline(4))
        finally:
            await world.close()

    virtual_time.play(whole())


def test_a_timeline_is_taken_in_once_its_layers_can_be_read(tmp_path: Path, remote: Remote) -> None:
    async def story(world: World, key: Key, other: Key) -> None:
        log = world.log(2), world.log(4)
        for number, which in enumerate(log):
            world.logs[which].write(3 + number)
            await world.source.tell(which)
        waiting = world.wait(key, world.logs[key].end)
        await until(lambda: world.reached(other) == world.logs[other].end)
        await until(lambda: world.follower.waits_for(key) is not None)
        error = world.follower.waits_for(key)
        assert error is not None
        assert error.reason == "OBJECT_STORE_UNAVAILABLE"
        assert world.follower.failure(key) is None
        assert world.reached(key) == START
        remote.come_back()
        await until(lambda: world.reached(key) == world.logs[key].end)
        await waiting
        await until(lambda: world.follower.waits_for(key) is None)

    play(tmp_path, remote, story)


def test_it_holds_up_no_other_timelines_release(tmp_path: Path, remote: Remote) -> None:
    async def story(world: World, key: Key, other: Key) -> None:
        world.bound.on_flushed(key)
        world.bound.on_flushed(other)
        await until(lambda: bool(world.source.released), 2 * RELEASE_SECONDS)
        assert world.source.released[0][2] == {other: START}
        remote.come_back()
        await until(lambda: len(world.source.released) == 2, 2 * RELEASE_SECONDS)
        assert world.source.released[1][2] == {key: START}

    play(tmp_path, remote, story)


BLOCKS = 600
"""More than are read at once (clone.py)."""


def block_of(db: int, number: int) -> bytes:
    return keyspace.rel_block(1663, db, 7, 0, number).pack()


def content(number: int) -> bytes:
    return random.Random(number).randbytes(PAGE_SIZE)


def database() -> Iterator[Entry]:
    size = keyspace.rel_size(1663, 1, 7, 0).pack()
    yield keyspace.relmap(1663, 1).pack(), START, ValueKind.IMAGE, 0, bytes(512)
    yield size, START, ValueKind.IMAGE, 0, struct.pack("<I", BLOCKS)
    for number in range(BLOCKS):
        yield block_of(1, number), START, ValueKind.IMAGE, 0, content(number)


def test_what_was_taken_in_by_half_is_taken_in_whole_wherever_the_store_went_away(
    tmp_path: Path, monkeypatch
) -> None:
    """CREATE DATABASE ... STRATEGY file_copy: one record, which reads a whole database."""
    monkeypatch.setattr(elsewhere, "AWAY_SECONDS", 0.0)
    store, backend, _ = faulty()

    async def story() -> None:
        world = World(tmp_path, objects=store)
        key = world.timeline(2, *database())
        log = world.logs[key]
        log.add(4, 0x00, struct.pack("<IIII", 20000, 1663, 1, 1663))
        offsite = Offsite(world.repository, tmp_path)
        offsite.start()
        settle(offsite)
        evict_all(world.repository, offsite)
        timeline, refusals = world.found(key), 0
        while timeline.last_record_lsn < log.end:
            left = refusals + 1
            backend.before = gone_after(left)
            ingest = TimelineIngest(timeline, None)
            try:
                ingest.take(ingest.next_lsn, log.data[ingest.next_lsn - START :])
            except Unavailable:
                refusals += 1
        assert refusals > 2
        backend.before = lambda number, verb, name: None
        for _ in range(2):
            keys = b"".join(block_of(20000, number) for number in range(BLOCKS))
            made = timeline.snapshot().read_pages(keys, log.end, None)
            assert made == b"".join(map(content, range(BLOCKS)))
            assert timeline.freeze() or not timeline.is_dirty
            timeline.flush()
        await world.close()

    def gone_after(requests: int) -> Callable[[int, str, str], None]:
        begin = backend.requests

        def before(number: int, verb: str, name: str) -> None:
            if number - begin >= requests:
                raise GenericError("it went away")

        return before

    virtual_time.play(story())
