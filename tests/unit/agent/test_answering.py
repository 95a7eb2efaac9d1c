"""Computes that have stopped answering are told from those that are slow, full, or on their way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pagestore.agent.answering import MOST_UNANSWERED, AnswerWatch, answers
from pagestore.pgwire.startup import StartupReader, TlsRequest

PATIENCE = 0.2


@dataclass(eq=False)
class Compute:
    """As much of a WatchedCompute as is asked for."""

    running: Any
    alive: bool = True
    name: str = "app"
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    blame: str = ""

    async def end(self, why: str) -> None:
        self.alive, self.blame = False, why


def compute(path: Path) -> Compute:
    return Compute(SimpleNamespace(record=SimpleNamespace(socket=path)))


def judged(made: Compute, times: int, before: Callable[[int], None] = lambda _: None) -> str:
    """Why it was ended after so many questions; empty if it goes on."""
    watch = AnswerWatch(answer_seconds=PATIENCE)

    async def main() -> None:
        for number in range(times):
            before(number)
            await watch.ask([made])  # type: ignore[list-item]

    asyncio.run(main())
    return made.blame


@pytest.fixture
def silent(tmp_path: Path):
    """A socket on which somebody listens, and says nothing: a postmaster that is stopped."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen(1)
        yield tmp_path / "socket"


def test_what_is_silent_several_times_in_a_row_is_ended(silent: Path) -> None:
    assert judged(compute(silent), MOST_UNANSWERED - 1) == ""
    assert "did not answer for" in judged(compute(silent), MOST_UNANSWERED)


def test_its_queue_being_full_is_silence(silent: Path) -> None:
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.connect(str(silent))
        second.connect(str(silent))
        assert "did not answer for" in judged(compute(silent), MOST_UNANSWERED)


def test_nobody_listening_is_silence(tmp_path: Path) -> None:
    assert "did not answer for" in judged(compute(tmp_path / "none"), MOST_UNANSWERED)
    (tmp_path / "planted").write_text("no socket")
    assert "did not answer for" in judged(compute(tmp_path / "planted"), MOST_UNANSWERED)


def test_what_answers_once_in_between_goes_on(tmp_path: Path, silent: Path) -> None:
    made = compute(silent)
    too_long = tmp_path / ("x" * 200)

    def before(number: int) -> None:
        # What hinders only who asks is taken for an answer.
        made.running.record.socket = too_long if number == MOST_UNANSWERED - 1 else silent

    assert judged(made, 2 * MOST_UNANSWERED - 1, before) == ""


def test_who_stops_it_has_a_patience_of_his_own(silent: Path) -> None:
    made = compute(silent)

    async def main() -> None:
        watch = AnswerWatch(answer_seconds=PATIENCE)
        async with made.lock:
            for _ in range(MOST_UNANSWERED):
                await watch.ask([made])  # type: ignore[list-item]

    asyncio.run(main())
    assert made.blame == ""


@pytest.mark.parametrize("says", [b"N", b"S", b"E", b""])
def test_any_byte_and_a_close_are_answers(tmp_path: Path, says: bytes) -> None:
    heard: list[object] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if says:
            heard.append(StartupReader().feed(await reader.readexactly(8)))
            writer.write(says)
        writer.close()

    async def main() -> bool:
        async with await asyncio.start_unix_server(served, tmp_path / "socket"):
            return await answers(tmp_path / "socket", 30)

    assert asyncio.run(main())
    assert heard == ([TlsRequest()] if says else [])


def test_those_that_are_silent_hold_up_no_question_to_others(silent: Path) -> None:
    made = [compute(silent) for _ in range(20)]

    async def main() -> None:
        watch = AnswerWatch(ask_seconds=0, answer_seconds=PATIENCE)
        work = watch.run(lambda: made)  # type: ignore[arg-type, return-value]
        running = asyncio.ensure_future(work)
        async with asyncio.timeout(10 * PATIENCE * MOST_UNANSWERED):
            while any(item.alive for item in made):
                await asyncio.sleep(PATIENCE / 4)
        running.cancel()

    asyncio.run(main())
