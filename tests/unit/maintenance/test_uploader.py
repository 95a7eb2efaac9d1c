"""When what is put into the object store, and what happens when that fails; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from pagestore.errors import FailedPrecondition, PagestoreError, Unavailable
from pagestore.maintenance.offsite import Offsite
from pagestore.maintenance.uploader import (
    CHECK_SECONDS,
    MOST_RETRY_SECONDS,
    SUPERSEDED,
    TOGETHER,
    Uploader,
)
from tests.unit import virtual_time
from tests.unit.virtual_time import now


class FakeOffsite:
    """Layers are numbers; a step fails as long as it is in `failing`."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.waiting: list[bytes] = []
        self.taken: list[bytes] = []
        self.there: list[bytes] = []
        self.failing: dict[str, PagestoreError] = {}
        self.attempts: dict[str, list[float]] = {}

    @property
    def is_whole(self) -> bool:
        return not self.waiting and not self.taken

    def _try(self, what: str) -> None:
        self.attempts.setdefault(what, []).append(now())
        if what in self.failing:
            raise self.failing[what]

    def start(self) -> None:
        self._try("start")

    def take(self) -> bool:
        return False

    def journal(self) -> bool:
        self._try("journal")
        return False

    def clean(self) -> None:
        return

    def mend(self) -> None:
        return

    def check(self) -> None:
        self._try("check")

    def sweep(self, now: float) -> int:
        return 0

    def add(self, *layers: bytes) -> None:
        self.waiting.extend(layers)
        self.wake()

    def next_layer(self) -> bytes | None:
        if not self.waiting:
            return None
        self.taken.append(self.waiting.pop(0))
        return self.taken[-1]

    def give_back(self, key: bytes) -> None:
        self.taken.remove(key)
        self.waiting.append(key)

    def upload(self, key: bytes) -> None:
        self._try("upload")
        self.taken.remove(key)
        self.there.append(key)


AWAY = Unavailable("OBJECT_STORE_UNAVAILABLE", "It is away.")


def play(
    story: Callable[[Uploader, FakeOffsite], Coroutine[Any, Any, None]],
) -> BaseException | None:
    """What `run` ended with, if it did."""
    ended: list[BaseException | None] = []

    async def whole() -> None:
        uploader = Uploader(lambda wake: cast(Offsite, FakeOffsite(wake)))
        running = asyncio.create_task(uploader.run())
        await story(uploader, cast(FakeOffsite, uploader.offsite))
        running.cancel()
        (error,) = await asyncio.gather(running, return_exceptions=True)
        ended.append(None if isinstance(error, asyncio.CancelledError) else error)

    virtual_time.play(whole())
    return ended[0]


def test_what_comes_is_put_there_at_once() -> None:
    async def story(uploader: Uploader, fake: FakeOffsite) -> None:
        await asyncio.sleep(5)
        fake.add(b"1", b"2", b"3", b"4", b"5", b"6")
        assert await uploader.settle(1.0)
        assert fake.there == [b"1", b"2", b"3", b"4", b"5", b"6"]

    assert play(story) is None


def test_while_it_is_away_it_is_tried_again_and_told_until_it_is_done() -> None:
    async def story(uploader: Uploader, fake: FakeOffsite) -> None:
        fake.failing["upload"] = AWAY
        fake.add(b"1")
        await asyncio.sleep(600)
        assert uploader.failure == "It is away."
        assert 10 <= len(fake.attempts["upload"]) <= TOGETHER * (12 + 600 / MOST_RETRY_SECONDS * 2)
        del fake.failing["upload"]
        assert await uploader.settle(2 * MOST_RETRY_SECONDS)
        assert uploader.failure == ""

    assert play(story) is None


def test_a_journal_that_cannot_be_written_holds_no_layer_up() -> None:
    async def story(uploader: Uploader, fake: FakeOffsite) -> None:
        fake.failing["journal"] = AWAY
        await asyncio.sleep(60)
        fake.add(b"1")
        assert await uploader.settle(1.5)
        assert uploader.failure == "It is away."

    assert play(story) is None


def test_it_claims_as_soon_as_the_store_answers() -> None:
    async def story(uploader: Uploader, fake: FakeOffsite) -> None:
        fake.failing["start"] = AWAY
        fake.add(b"1")
        await asyncio.sleep(100)
        assert not fake.there
        assert uploader.failure == "It is away."
        del fake.failing["start"]
        await asyncio.sleep(MOST_RETRY_SECONDS + 1)
        assert fake.there == [b"1"]
        assert uploader.failure == ""

    assert play(story) is None


@pytest.mark.parametrize("what", ["start", "journal", "check"])
def test_who_was_superseded_ends(what: str) -> None:
    async def story(uploader: Uploader, fake: FakeOffsite) -> None:
        await asyncio.sleep(0 if what == "start" else 5)
        fake.failing[what] = FailedPrecondition(SUPERSEDED, "Another one is there.")
        await asyncio.sleep(CHECK_SECONDS + 5)

    error = play(story)
    inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
    assert isinstance(inner, FailedPrecondition)
    assert inner.reason == SUPERSEDED
