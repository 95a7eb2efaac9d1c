"""Branches that are made before they are needed, and go behind whoever used them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pagestore.errors import ResourceExhausted, Unavailable
from pagestore.sdk.ahead import MOST_GOING, Ahead
from tests.unit.virtual_time import now, play

MADE, STARTED, REMOVED = 0.03, 0.1, 0.05
"""Seconds."""


class Branch:
    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name, self.kept = client, name, False

    async def close(self) -> None:
        if not self.kept:
            await asyncio.sleep(REMOVED)
            if self.client.stuck:
                raise Unavailable("AWAY", "It is away.")
            self.client.there.remove(self.name)


class Client:
    """Of a control plane that lets nobody have more than `most`."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.count = most, 0
        self.there: list[str] = []
        self.awake: set[str] = set()
        self.stuck = False

    async def branch(self, source: str, *, at: str, ttl: str) -> Branch:
        assert (source, at, ttl) == ("app", "prepared", "1h")
        await asyncio.sleep(MADE)
        if len(self.there) >= self.most:
            raise ResourceExhausted("TENANT_DATABASES", "There are enough.")
        self.count += 1
        self.there.append(f"b{self.count}")
        return Branch(self, self.there[-1])

    async def start(self, name: str) -> None:
        await asyncio.sleep(STARTED)
        if name == "b2":
            raise Unavailable("COMPUTE_AGENT_AWAY", "It does not start yet.")
        self.awake.add(name)


def ahead_of(client: Any) -> Ahead:
    return Ahead(client, "app", "prepared", "1h")


def test_what_is_needed_next_is_there_and_awake_by_then() -> None:
    async def story() -> None:
        client = Client()
        async with ahead_of(client) as ahead:
            first = await ahead.take(behind=2)
            await asyncio.sleep(1)  # a test
            ahead.let_go(first)
            began = now()
            second = await ahead.take(behind=1)
            third = await ahead.take(behind=0)
            assert now() == began, "nobody waits"
            assert client.awake == {third.name}, "one that did not start is started by who enters"
            assert sorted(client.there) == ["b1", "b2", "b3"], "nothing on the chance of it"
            ahead.let_go(second)
            ahead.let_go(third)
        assert client.there == []

    play(story())


def test_what_nobody_took_goes_and_what_is_kept_stays() -> None:
    async def story() -> None:
        client = Client()
        async with ahead_of(client) as ahead:
            kept: Any = await ahead.take(behind=5)
            kept.kept = True
            ahead.let_go(kept)
        assert (client.count, client.there) == (3, [kept.name])

    play(story())


def test_where_no_more_may_be_had_it_is_made_when_the_last_is_gone() -> None:
    async def story() -> None:
        client = Client(most=1)
        async with ahead_of(client) as ahead:
            for left in (2, 1, 0):
                database = await ahead.take(behind=left)
                await asyncio.sleep(1)
                assert client.there == [database.name]
                ahead.let_go(database)
        assert client.there == []

    play(story())


def test_so_many_go_at_a_time_and_no_more() -> None:
    async def story() -> None:
        client = Client()
        async with ahead_of(client) as ahead:
            for left in range(9, -1, -1):
                database = await ahead.take(behind=left)
                assert len(client.there) <= MOST_GOING + 1 + 2
                ahead.let_go(database)
        assert client.there == []

    play(story())


def test_that_something_could_not_be_removed_is_said() -> None:
    async def story() -> None:
        client = Client()
        ahead = ahead_of(client)
        ahead.let_go(await ahead.take(behind=0))
        client.stuck = True
        with pytest.raises(Unavailable):
            await ahead.close()

    play(story())
