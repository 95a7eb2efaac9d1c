"""What safekeepers tell each other, between real servers in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pagestore.consensus.acceptor import Elect, TermSwitch
from pagestore.consensus.members import Configuration, Member
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.services import wal as service
from pagestore.services.server import GrpcServer
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice.addresses import AddressBook
from pagestore.walservice.safekeeper import Safekeeper, Settings
from pagestore.walservice.watch import TimelineKey
from tests import access
from tests.unit.walservice.test_segments import SEGMENT, Log

TWO = Configuration(1, (Member(1), Member(2)))
LOG = Log(SEGMENT + 40, 100, 100)


@asynccontextmanager
async def running(data_dir: Path, number: int) -> AsyncIterator[Safekeeper]:
    keeper = await Safekeeper.open(data_dir / str(number), Settings(number))
    server = GrpcServer(access.guard())
    server.add_service(pb.DESCRIPTOR.services_by_name["WalService"], service.WalService(keeper))
    await keeper.book.learn({number: await server.start("127.0.0.1:0")})
    try:
        yield keeper
    finally:
        await server.stop(0)
        await keeper.close()


@asynccontextmanager
async def pair(data_dir: Path) -> AsyncIterator[tuple[Safekeeper, Safekeeper]]:
    """Two that know each other's addresses."""
    async with running(data_dir, 1) as one, running(data_dir, 2) as two:
        await one.book.learn(two.book.addresses)
        await two.book.learn(one.book.addresses)
        yield one, two


async def elected(*keepers: Safekeeper, key: TimelineKey | None = None) -> TimelineKey:
    key = key or TimelineKey(DEFAULT_TENANT, TimelineId.generate())
    for keeper in keepers:
        await keeper.create(key, LOG.start, 42, Member(keeper.number), TWO)
        async with keeper.use(key) as timeline:
            await timeline.vote(1)
            await timeline.elect(Elect(1, (TermSwitch(1, LOG.start.flush_lsn),), TWO))
    return key


async def append(key: TimelineKey, *keepers: Safekeeper) -> None:
    for keeper in keepers:
        async with keeper.use(key) as timeline:
            await timeline.append(1, LOG.start.flush_lsn, LOG.data)


async def committed(keeper: Safekeeper, key: TimelineKey) -> bool:
    async with keeper.use(key) as timeline:
        return await timeline.wait_commit(LOG.end.flush_lsn, 20)


def test_who_waits_for_a_commit_has_the_peers_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here news by themselves come only once."""
    monkeypatch.setattr(service, "COALESCE_SECONDS", 1000)

    async def main() -> None:
        async with pair(tmp_path) as keepers:
            key = await elected(*keepers)
            while not all(keeper.peers.recall(key) for keeper in keepers):
                await asyncio.sleep(0.01)
            await append(key, *keepers)
            for keeper in keepers:
                assert await committed(keeper, key)

    asyncio.run(main())


def test_what_was_told_before_a_timeline_was_here_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path) as (one, two):
            await elected(one, two)  # they listen to each other from now on
            key = await elected(one)
            await append(key, one)
            while not two.peers.recall(key) or (
                two.peers.recall(key)[0].flush_lsn < LOG.end.flush_lsn
            ):
                await asyncio.sleep(0.01)
            await elected(two, key=key)
            await append(key, two)
            async with two.use(key) as timeline:
                assert timeline.state.commit_lsn == LOG.end.flush_lsn

    asyncio.run(main())


def test_one_stream_serves_all_timelines_and_ends_with_the_last(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path) as (one, two):
            keys = [await elected(one, two) for _ in range(20)]
            assert len(one.peers._tasks) == len(two.peers._tasks) == 1
            for key in keys:
                await one.delete(key)
            assert not one.peers._tasks

    asyncio.run(main())


def test_a_peer_that_moves_is_found_at_its_new_address(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, 1) as one:
            async with running(tmp_path, 2) as two:
                await one.book.learn(two.book.addresses)
                await two.book.learn(one.book.addresses)
                key = await elected(one, two)
                await append(key, one)
            async with running(tmp_path, 2) as two:
                await append(key, two)
                assert one.book.addresses[2] != two.book.addresses[2]
                assert await committed(two, key), "it knows where the other is"
                await one.book.learn(two.book.addresses)
                assert await committed(one, key)

    asyncio.run(main())


def test_addresses_are_remembered_and_the_newest_word_holds(tmp_path: Path) -> None:
    async def main() -> None:
        book = AddressBook(tmp_path)
        await book.load({2: "two:1"})
        await book.learn({3: "three:1", 2: ""})
        again = AddressBook(tmp_path)
        await again.load({3: "three:2"})
        assert again.addresses == {2: "two:1", 3: "three:2"}
        assert (tmp_path / "peers").read_text() == "2 two:1\n3 three:2\n"

    asyncio.run(main())
