"""Places asked of a control plane that goes away: who has come before still comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pagestore.errors import NotFound, Unavailable
from pagestore.pgwire.scram import Verifier
from pagestore.proxy.asked import AskedPlaces
from pagestore.proxy.memory import Memory
from pagestore.proxy.places import Destination, Place
from pagestore.proxy.target import Target
from pagestore.v1 import proxy_pb2 as pb
from tests.unit.proxy.test_judging import SECRET, found

APP, OTHER = Target("app"), Target("other")


class Control:
    """As its client sees it. While it is away whoever is patient waits until it is back."""

    def __init__(self) -> None:
        self.back = asyncio.Event()
        self.back.set()
        self.places = {"app": "t/1"}
        self.role_found = found()

    async def role(
        self, target: str, user: str, *, patience: float | None = None
    ) -> pb.LookUpRoleResponse:
        await self._there(patience)
        return self.role_found

    async def find(self, target: str, *, patience: float | None = None) -> pb.FoundPlace:
        await self._there(patience)
        if target not in self.places:
            raise NotFound("DATABASE_NOT_FOUND", "There is none.")
        return pb.FoundPlace(place=pb.Place(id=self.places[target], name=target), inner="inner")

    async def awake(self) -> list[pb.AwakePlace]:
        return [
            pb.AwakePlace(place=pb.Place(id=database, name=name), address=pb.PlaceAddress())
            for name, database in self.places.items()
        ]

    async def _there(self, patience: float | None) -> None:
        if patience is not None and not self.back.is_set():
            raise Unavailable("UNAVAILABLE", "It is away.")
        await self.back.wait()


def play(story: Callable[[Control, AskedPlaces], Awaitable[None]]) -> None:
    async def whole() -> None:
        control = Control()
        client: Any = control
        await asyncio.wait_for(story(control, AskedPlaces(client, b"secret")), 5)

    asyncio.run(whole())


def test_who_has_come_before_comes_in_while_the_control_plane_is_away() -> None:
    async def story(control: Control, places: AskedPlaces) -> None:
        before = await places.role(APP, "ann"), await places.find(APP)
        control.back.clear()
        role, destination = await places.role(APP, "ann"), await places.find(APP)
        assert (role.verifier, role.refusal, destination) == (
            before[0].verifier,
            before[0].refusal,
            before[1],
        )

    play(story)


def test_a_password_that_may_be_newer_than_what_is_remembered_is_not_called_wrong() -> None:
    async def story(control: Control, places: AskedPlaces) -> None:
        assert (await places.role(APP, "ann")).failure is None
        await places.find(APP)
        control.back.clear()
        failure = (await places.role(APP, "ann")).failure
        assert failure is not None
        assert failure[0] == "57P03"

    play(story)


@pytest.mark.parametrize("user", ["ann", "nobody"])
def test_who_has_never_come_waits_for_the_control_plane(user: str) -> None:
    async def story(control: Control, places: AskedPlaces) -> None:
        if user == "nobody":
            control.role_found = pb.LookUpRoleResponse()
            await places.role(APP, user)
        control.back.clear()
        waiting = asyncio.create_task(places.role(APP, user))
        finding = asyncio.create_task(places.find(APP))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert not finding.done()
        control.back.set()
        await waiting
        assert (await finding).place.name == "app"

    play(story)


def test_what_is_looked_up_anew_replaces_what_was_remembered() -> None:
    async def story(control: Control, places: AskedPlaces) -> None:
        await places.role(APP, "ann")
        await places.find(APP)
        other = Verifier.parse(SECRET.replace("MDEy", "MDEz"))
        control.role_found = found(password=SECRET.replace("MDEy", "MDEz"))
        await places.role(APP, "ann")
        control.back.clear()
        assert (await places.role(APP, "ann")).verifier == other

    play(story)


def test_a_name_that_means_another_database_by_now_is_asked_for() -> None:
    async def story(control: Control, places: AskedPlaces) -> None:
        await places.find(APP)
        control.places = {"app": "t/2", "old": "t/1"}
        await places.awake()
        control.back.clear()
        finding = asyncio.create_task(places.find(APP))
        await asyncio.sleep(0.01)
        assert not finding.done()
        control.back.set()
        assert (await finding).place.database == "t/2"

    play(story)


def test_of_a_database_that_was_removed_neither_place_nor_roles_are_remembered() -> None:
    async def story(control: Control, places: AskedPlaces) -> None:
        await places.role(APP, "ann")
        places.forget((await places.find(APP)).place)
        control.back.clear()
        for asked in (places.role(APP, "ann"), places.find(APP)):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asked, 0.01)

    play(story)


def test_a_database_that_is_not_found_is_not_remembered() -> None:
    async def story(control: Control, places: AskedPlaces) -> None:
        await places.find(APP)
        control.places = {}
        with pytest.raises(NotFound):
            await places.find(APP)
        control.back.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(places.find(APP), 0.01)

    play(story)


def test_the_same_name_of_another_tenant_is_another_one() -> None:
    memory = Memory()
    memory.learn_destination(APP, Destination(Place("t/1", name="app"), "inner"))
    memory.seen([Place("t/1", name="app"), Place("u/9", name="app")])
    assert memory.destination(APP) is not None


def test_only_so_many_are_remembered_and_the_longest_unused_goes_first() -> None:
    memory = Memory(bound=1)
    for target in (APP, OTHER):
        memory.learn_role(target, "ann", found())
        memory.learn_destination(target, Destination(Place("t/1"), "inner"))
    assert (memory.role(APP, "ann"), memory.role(OTHER, "ann")) == (None, found())
    assert (memory.destination(APP) is None, memory.destination(OTHER) is None) == (True, False)
