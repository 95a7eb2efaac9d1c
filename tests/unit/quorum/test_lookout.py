"""What a running compute with one safekeeper is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pagestore.errors import DataLoss, PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.quorum import lookout
from pagestore.quorum.lookout import Lookout
from pagestore.v1 import wal_pb2 as pb

KEY = (DEFAULT_TENANT, TimelineId(b"t" * 16))
WELL = pb.WalTimelineStatus(term=3, receiving=True)


class Wal:
    """Gives one answer after another; at the end the test is over."""

    address = "127.0.0.1:1"

    def __init__(self, *answers: pb.WalTimelineStatus | PagestoreError | None) -> None:
        self._answers = iter(answers)
        self.seen: list[str] = []
        self.told: list[Any] = []
        self.lookout: Lookout

    async def get_status(self, *key: Any) -> pb.WalTimelineStatus:
        self.seen.append(self.lookout.complaint)
        try:
            answer = next(self._answers)
        except StopIteration:
            raise asyncio.CancelledError from None
        if answer is None:
            await asyncio.sleep(3600)
        if isinstance(answer, PagestoreError):
            raise answer
        assert answer is not None
        return answer

    async def attach_compute(self, *told: Any) -> None:
        self.told.append(told)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AMISS_SECONDS", "WELL_SECONDS"):
        monkeypatch.setattr(lookout, name, 0)
    monkeypatch.setattr(lookout, "ANSWER_SECONDS", 0.05)


def run(*answers: pb.WalTimelineStatus | PagestoreError | None) -> tuple[list[str], int]:
    """The complaint after each answer, and how often the compute was ended."""
    ended = 0

    async def fenced() -> None:
        nonlocal ended
        ended += 1

    wal = Wal(*answers)
    asyncio.run(look(wal, fenced))
    return wal.seen[1:], ended


async def look(wal: Wal, fenced: Callable[[], Awaitable[None]]) -> None:
    wal.lookout = Lookout(wal, KEY, 3, lambda: "signed", fenced)  # type: ignore[arg-type]
    with contextlib.suppress(asyncio.CancelledError):
        await wal.lookout.run()


def test_a_disk_that_fails_is_said_until_it_works_again() -> None:
    failing = pb.WalTimelineStatus(term=3, last_error="cannot sync x: Input/output error")
    complaints, ended = run(WELL, failing, failing, WELL)
    assert complaints[0] == complaints[3] == ""
    assert "Input/output error" in complaints[1]
    assert complaints[1] == complaints[2]
    assert ended == 0


def test_damage_and_silence_are_said() -> None:
    damage = DataLoss("CONTROL_MISSING", "It is gone.", "Restore it.")
    complaints, ended = run(damage, None, WELL)
    assert "It is gone." in complaints[0]
    assert "has not answered" in complaints[1]
    assert complaints[2] == ""
    assert ended == 0


def test_a_fenced_compute_is_ended_rather_than_left_waiting() -> None:
    """Its client hung for ever, while `show` said that it runs."""
    _, ended = run(WELL, pb.WalTimelineStatus(term=4), WELL)
    assert ended == 1


def test_a_safekeeper_that_takes_no_wal_is_told_the_address_anew() -> None:
    """It may not believe what it remembers: it was signed by a key before the last two."""
    refusing = pb.WalTimelineStatus(term=3, flush_lsn=7, last_error="No key has signed that")

    async def never() -> None:
        raise AssertionError("the compute goes on")

    wal = Wal(WELL, refusing, WELL)
    asyncio.run(look(wal, never))
    assert wal.told == [(*KEY, 3, "signed", 7)]
