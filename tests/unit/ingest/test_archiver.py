"""Committed WAL is in the object store within its age, and goes when layers have it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from pagestore.client.walservice import WalPiece
from pagestore.errors import Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.ingest import archiver as module
from pagestore.ingest.archiver import Archiver
from pagestore.ingest.sources import Sources
from pagestore.objects.archived_wal import ArchivedWal, Key
from pagestore.v1 import wal_pb2
from tests.unit.objects.faulty import Memory, fail, faulty

KEY: Key = (TenantId(b"t" * 16), TimelineId(b"l" * 16))
STORE = bytes(16)


class Safekeeper:
    """One timeline's log, from 100 on."""

    address = "here"

    def __init__(self) -> None:
        self.log = b""
        self.start = 100
        self.reads: list[tuple[int, int]] = []
        self.away = False

    async def get_status(self, tenant: TenantId, timeline: TimelineId) -> Any:
        if self.away:
            raise Unavailable("UNAVAILABLE", "It is away.")
        return wal_pb2.WalTimelineStatus(term=3, system_id=42)

    async def read_back(
        self, tenant: TenantId, timeline: TimelineId, start: int, end: int
    ) -> AsyncGenerator[WalPiece, None]:
        start = max(start, self.start)
        self.reads.append((start, end))
        for at in range(start, end, 3):
            yield WalPiece(at, self.log[at - self.start : min(at + 3, end) - self.start])


class Kept:
    generation = 5

    def __init__(self) -> None:
        self.durable = 0
        self.store_is_ours = True

    def check_store(self) -> None:
        if not self.store_is_ours:
            raise Unavailable("OBJECT_STORE_UNAVAILABLE", "It is another one.")

    def durable_lsn(self, key: Key) -> int:
        return self.durable


class World:
    def __init__(self) -> None:
        self.store, self.backend, _ = faulty()
        self.safekeeper, self.kept = Safekeeper(), Kept()
        self.sources = Sources([self.safekeeper])  # type: ignore[list-item]
        self.known = True
        self.archiver = self.fresh()

    def fresh(self) -> Archiver:
        return Archiver(
            *(self.store, STORE, self.sources, self.kept, lambda key: self.known), age=0.05
        )

    def commit(self, data: bytes) -> None:
        self.safekeeper.log += data
        self.sources.all[0].commits[KEY] = 100 + len(self.safekeeper.log)
        self.archiver.note(KEY)

    def archived(self, begin: int = 100) -> bytes:
        return b"".join(item.data for item in ArchivedWal(self.store, STORE).read(KEY, begin))

    def names(self) -> list[str]:
        return [name for name in self.backend.objects if name.startswith("wal/")]


def in_a_world(test: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        async def go() -> None:
            world = World()
            running = asyncio.create_task(world.archiver.run())
            await test(world)
            running.cancel()

        asyncio.run(go())

    del run.__wrapped__  # type: ignore[attr-defined]
    return run


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.005)


@in_a_world
async def test_what_was_committed_is_there_and_its_age_is_told_until_then(world: World) -> None:
    assert world.archiver.behind_seconds == 0
    world.commit(b"first record")
    assert world.archiver.behind_seconds > 0
    await until(lambda: not world.archiver.behind_seconds)
    assert world.archived() == b"first record"
    world.commit(b", second")
    await until(lambda: world.archived() == b"first record, second")
    await until(lambda: world.archiver.reached(KEY) == 120)  # a moment after it is there
    assert [read[0] for read in world.safekeeper.reads] == [100, 112]


@in_a_world
async def test_a_long_range_goes_up_in_objects_of_bounded_size(world: World) -> None:
    before = module.OBJECT_BYTES
    module.OBJECT_BYTES = 10
    try:
        world.commit(bytes(range(100)))
        await until(lambda: not world.archiver.behind_seconds)
    finally:
        module.OBJECT_BYTES = before
    assert len(world.names()) > 5
    assert world.archived() == bytes(range(100))


@in_a_world
async def test_what_journaled_layers_have_goes_and_the_rest_stays(world: World) -> None:
    world.commit(b"0123456789")
    await until(lambda: not world.archiver.behind_seconds)
    world.commit(b"abcdefghij")
    await until(lambda: not world.archiver.behind_seconds)
    assert len(world.names()) == 2
    world.kept.durable = 112
    world.archiver.note_durable(KEY)
    await until(lambda: len(world.names()) == 1)
    assert world.archived(112) == b"cdefghij"
    world.kept.durable = 120
    world.archiver.note_durable(KEY)
    await until(lambda: not world.names())
    world.commit(b"more")
    await until(lambda: not world.archiver.behind_seconds)
    assert world.archived(120) == b"more"


@in_a_world
async def test_what_another_store_got_under_the_same_url_does_not_count(world: World) -> None:
    module.FIRST_PAUSE, module.LONGEST_PAUSE = 0.01, 0.02
    world.commit(b"0123456789")
    await until(lambda: not world.archiver.behind_seconds)
    ours = dict(world.backend.objects)
    world.backend.objects.clear()
    world.kept.store_is_ours = False
    world.commit(b"abc")
    await until(lambda: bool(world.archiver.last_error and world.names()))
    assert world.archiver.reached(KEY) == 110
    world.backend.objects = ours
    world.kept.store_is_ours = True
    await until(lambda: not world.archiver.behind_seconds)
    assert world.archived() == b"0123456789abc"
    world.kept.store_is_ours = False
    world.kept.durable = 113
    world.archiver.note_durable(KEY)
    await until(lambda: bool(world.archiver.last_error))
    world.backend.objects = dict(ours)
    world.kept.store_is_ours = True
    await until(lambda: not world.names())


@in_a_world
async def test_a_timelines_wal_goes_with_it(world: World) -> None:
    world.commit(b"0123456789")
    await until(lambda: not world.archiver.behind_seconds)
    world.known, world.kept.durable = False, 0
    world.archiver.note_durable(KEY)
    await until(lambda: not world.names())


@in_a_world
async def test_a_new_process_goes_on_where_the_last_one_was(world: World) -> None:
    world.commit(b"0123456789")
    await until(lambda: not world.archiver.behind_seconds)
    world.archiver = world.fresh()
    running = asyncio.create_task(world.archiver.run())
    world.commit(b"abc")
    await until(lambda: world.archived() == b"0123456789abc")
    assert world.safekeeper.reads[-1] == (110, 113)
    running.cancel()


@in_a_world
async def test_whatever_is_away_for_a_while_it_is_told_and_made_up_for(world: World) -> None:
    module.FIRST_PAUSE, module.LONGEST_PAUSE = 0.01, 0.02
    world.safekeeper.away = True
    world.commit(b"0123456789")
    await until(lambda: bool(world.archiver.last_error))
    assert world.archiver.behind_seconds > 0
    world.safekeeper.away = False
    await until(lambda: not world.archiver.behind_seconds)
    backend: Memory = world.backend
    backend.before = fail
    world.commit(b"abc")
    await until(lambda: bool(world.archiver.last_error))
    backend.before = lambda number, verb, name: None
    await until(lambda: not world.archiver.behind_seconds and not world.archiver.last_error)
    assert world.archived() == b"0123456789abc"
