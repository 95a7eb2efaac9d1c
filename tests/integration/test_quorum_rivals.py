"""Two who start computes of one timeline and do not know of each other: one can commit."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pagestore.agent.agent import Agent, HostSettings, Wanted
from pagestore.agent.place import install, make_compute_dir
from pagestore.agent.watched import FENCED, WatchedCompute
from pagestore.client.page import AsyncPageClient
from pagestore.compute.record import running_computes
from pagestore.compute.running import RunningCompute
from pagestore.compute.start import ComputeSpec, start_compute
from pagestore.errors import Aborted
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.installation.layout import lib_dir
from pagestore.postgres import majors
from pagestore.quorum.client import QuorumClient
from pagestore.transfer.pgdata import read_pgdata
from tests import access
from tests.integration.faults import server_frozen
from tests.integration.page_process import PageProcess
from tests.plain_postgres import (
    BINDIR,
    MAJOR,
    RUN_AS,
    PlainPostgres,
    module,
    passable_dir,
    plain_postgres,
)
from tests.safekeepers import three_safekeepers

Session = psycopg.AsyncConnection[tuple[object, ...]]
RACES = 4


@dataclass
class Parts:
    root: Path
    safekeepers: dict[int, str]
    """Their addresses."""
    pages: PageProcess


@pytest.fixture(scope="module")
def cluster() -> Iterator[PlainPostgres]:
    with plain_postgres() as made:
        made.sql("CREATE TABLE t (who text)")
        made.stop()
        yield made


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    root = passable_dir()
    services = root / "services"
    services.mkdir()
    try:
        with three_safekeepers(services) as three:
            places = {number: process.listen for number, process in three.at.items()}
            with PageProcess(services / "pages", [*places.values()], run_as=RUN_AS) as pages:
                yield Parts(root, places, pages)
    finally:
        shutil.rmtree(root, ignore_errors=True)


class Starter:
    """An agent on a machine of its own."""

    def __init__(self, parts: Parts, name: str) -> None:
        self.name = name
        self.pages = AsyncPageClient(parts.pages.address)
        self.wal = QuorumClient(parts.safekeepers, generations=lambda above: above + 1)
        directory = parts.root / name
        make_compute_dir(directory, RUN_AS)
        self.directory = directory
        self.agent = self.agent_with(self.wal)

    def agent_with(self, wal: QuorumClient) -> Agent:
        host = HostSettings(
            directory=self.directory,
            bindir=BINDIR,
            run_as=RUN_AS,
            shim_library=lib_dir() / majors.library("shim"),
            signer=access.signer(),
        )
        return Agent(host, self.pages, wal)

    async def start(self, timeline: TimelineId) -> WatchedCompute:
        return await self.agent.start(self.wanted(timeline))

    def wanted(self, timeline: TimelineId) -> Wanted:
        name = f"{str(timeline)[:10]}-{secrets.token_hex(3)}"
        return Wanted(name, DEFAULT_TENANT, timeline, major=MAJOR)

    async def discard(self, compute: WatchedCompute) -> None:
        await self.agent.discard(compute.name)

    async def start_unwatched(self, timeline: TimelineId) -> RunningCompute:
        """By an agent that is gone right afterwards."""
        library = install(module("shim"), self.directory / "lib")
        spec = ComputeSpec(
            signer=access.signer(),
            tenant=DEFAULT_TENANT,
            timeline=timeline,
            directory=self.directory / "0123456789-abcdef",
            page_server=self.pages.address,
            run_as=RUN_AS,
            bindir=BINDIR,
            major=MAJOR,
            shim_library=library,
        )
        compute = await start_compute(spec, self.pages, self.wal)
        compute.release()
        return compute

    async def close(self) -> None:
        for name in [*self.agent.computes]:
            await self.agent.discard(name)
        await self.pages.close()
        await self.wal.close()


async def import_cluster(starter: Starter, pgdata: Path) -> TimelineId:
    timeline = TimelineId.generate()
    header = next(read_pgdata(pgdata, DEFAULT_TENANT, timeline)).header
    info = await starter.pages.import_timeline(read_pgdata(pgdata, DEFAULT_TENANT, timeline))
    await starter.wal.create_timeline(
        DEFAULT_TENANT,
        timeline,
        info.last_record_lsn,
        prev_record_lsn=header.checkpoint_lsn,
        system_id=header.settings.system_id,
    )
    return timeline


@asynccontextmanager
async def rivals(
    parts: Parts, cluster: PlainPostgres
) -> AsyncIterator[tuple[Starter, Starter, TimelineId]]:
    first, second = Starter(parts, "first"), Starter(parts, "second")
    try:
        yield first, second, await import_cluster(first, cluster.data)
    finally:
        for starter in (first, second):
            await starter.close()
            shutil.rmtree(parts.root / starter.name, ignore_errors=True)


async def connect(conninfo: str) -> Session:
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True)


async def insert(session: Session, who: str) -> bool:
    """Whether it was committed; waits until the client is told."""
    try:
        await session.execute("INSERT INTO t VALUES (%s)", [who])
    except psycopg.Error:
        return False
    return True


async def connect_and_insert(compute: WatchedCompute, who: str) -> bool:
    try:
        async with await connect(compute.running.conninfo()) as session:
            return await insert(session, who)
    except psycopg.Error:
        return False


async def rows(compute: WatchedCompute) -> list[str]:
    async with await connect(compute.running.conninfo()) as session:
        found = await (await session.execute("SELECT who FROM t ORDER BY 1")).fetchall()
    return [str(row[0]) for row in found]


def test_of_two_computes_started_at_once_one_can_commit(
    parts: Parts, cluster: PlainPostgres
) -> None:
    async def main() -> None:
        async with rivals(parts, cluster) as (first, second, timeline):
            committed: list[str] = []
            for race in range(RACES):
                started = await asyncio.gather(
                    *(starter.start(timeline) for starter in (first, second)),
                    return_exceptions=True,
                )
                computes = [item for item in started if not isinstance(item, BaseException)]
                refused = [item for item in started if isinstance(item, BaseException)]
                assert all(isinstance(item, Aborted) for item in refused), refused
                names = [f"{race}-{number}" for number in range(len(computes))]
                told = await asyncio.gather(*map(connect_and_insert, computes, names))
                assert sum(told) == 1, told
                winner = computes[told.index(True)]
                committed.append(names[told.index(True)])
                assert await rows(winner) == committed
                for starter in (first, second):
                    for compute in [*starter.agent.computes.values()]:
                        await starter.discard(compute)

    asyncio.run(main())


class Overtaken(QuorumClient):
    """Of a start whose rival wins when the safekeepers have agreed to follow it, and cannot yet."""

    starter: Starter
    rival: Starter

    async def attach_compute(
        self, tenant: TenantId, timeline: TimelineId, *told: Any, hold: bool = False
    ) -> None:
        if hold:
            await super().attach_compute(tenant, timeline, *told, hold=True)
            return
        [started] = running_computes(self.starter.directory)
        with server_frozen(started.pid):
            await super().attach_compute(tenant, timeline, *told)
            await self.rival.wal.win_term(tenant, timeline)


def test_a_start_that_is_overtaken_when_it_is_attached_ends_with_the_reason(
    parts: Parts, cluster: PlainPostgres
) -> None:
    async def main() -> None:
        async with rivals(parts, cluster) as (first, second, timeline):
            async with Overtaken(parts.safekeepers, generations=lambda above: above + 1) as wal:
                wal.starter, wal.rival = first, second
                with pytest.raises(Aborted) as caught:
                    await first.agent_with(wal).start(first.wanted(timeline))
            assert caught.value.reason == "STALE_TERM"
            await first.agent.adopt()
            assert first.agent.computes == {}
            compute = await second.start(timeline)
            assert await connect_and_insert(compute, "after")
            await second.discard(compute)

    asyncio.run(main())


def test_an_old_compute_that_thaws_after_its_successor_began_cannot_commit(
    parts: Parts, cluster: PlainPostgres
) -> None:
    """Its whole machine was frozen, its control plane too, which ends it when it looks again."""

    async def main() -> None:
        async with rivals(parts, cluster) as (first, second, timeline):
            old = await first.start_unwatched(timeline)
            session = await connect(old.conninfo())
            assert await insert(session, "before")
            with server_frozen(old.pid):
                waiting = asyncio.create_task(insert(session, "in vain"))
                new = await second.start(timeline)
                assert await connect_and_insert(new, "after")
            done, _ = await asyncio.wait([waiting], timeout=2)
            assert not done, "nobody can have confirmed it, nor told the client so"
            await first.agent.adopt()
            [adopted] = first.agent.computes.values()
            assert not await waiting
            await session.close()
            while adopted.alive:
                await first.agent.changed(1)
            assert adopted.why == FENCED
            assert await rows(new) == ["after", "before"]
            await second.agent.stop(new.name)
            again = await first.start(timeline)
            assert await rows(again) == ["after", "before"]
            await first.discard(again)

    asyncio.run(main())
