"""A log that lost an election is cut on a real disk, whenever the process dies meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pagestore.consensus.acceptor import (
    Append,
    Elect,
    Heard,
    State,
    TermSwitch,
    Vote,
    initial,
)
from pagestore.consensus.members import Configuration, Member
from pagestore.errors import Unavailable
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.walservice import control_file, segments
from pagestore.walservice import log as log_files
from pagestore.walservice.control_file import Control
from pagestore.walservice.owner import Owner
from pagestore.walservice.timeline import WalTimeline
from tests.unit.walservice.test_segments import SEGMENT, Log

THREE = Configuration(1, (Member(1), Member(2), Member(3)))


class Nobody:
    """Around a timeline on its own."""

    owner = Owner(DEFAULT_TENANT, TimelineId(b"t" * 16), 1)

    def share(self, spare: int) -> int:
        return 0

    def moved(self, state: State) -> None:
        pass

    def recall(self) -> list[Heard]:
        return []

    def ask(self) -> None:
        pass

    def is_on_trial(self, state: State) -> bool:
        return False

    async def end_trial(self, state: State) -> None:
        pass

    def fault(self, state: State) -> None:
        return None


async def losing(directory: Path, log: Log) -> WalTimeline:
    """Of term 1, and has promised 3."""
    state = initial(log.start, 1, Member(1), THREE)
    control_file.replace(directory, Control(state, clean=True, revision=1), Nobody.owner)
    opened = await WalTimeline.open(directory, Nobody())
    begins = log.start.flush_lsn
    await opened.handle(Vote(1))
    await opened.handle(Elect(1, (TermSwitch(1, begins),), THREE))
    await opened.handle(Append(1, begins, len(log.data)), log.data)
    assert opened.state.position == log.end
    assert opened.state.commit_lsn == begins
    await opened.handle(Vote(3))
    return opened


def elected(log: Log, cut: int) -> Elect:
    """Term 2 wrote something else behind `cut`."""
    history = (TermSwitch(1, log.start.flush_lsn), TermSwitch(2, cut), TermSwitch(3, cut + 4096))
    return Elect(3, history, THREE)


def test_a_lost_log_is_cut_and_stays_so(tmp_path: Path) -> None:
    log = Log(2 * SEGMENT - 8192, 100, 100, 20000, 10)
    cut = log.ends[2].flush_lsn

    async def main() -> None:
        losing_one = await losing(tmp_path, log)
        await losing_one.handle(elected(log, cut))
        assert losing_one.state.position.flush_lsn == cut
        again = await WalTimeline.open(tmp_path, Nobody())
        assert again.state == losing_one.state
        await again.handle(Heard(Member(2), 3, 1, cut + 8192, cut + 4096))
        assert again.state.commit_lsn == cut
        assert await again.read(log.start.flush_lsn, 1 << 20) == log.bytes_to(cut)

    asyncio.run(main())
    assert segments.find_end(tmp_path, log.start, log.start.flush_lsn).flush_lsn == cut


@pytest.mark.parametrize("steps", range(3))
def test_a_crash_leaves_the_old_end_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    log = Log(2 * SEGMENT - 8192, 100, 100, 20000, 10)
    cut = log.ends[2].flush_lsn
    done = 0

    def counting(real: object) -> object:
        def call(*args: object, **named: object) -> None:
            nonlocal done
            if done == steps:
                raise OSError(5, "the process died here")
            done += 1
            real(*args, **named)  # type: ignore[operator]

        return call

    async def main() -> None:
        losing_one = await losing(tmp_path, log)
        with monkeypatch.context() as patch:
            patch.setattr(control_file, "replace", counting(control_file.replace))
            patch.setattr(log_files, "cut", counting(log_files.cut))
            with pytest.raises((OSError, Unavailable)):
                await losing_one.handle(elected(log, cut))
        again = await WalTimeline.open(tmp_path, Nobody())
        assert again.state.term == 3
        assert again.state.writing_term == 1, "the history was not stored"
        assert again.state.position.flush_lsn == (log.end.flush_lsn if steps < 2 else cut)
        await again.handle(elected(log, cut))
        assert again.state.position.flush_lsn == cut
        assert again.state.writing_term == 3

    asyncio.run(main())
