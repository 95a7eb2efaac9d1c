"""Safekeepers that a follower reads from, in memory, and what else stands around it.

The WAL is real, of records that say nothing, and so are the core that takes it in and the store:
damage is found as it would be. A safekeeper has told how far it is, may be away, and hands each
read to `serve`, which a test may replace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pagestore import keyspace
from pagestore.client.walservice import WalPiece
from pagestore.errors import PagestoreError, Unavailable
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.ingest.follower import Follower
from pagestore.ingest.sources import WalSource
from pagestore.ingest.waiters import LsnWaiters, TimelineKey
from pagestore.keyspace import ValueKind
from pagestore.objects.store import ObjectStore
from pagestore.pgformat import wal
from pagestore.timeline import Repository, Timeline
from pagestore.v1 import wal_pb2 as pb
from tests.unit import virtual_time
from tests.unit.layers.model import Entry, batch_of

START = 0x3_0000_2000
AWAY = Unavailable("UNAVAILABLE", "The safekeeper is away.")


class Wal:
    """The log of one timeline; `ends` are its records' ends, and its start."""

    def __init__(self) -> None:
        self.data = b""
        self.ends = [START]
        self._prev = START - 64

    @property
    def end(self) -> int:
        return self.ends[-1]

    def write(self, records: int = 1, size: int = 100) -> int:
        """Records that change nothing; where the log ends then."""
        for _ in range(records):
            # XLOG_NOOP, as pg_switch_wal and others have it.
            self.add(0, 0x20, bytes(size))
        return self.end

    def add(self, rmgr: int, info: int, main: bytes) -> int:
        """A record without blocks; where the log ends then."""
        record = wal.record_bytes(rmgr, info, 0, self._prev, wal.record_body(main))
        piece, self._prev, end = wal.lay_out(self.end, record, system_id=1)
        self.data += piece
        self.ends.append(end)
        return end

    def damaged(self, number: int) -> bytes:
        """The log with a byte flipped in its record of this number, counted from 0."""
        at = self.ends[number] - START + 40
        return self.data[:at] + bytes([self.data[at] ^ 1]) + self.data[at + 1 :]


class Read(NamedTuple):
    at: float
    key: TimelineKey
    lsn: int
    linger_ms: int


Serve = Callable[[Read], AsyncGenerator[bytes, None]]


class FakeSource:
    """One safekeeper."""

    def __init__(self, logs: dict[TimelineKey, Wal], number: int = 1) -> None:
        self.address = f"sk{number}:1"
        self.logs = logs
        self.told: dict[TimelineKey, int] = {}
        self.away = False
        self.safekeepers: list[str] = []
        self.watched: list[tuple[float, float | None]] = []
        self.reads: list[Read] = []
        self.released: list[tuple[float, str, dict[TimelineKey, int]]] = []
        self.release_attempts = 0
        self.serve: Serve = self.serves
        self.copies: dict[TimelineKey, bytes] = {}
        """Where it has another log than it should."""
        self._change = asyncio.Condition()
        self.stopped: set[TimelineKey] = set()
        """Whose reads have been broken off by the reader."""

    async def tell(self, key: TimelineKey, lsn: int | None = None) -> None:
        """More is committed: all of the log, unless it is said how far."""
        self.told[key] = self.logs[key].end if lsn is None else lsn
        await self._announce()

    async def break_off(self) -> None:
        self.away = True
        await self._announce()

    async def _announce(self) -> None:
        async with self._change:
            self._change.notify_all()

    def read_at(self, key: TimelineKey) -> list[int]:
        return [item.lsn for item in self.reads if item.key == key]

    # What a follower asks

    async def watch_commits(
        self, consumer: str, *, silence: float | None = None
    ) -> AsyncIterator[pb.CommitUpdate]:
        self.watched.append((virtual_time.now(), silence))
        while True:
            if self.away:
                raise AWAY
            positions = [
                pb.CommitPosition(tenant_id=tenant.raw, timeline_id=timeline.raw, commit_lsn=lsn)
                for (tenant, timeline), lsn in self.told.items()
            ]
            others = [pb.Member(number=9, address=address) for address in self.safekeepers]
            yield pb.CommitUpdate(positions=positions, safekeepers=others, snapshot_complete=True)
            async with self._change:
                await self._change.wait()

    async def read_wal(
        self, tenant: TenantId, timeline: TimelineId, start_lsn: int, *, linger_ms: int = 0
    ) -> AsyncGenerator[WalPiece, None]:
        read = Read(virtual_time.now(), (tenant, timeline), start_lsn, linger_ms)
        self.reads.append(read)
        lsn = start_lsn
        try:
            async for data in self.serve(read):
                yield WalPiece(lsn, data)
                lsn += len(data)
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped.add(read.key)
            raise

    async def serves(self, read: Read) -> AsyncGenerator[bytes, None]:
        """What is committed, and what is committed while it lingers."""
        lsn = read.lsn
        while not self.away:
            end = self.told.get(read.key, 0)
            if end > lsn:
                data = self.copies.get(read.key, self.logs[read.key].data)
                yield data[lsn - START : end - START]
                lsn = end
            elif not read.linger_ms:
                return
            else:
                try:
                    async with asyncio.timeout(read.linger_ms / 1000), self._change:
                        await self._change.wait()
                except TimeoutError:
                    return
        raise AWAY

    async def release_wal(
        self, consumer: str, positions: Iterable[tuple[TenantId, TimelineId, int]]
    ) -> None:
        self.release_attempts += 1
        if self.away:
            raise AWAY
        said = {(tenant, timeline): lsn for tenant, timeline, lsn in positions}
        self.released.append((virtual_time.now(), consumer, said))


