"""What a long verb says of itself: the latest step reaches whoever listens, and so does its end."""

from __future__ import annotations

import asyncio

import pytest

from pagestore.errors import Unavailable
from pagestore.services.progress import Followed, Step


def test_the_latest_step_counts_and_the_result_comes_last() -> None:
    async def story() -> None:
        followed: Followed[str] = Followed()

        async def work() -> str:
            for done in range(1000):
                followed.told("exporting", done, 1000)
            await asyncio.sleep(0)
            followed.told("importing", 0, 0)
            await asyncio.sleep(0)
            return "made"

        steps = [step async for step in followed.steps(work())]
        assert steps == [Step("exporting", 999, 1000), Step("importing", 0, 0)]
        assert followed.result() == "made"

    asyncio.run(story())


def test_what_the_work_fails_by_is_raised() -> None:
    async def story() -> None:
        followed: Followed[None] = Followed()

        async def work() -> None:
            raise Unavailable("AWAY", "It is away.")

        assert [step async for step in followed.steps(work())] == []
        with pytest.raises(Unavailable):
            followed.result()

    asyncio.run(story())


def test_who_stops_listening_ends_the_work() -> None:
    async def story() -> None:
        followed: Followed[None] = Followed()
        ended = asyncio.Event()

        async def work() -> None:
            followed.told("exporting", 0, 0)
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        steps = followed.steps(work())
        assert await anext(steps) == Step("exporting", 0, 0)
        await steps.aclose()
        assert ended.is_set()

    asyncio.run(story())
