"""A server that was executed before anybody knew for which database."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pagestore.agent import spare as spare_module
from pagestore.agent.agent import NOBODYS_TENANT, NOBODYS_TIMELINE
from pagestore.agent.place import spare_log_of, spare_name
from pagestore.agent.spare import Spare
from pagestore.agent.users import DEFAULT_UIDS, range_of_uids
from pagestore.compute.leftovers import clear
from pagestore.compute.record import ComputeRecord
from pagestore.compute.removal import is_aside
from pagestore.compute.start import ComputeSpec
from pagestore.errors import NotFound
from pagestore.postgres.process import Identity
from tests.plain_postgres import BINDIR, MAJOR, module, passable_dir
from tests.waiting import until

pytestmark = pytest.mark.walls
UID = range_of_uids(DEFAULT_UIDS)[-2]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(spare_module, "REST_SECONDS", 0.0)
    path = passable_dir()
    (path / "logs").mkdir()
    shutil.copy(module("shim"), path / "lib.so")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def spec_in(place: Path) -> ComputeSpec:
    return ComputeSpec(
        tenant=NOBODYS_TENANT,
        timeline=NOBODYS_TIMELINE,
        directory=place / spare_name(),
        page_server="127.0.0.1:1",
        shim_library=place / "lib.so",
        bindir=BINDIR,
        major=MAJOR,
        log=spare_log_of(place),
        walls=True,
        network=False,
        uid=UID if os.geteuid() == 0 else None,
    )


@asynccontextmanager
async def waiting(place: Path) -> AsyncIterator[tuple[Spare, Path, Identity]]:
    """One that is there, its directory, and the outermost process of its walls."""
    spare = Spare(lambda _: spec_in(place), None)
    spare.prepare(MAJOR)
    try:
        await until(lambda: spare.waits(MAJOR))
        (directory,) = (path for path in place.glob("0*") if not is_aside(path))
        record = ComputeRecord.load(directory)
        assert record is not None
        assert record.sandbox is not None
        assert record.sandbox.outer.alive
        yield spare, directory, record.sandbox.outer
    finally:
        await spare.close()


def test_who_is_like_it_takes_it_and_nobody_else_does(place: Path) -> None:
    async def main() -> None:
        async with waiting(place) as (spare, directory, outer):
            taken = spare.take(replace(spec_in(place), log=place / "logs/x.log"))
            assert taken is not None
            assert taken.spec.directory == directory
            assert spare.take(spec_in(place)) is None, "there was one"
            await taken.end()
            taken.remove()
            assert not outer.alive
        async with waiting(place) as (spare, directory, outer):
            assert spare.take(replace(spec_in(place), page_server="127.0.0.1:2")) is None
            await until(lambda: not outer.alive and not directory.exists())

    asyncio.run(main())


def test_one_that_has_ended_is_nobodys(place: Path) -> None:
    async def main() -> None:
        async with waiting(place) as (spare, directory, outer):
            os.kill(outer.pid, 9)
            await until(lambda: not outer.alive)
            assert spare.take(spec_in(place)) is None
            await until(lambda: not directory.exists())

    asyncio.run(main())


@pytest.mark.parametrize("error", [OSError("no file left"), NotFound("NO", "no uid left")])
def test_where_none_can_be_had_nobody_misses_it(place: Path, error: Exception) -> None:
    def refuse(_: int) -> ComputeSpec:
        raise error

    async def tried(spec: Callable[[int], ComputeSpec]) -> None:
        spare = Spare(spec, None)
        spare.prepare(MAJOR)
        await until(lambda: spare.has_tried(MAJOR))
        assert spare.take(spec_in(place)) is None
        await spare.close()

    asyncio.run(tried(refuse))
    asyncio.run(tried(lambda _: replace(spec_in(place), bindir=place)))


def test_it_ends_with_its_agent(place: Path) -> None:
    async def main() -> None:
        async with waiting(place) as (_, directory, outer):
            pass
        assert not outer.alive
        await until(lambda: not directory.exists())

    asyncio.run(main())


def test_the_next_agent_ends_what_a_dead_one_has_left(place: Path) -> None:
    async def main() -> None:
        async with waiting(place) as (_, directory, outer):
            await clear(directory)
            await until(lambda: not outer.alive and not directory.exists())

    asyncio.run(main())


def test_it_is_told_what_it_is_called_and_where_it_logs(place: Path) -> None:
    async def main() -> None:
        async with waiting(place) as (spare, directory, outer):
            log = place / "logs/its.log"
            wanted = replace(spec_in(place), name="0123456789-abcdef", log=log)
            taken = spare.take(wanted)
            assert taken is not None
            taken.dedicate(replace(wanted, directory=directory, uid=taken.spec.uid))
            record = ComputeRecord.load(directory)
            assert record is not None
            assert (record.name, record.log) == (wanted.name, str(log))
            taken.settings({"pagestore.lsn": "no LSN"})
            await until(lambda: not outer.alive)
            assert 'pagestore.tenant_id is ""' in log.read_text()
            await taken.end()
            taken.remove()

    asyncio.run(main())
