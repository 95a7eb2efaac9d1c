"""Which computes' LSNs are leased, and when: in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from pagestore.agent.leases import (
    FIRST_SECONDS,
    LEASE_SECONDS,
    LOOK_SECONDS,
    RENEW_SECONDS,
    ReadLeases,
)
from pagestore.errors import Unavailable
from tests.unit import virtual_time
from tests.unit.virtual_time import now


@dataclass(eq=False)
class FakeCompute:
    lsn: int
    alive: bool = True
    name: str = "app"

    @property
    def running(self) -> Any:
        record = SimpleNamespace(tenant="tenant", timeline="timeline")
        return SimpleNamespace(record=record, read_lsn=self.lsn)


@dataclass
class FakePages:
    away: bool = False
    taken: list[tuple[float, int, int]] = field(default_factory=list)

    async def lease(self, tenant: object, timeline: object, lsn: int, seconds: int) -> int:
        if self.away:
            raise Unavailable("SERVICE_UNAVAILABLE", "The page server is away.")
        self.taken.append((now(), lsn, seconds))
        return 0


def test_what_a_compute_reads_is_held_from_its_first_minutes_to_its_end() -> None:
    async def story() -> None:
        pages, computes = FakePages(), list[FakeCompute]()
        leases = ReadLeases(cast(Any, pages), lambda: cast(Any, computes))
        running = asyncio.create_task(leases.run())
        await asyncio.sleep(0)
        computes += [FakeCompute(5), FakeCompute(0), FakeCompute(9)]
        await asyncio.sleep(FIRST_SECONDS / 2)
        computes[2].alive = False
        assert pages.taken == []
        await asyncio.sleep(FIRST_SECONDS / 2 + 2 * LOOK_SECONDS)
        assert [taken[1:] for taken in pages.taken] == [(5, LEASE_SECONDS)], "briefly: none"
        pages.away = True
        await asyncio.sleep(RENEW_SECONDS + LOOK_SECONDS)
        pages.away = False
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert len(pages.taken) == 2, "it is tried until it is done"
        assert pages.taken[1][0] - pages.taken[0][0] < LEASE_SECONDS / 2
        computes.clear()
        await asyncio.sleep(10 * RENEW_SECONDS)
        assert len(pages.taken) == 2
        running.cancel()

    virtual_time.play(story())


def test_what_ran_before_its_agent_is_held_at_once_however_often_that_ends() -> None:
    async def story() -> None:
        pages, computes = FakePages(), [FakeCompute(5)]
        for _ in range(3):
            leases = ReadLeases(cast(Any, pages), lambda: cast(Any, computes))
            running = asyncio.create_task(leases.run())
            await asyncio.sleep(FIRST_SECONDS / 10)
            running.cancel()
        assert [taken[1:] for taken in pages.taken] == [(5, LEASE_SECONDS)] * 3

    virtual_time.play(story())