def fails(error: PagestoreError) -> Serve:
    async def serve(read: Read) -> AsyncGenerator[bytes, None]:
        raise error
        yield b""

    return serve


class FakeBound:
    """What keeps open layers within memory; `room` is there or not."""

    def __init__(self) -> None:
        self.on_flushed: Callable[[TimelineKey], None] = lambda key: None
        self.room = asyncio.Event()
        self.room.set()
        self.touched: list[TimelineKey] = []
        self.forgotten: list[TimelineKey] = []

    def touch(self, key: TimelineKey) -> None:
        self.touched.append(key)

    def forget(self, key: TimelineKey) -> None:
        self.forgotten.append(key)

    async def make_room(self) -> None:
        await self.room.wait()


class World:
    """A follower of some safekeepers, with timelines that begin at START."""

    def __init__(
        self, directory: Path, safekeepers: int = 1, objects: ObjectStore | None = None
    ) -> None:
        self.repository = Repository.open(directory / "store", objects=objects)
        self.logs: dict[TimelineKey, Wal] = {}
        self.sources = [FakeSource(self.logs, number + 1) for number in range(safekeepers)]
        self.waiters = LsnWaiters()
        self.bound = FakeBound()
        self.connected: list[FakeSource] = []
        self.follower = Follower(
            self.repository,
            self.sources,
            self.waiters,
            self.bound,
            lambda _: None,
            connect=self._connect,
        )
        self._running = asyncio.create_task(self.follower.run())

    @property
    def source(self) -> FakeSource:
        return self.sources[0]

    def _connect(self, address: str) -> WalSource:
        self.connected.append(FakeSource(self.logs))
        self.connected[-1].address = address
        return self.connected[-1]

    def log(self, number: int = 2) -> TimelineKey:
        """One that safekeepers know. Of an even number, so that of two who are equally far the
        first is asked."""
        key = (DEFAULT_TENANT, TimelineId(number.to_bytes(16, "big")))
        self.logs.setdefault(key, Wal())
        return key

    def timeline(self, number: int = 2, *more: Entry) -> TimelineKey:
        """One that the page server has, too; at its beginning are `more` values."""
        key = self.log(number)
        with self.repository.create_root(*key, START, START - 64) as root:
            settings = (keyspace.SETTINGS.pack(), START, ValueKind.IMAGE, 0, bytes(88))
            root.put(batch_of(sorted([settings, *more])))
            root.commit()
        return key

    def found(self, key: TimelineKey) -> Timeline:
        return self.repository.get(*key)

    def reached(self, key: TimelineKey) -> int:
        return self.found(key).last_record_lsn

    def wait(self, key: TimelineKey, lsn: int, seconds: float = 3600.0) -> asyncio.Task[None]:
        """Somebody who wants to read at an LSN."""
        waiting = self.waiters.wait(key, lsn, seconds, lambda: self.reached(key))
        return asyncio.create_task(waiting)

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.follower.close()
        self.repository.close()


Story = Callable[[World], Coroutine[Any, Any, None]]


def play(directory: Path, story: Story, safekeepers: int = 1) -> None:
    """A story of a follower of its own, in virtual time."""

    async def whole() -> None:
        world = World(directory, safekeepers)
        try:
            await virtual_time.settle()
            await story(world)
        finally:
            await world.close()

    virtual_time.play(whole())


def pauses(moments: Iterable[float]) -> list[float]:
    """Between one and the next."""
    return [after - before for before, after in pairwise(moments)]
