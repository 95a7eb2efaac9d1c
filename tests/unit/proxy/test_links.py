"""A link that somebody waits at, and what its watcher hears meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from pagestore.proxy.links import Event, Link, LinkEnded, Rest


class Silent:
    """A relay that takes every order, and tells nothing."""

    def hold(self, number: int, now: bool) -> None:
        pass

    def release(self, number: int) -> None:
        pass


async def parting(event: Event) -> tuple[list[Event], Rest | LinkEnded | None]:
    """What a link's watcher, and who waits for its session to come to rest, hear of an event."""
    link = Link(cast(Any, Silent()), 1)
    heard: list[Event] = []
    link.watcher = lambda link, event, data: heard.append(event)
    waiting = asyncio.ensure_future(link.part())
    await asyncio.sleep(0)
    link.told(event, b"")
    try:
        return heard, await waiting
    except LinkEnded as ended:
        return heard, ended


def test_an_answer_is_for_who_waits_alone() -> None:
    assert asyncio.run(parting(Event.AT_REST)) == ([], Rest(False, b""))


def test_that_a_backend_left_is_heard_by_both() -> None:
    assert asyncio.run(parting(Event.LEFT)) == ([Event.LEFT], None)


def test_that_a_client_left_is_heard_by_both() -> None:
    """Else the front would keep a session whose client left while it was written down."""
    heard, outcome = asyncio.run(parting(Event.ENDED))
    assert heard == [Event.ENDED]
    with pytest.raises(LinkEnded):
        raise cast(LinkEnded, outcome)
