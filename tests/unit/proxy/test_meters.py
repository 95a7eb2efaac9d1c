"""Queries are counted by database, and told as what they have come to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from pagestore.errors import Unavailable
from pagestore.proxy.meters import Meters


class Relay:
    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.heard: list[tuple[str, dict[str, int]]] = []
        self.away = False

    async def hear(self, life: str, queries: Mapping[str, int]) -> None:
        if self.away:
            raise Unavailable("UNAVAILABLE", "It is away.")
        self.heard.append((life, dict(queries)))


def test_only_what_has_changed_is_told_and_again_after_a_failure() -> None:
    async def story() -> None:
        relay = Relay()
        meters = Meters(relay.counts.__getitem__, 100)
        app, other = meters.of("app"), meters.of("other")
        assert app != other == meters.of("other")
        await meters.tell(relay.hear)
        assert relay.heard == []
        relay.counts[app] += 3
        await meters.tell(relay.hear)
        relay.counts[other] += 1
        relay.away = True
        await meters.tell(relay.hear)
        relay.away = False
        relay.counts[app] += 1
        await meters.tell(relay.hear)
        await meters.tell(relay.hear)
        assert relay.heard == [
            (meters.life, {"app": 3}),
            (meters.life, {"app": 4, "other": 1}),
        ]

    asyncio.run(story())


def test_another_proxy_has_counts_of_its_own() -> None:
    assert Meters(int, 2).life != Meters(int, 2).life


def test_beyond_the_meters_that_there_are_nobody_is_counted_for_another() -> None:
    meters = Meters(lambda number: number, 3)
    first, second, third = (meters.of(name) for name in ("a", "b", "c"))
    assert len({first, second, third}) == 3
    assert set(meters.news()) == {"a", "b"}
