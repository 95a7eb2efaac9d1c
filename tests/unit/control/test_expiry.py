"""Databases that were made for a time, over fakes; the clock of days is the test's."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import NoReturn

import pytest

from pagestore import tasks
from pagestore.client.points import AtCheckpoint, Head
from pagestore.control.expiry import LONGEST_PAUSE, LOOK_SECONDS, expiry_of, remove_expired
from pagestore.errors import InvalidInput, ResourceExhausted
from tests.unit.control.fakes import TEMPLATE, TENANT, Plane, play

BEGAN = 1_800_000_000_000_000
SECOND = 1_000_000


class Days:
    """The time of day, which passes with the virtual clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def __call__(self) -> int:
        return BEGAN + int((self._loop.time() - self._began) * SECOND)


def names(plane: Plane) -> set[str]:
    return {record.name for record in plane.state.view().databases(TENANT)}


async def _with_ttl(plane: Plane, name: str, seconds: int) -> None:
    await plane.plane.databases.create(TENANT, name, expires_micros=BEGAN + seconds * SECOND)


def watched(plane: Plane) -> asyncio.Task[None]:
    return tasks.endless(remove_expired(plane.state, plane.plane.databases, Days()), "expiry")


def test_each_goes_when_its_time_is_over_and_nothing_else_does(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        databases = plane.plane.databases
        await databases.create(TENANT, "stays")
        await _with_ttl(plane, "soon", 10)
        await _with_ttl(plane, "later", 100)
        watching = watched(plane)
        await asyncio.sleep(9)
        assert names(plane) == {"stays", "soon", "later"}
        await asyncio.sleep(1 + 2 * LOOK_SECONDS)
        assert names(plane) == {"stays", "later"}
        await asyncio.sleep(90)
        assert names(plane) == {"stays"}
        await plane.settled()
        assert plane.live() == {plane.record("stays").timeline, TEMPLATE}
        watching.cancel()

    play(tmp_path, story)


def test_who_is_kept_in_time_stays_so_long_or_for_good(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        for name in ("longer", "for-good", "shorter"):
            await _with_ttl(plane, name, 10)
        databases = plane.plane.databases
        await databases.keep(TENANT, "longer", BEGAN + 20 * SECOND)
        await databases.keep(TENANT, "for-good", 0)
        await databases.keep(TENANT, "shorter", BEGAN + 5 * SECOND)
        watching = watched(plane)
        for seconds, left in (
            (8, {"longer", "for-good"}),
            (15, {"longer", "for-good"}),
            (25, {"for-good"}),
        ):
            await asyncio.sleep(seconds - asyncio.get_running_loop().time())
            assert names(plane) == left
        watching.cancel()

    play(tmp_path, story)


def test_its_time_goes_with_it_over_a_new_name_and_a_move_but_not_to_its_branches(
    tmp_path: Path,
) -> None:
    async def story(plane: Plane) -> None:
        await _with_ttl(plane, "app", 10)
        await plane.plane.past.checkpoint(TENANT, "app", "before")
        plane.commit("x")
        await plane.plane.past.restore(TENANT, "app", AtCheckpoint("before"))
        await plane.plane.databases.branch(TENANT, "app", "twig", Head())
        await plane.plane.databases.rename(TENANT, "app", "shop")
        assert plane.record("shop").expires_micros == BEGAN + 10 * SECOND
        assert plane.record("twig").expires_micros == 0
        watching = watched(plane)
        await asyncio.sleep(12)
        assert names(plane) == {"twig"}
        watching.cancel()

    play(tmp_path, story)


def test_another_database_of_that_name_does_not_have_its_time(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await _with_ttl(plane, "app", 10)
        await plane.plane.databases.remove(TENANT, "app")
        await plane.plane.databases.create(TENANT, "app")
        watching = watched(plane)
        await asyncio.sleep(20)
        assert names(plane) == {"app"}
        watching.cancel()

    play(tmp_path, story)


def test_what_exists_already_keeps_the_time_that_it_has(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        databases = plane.plane.databases
        await databases.create(TENANT, "app")
        await databases.create(TENANT, "app", if_not_exists=True, expires_micros=BEGAN)
        await databases.branch(TENANT, "app", "twig", Head(), expires_micros=BEGAN + SECOND)
        await databases.branch(TENANT, "app", "twig", Head(), if_not_exists=True)
        assert (plane.record().expires_micros, plane.record("twig").expires_micros) == (
            0,
            BEGAN + SECOND,
        )

    play(tmp_path, story)


def test_what_cannot_be_removed_now_goes_later(tmp_path: Path) -> None:
    async def story(plane: Plane) -> None:
        await _with_ttl(plane, "app", 1)
        watching = watched(plane)
        with pytest.MonkeyPatch.context() as full:
            full.setattr(plane.state, "change", _full)
            await asyncio.sleep(100)
        assert names(plane) == {"app"}
        await asyncio.sleep(LONGEST_PAUSE + 1)
        assert names(plane) == set()
        watching.cancel()

    play(tmp_path, story)


def _full() -> NoReturn:
    raise ResourceExhausted("STORE_FULL", "There is no room.")


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, 1e12])
def test_a_time_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        expiry_of(wrong, BEGAN)
    assert refused.value.reason == "INVALID_TTL"


def test_a_time_counts_from_now() -> None:
    assert expiry_of(None, BEGAN) == 0
    assert expiry_of(1.5, BEGAN) == BEGAN + 1_500_000
    assert expiry_of(1e-9, BEGAN) == BEGAN + 1
