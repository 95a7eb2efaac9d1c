"""Lists in pages, and lists that are watched."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.control.state import ControlState
from pagestore.control.watching import LOOK_SECONDS, Gone, Seen, Whole, watch_databases
from pagestore.errors import InvalidInput
from pagestore.ids import TenantId
from pagestore.services import paging
from tests.unit.control.fakes import TENANT, Plane, play
from tests.unit.control.test_state import database


async def told(world: Plane, watch: Any, seconds: float = LOOK_SECONDS * 3) -> list[str]:
    """What a watcher hears within so long; a database that is told again is heard once."""
    heard: list[str] = []
    while True:
        try:
            async with asyncio.timeout(seconds):
                change = await watch.get()
        except TimeoutError:
            return list(dict.fromkeys(heard))
        match change:
            case Seen(record):
                state = world.computes.status((TENANT, record.name)).state.name.lower()
                heard.append(f"{record.name} {state}")
            case Gone(name):
                heard.append(f"{name} gone")
            case Whole():
                heard.append("whole")


def watching(world: Plane) -> tuple[asyncio.Queue[Any], asyncio.Task[None]]:
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def listen() -> None:
        async for change in watch_databases(world.state, world.computes, TENANT):
            heard.put_nowait(change)

    return heard, asyncio.create_task(listen())


def test_a_watcher_has_a_snapshot_and_then_what_changes(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        databases = world.plane.databases
        await databases.create(TENANT, "app")
        heard, listening = watching(world)
        assert await told(world, heard) == ["app running", "whole"]
        assert await told(world, heard) == []
        await databases.create(TENANT, "more")
        assert await told(world, heard) == ["more running"]
        await databases.stop(TENANT, "app")
        assert await told(world, heard) == ["app stopped"]
        await databases.rename(TENANT, "app", "other")
        assert await told(world, heard) == ["app gone", "other stopped"]
        await databases.remove(TENANT, "more")
        assert await told(world, heard) == ["more gone"]
        with world.state.change() as change:
            change.put_database(database("theirs", tenant=TenantId(b"o" * 16)))
        assert await told(world, heard) == []
        listening.cancel()

    play(tmp_path, story)


def test_a_slow_watcher_hears_the_latest(tmp_path: Path) -> None:
    async def story(world: Plane) -> None:
        await world.plane.databases.create(TENANT, "app")
        changes = watch_databases(world.state, world.computes, TENANT)
        assert [await anext(changes), await anext(changes)] == [Seen(world.record()), Whole()]
        for number in range(5):
            await world.plane.databases.stop(TENANT, "app")
            await world.plane.past.checkpoint(TENANT, "app", f"c{number}")
        await world.plane.databases.create(TENANT, "more")
        assert await anext(changes) == Seen(world.record("app"))
        assert await anext(changes) == Seen(world.record("more"))

    play(tmp_path, story)


def test_pages_of_names_are_all_of_them_once(tmp_path: Path) -> None:
    names = sorted([*(f"n{number}" for number in range(23)), "n1é", "z" * 63], key=str.encode)
    with ControlState(tmp_path) as state:
        with state.change() as change:
            for name in names:
                change.put_database(database(name))
            change.put_database(database("theirs", tenant=TenantId(b"o" * 16)))
        view = state.view()
        for size in (1, 4, 25, 100):
            after, found = "", list[str]()
            while page := view.databases_after(TENANT, after, size):
                assert len(page) <= size
                found += [item.name for item in page]
                after = paging.name_of(paging.token_of(page[-1].name))
            assert found == names
        with state.change() as change:
            change.remove_database(view.known_database(TENANT, "n10"))
        assert view.databases_after(TENANT, "n10", 1)[0].name == "n11", "also where it is gone"


@given(st.integers(0, 30), st.integers(1, 7), st.integers(0, 3))
def test_pages_of_what_is_newest_first_miss_nothing_old(count: int, size: int, new: int) -> None:
    items = list(range(count, 0, -1))
    heads = itertools.count(count + 1)
    found: list[int] = []
    token = ""
    while True:
        page, token = paging.newest_first(items, size, token)
        found += page
        if not token:
            break
        for _ in range(new):
            items.insert(0, next(heads))
    assert found == list(range(count, 0, -1))


@pytest.mark.parametrize("token", ["?", "YQ", "YQ==", "LTE=", "/+8="])
def test_a_strange_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        paging.newest_first([1, 2], 1, token)
