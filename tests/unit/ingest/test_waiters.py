"""Waiting for an LSN: woken at it, told where ingest is when time is over, failed as told."""

from __future__ import annotations

import asyncio

import pytest

from pagestore.errors import DeadlineExceeded, FailedPrecondition
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.ingest.waiters import LsnWaiters

KEY = DEFAULT_TENANT, TimelineId(bytes(16))
OTHER = DEFAULT_TENANT, TimelineId(bytes(15) + b"\1")


def test_woken_in_order_of_lsn_and_only_on_its_own_timeline() -> None:
    async def main() -> None:
        waiters = LsnWaiters()
        order: list[int] = []

        async def wait(lsn: int) -> None:
            await waiters.wait(KEY, lsn, 30, lambda: 0)
            order.append(lsn)

        tasks = [asyncio.create_task(wait(lsn)) for lsn in (30, 10, 20)]
        await asyncio.sleep(0)
        waiters.advance(OTHER, 100)
        waiters.advance(KEY, 9)
        await asyncio.sleep(0)
        assert not order
        waiters.advance(KEY, 20)
        await asyncio.gather(*tasks[1:])
        assert sorted(order) == [10, 20]
        assert not tasks[0].done()
        waiters.advance(KEY, 31)
        await tasks[0]
        assert waiters.count() == 0

    asyncio.run(main())


def test_a_position_already_reached_does_not_wait() -> None:
    async def main() -> None:
        await LsnWaiters().wait(KEY, 5, 0.0, lambda: 5)

    asyncio.run(main())


def test_a_deadline_says_where_ingest_is_and_leaves_nothing() -> None:
    async def main() -> None:
        waiters = LsnWaiters()
        with pytest.raises(DeadlineExceeded, match="0/7, not to 0/64") as caught:
            await waiters.wait(KEY, 100, 0.01, lambda: 7)
        assert caught.value.reason == "LSN_NOT_REACHED"
        assert waiters.count() == 0

    asyncio.run(main())


def test_a_failed_timeline_ends_its_waits() -> None:
    async def main() -> None:
        waiters = LsnWaiters()
        task = asyncio.create_task(waiters.wait(KEY, 100, 30, lambda: 7))
        await asyncio.sleep(0)
        waiters.fail(KEY, FailedPrecondition("INGEST_STOPPED", "no"))
        with pytest.raises(FailedPrecondition):
            await task
        assert waiters.count() == 0

    asyncio.run(main())
