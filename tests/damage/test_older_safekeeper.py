"""One of three safekeepers comes back with an older copy of all that it had.

Nothing on its disk tells: each file agrees with each other. What it has forgotten, the others
remember, also when they themselves have been started anew since; it is named, promises and
confirms nothing, and what was acknowledged stays.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagestore.errors import DataLoss
from pagestore.ids import format_lsn
from pagestore.walservice.memory_of_peers import MemoryOfPeers
from pagestore.walservice.watch import TimelineKey
from tests.safekeepers import ALL, Safekeepers, three_safekeepers
from tests.waiting import wait_until

VICTIM = 3


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Safekeepers]:
    with three_safekeepers(tmp_path) as safekeepers:
        safekeepers.create()
        safekeepers.win()
        safekeepers.append(ALL)
        yield safekeepers


def put_back(three: Safekeepers, since: Callable[[], None]) -> None:
    """The victim's directory is what it was before `since`."""
    process = three.at[VICTIM]
    older, newest = process.data_dir.with_name("older"), process.data_dir.with_name("newest")
    process.stop(signal.SIGTERM)
    shutil.copytree(process.data_dir, older)
    process.start()
    since()
    process.stop(signal.SIGKILL)
    process.data_dir.rename(newest)
    older.rename(process.data_dir)


def restore_the_newest(three: Safekeepers) -> None:
    process = three.at[VICTIM]
    process.stop()
    shutil.rmtree(process.data_dir)
    process.data_dir.with_name("newest").rename(process.data_dir)
    process.start()


def wait_until_told(three: Safekeepers) -> None:
    """The peers have heard how far the victim is, which they are told within 50 ms."""
    end = three.status(VICTIM).flush_lsn

    def remember(number: int) -> bool:
        memory = MemoryOfPeers(three.at[number].data_dir)
        found = {key: heard for peer, key, heard in memory.load() if peer == VICTIM}
        memory.close()
        heard = found.get(TimelineKey(*three.key))
        return heard is not None and heard.flush_lsn == end

    wait_until(lambda: remember(1) and remember(2))


def is_known_as_older(three: Safekeepers) -> bool:
    try:
        three.status(VICTIM)
    except DataLoss as error:
        return error.reason == "LOG_ROLLED_BACK" and "is an older copy" in error.message
    return False


@pytest.mark.parametrize("restarted", [(), (1, 2)], ids=["peers go on", "all start anew"])
def test_one_that_lost_what_it_acknowledged_is_named_and_counts_for_nothing(
    three: Safekeepers, restarted: tuple[int, ...]
) -> None:
    """Two hold the last record: the victim, and one other. An election among the victim's older
    copy and who never had it would lose it."""

    def acknowledge() -> None:
        three.append((1, VICTIM))
        wait_until_told(three)

    put_back(three, acknowledge)
    acknowledged = three.end[0]
    for number in restarted:
        three.at[number].stop(signal.SIGKILL)
    for number in (*restarted, VICTIM):
        three.at[number].start()
    wait_until(lambda: is_known_as_older(three))
    three.term += 1
    with pytest.raises(DataLoss) as refusal:
        three.vote(VICTIM)
    assert refusal.value.reason == "LOG_ROLLED_BACK"
    assert f"up to {format_lsn(acknowledged)}; here are" in refusal.value.message
    assert "as a new member" in (refusal.value.hint or "")
    three.win((1, 2))
    assert three.end[0] == acknowledged
    three.append((1, 2))
    three.wait((1, 2), lambda status: status.commit_lsn == three.end[0])
    restore_the_newest(three)
    assert three.vote(VICTIM).granted
    assert three.elect(VICTIM).flush_lsn == acknowledged


@pytest.mark.parametrize("restarted", [(), (1, 2)], ids=["peers go on", "all start anew"])
def test_one_that_forgot_what_it_promised_does_not_vote_again(
    three: Safekeepers, restarted: tuple[int, ...]
) -> None:
    def promise() -> None:
        three.win((2, VICTIM))
        three.append((2, VICTIM))
        wait_until_told(three)

    put_back(three, promise)
    for number in restarted:
        three.at[number].stop(signal.SIGKILL)
    for number in (*restarted, VICTIM):
        three.at[number].start()
    wait_until(lambda: is_known_as_older(three))
    with pytest.raises(DataLoss) as refusal:
        three.vote(VICTIM)
    assert refusal.value.reason == "LOG_ROLLED_BACK"
    three.win((1, 2))
    assert three.status(1).flush_lsn == three.end[0]


def test_one_whose_copy_was_removed_comes_back_as_another_member(three: Safekeepers) -> None:
    def acknowledge() -> None:
        three.append(ALL)
        wait_until_told(three)

    put_back(three, acknowledge)
    three.at[VICTIM].start()
    wait_until(lambda: is_known_as_older(three))
    three.at[VICTIM].stop()
    shutil.rmtree(three.directory(VICTIM))
    three.at[VICTIM].start()
    learner = three.admit(VICTIM)
    assert learner.incarnation != 1
    three.fill(VICTIM, [1, 2])
    assert three.status(VICTIM).flush_lsn == three.end[0]


def test_one_that_was_only_stopped_goes_on(three: Safekeepers) -> None:
    three.append(ALL)
    wait_until_told(three)
    for how in (signal.SIGTERM, signal.SIGKILL):
        three.at[VICTIM].stop(how)
        three.at[VICTIM].start()
        assert three.status(VICTIM).flush_lsn == three.end[0]
        three.win()


def test_with_one_away_another_is_believed_after_a_moment(three: Safekeepers) -> None:
    wait_until_told(three)
    three.at[1].stop(signal.SIGKILL)
    three.at[VICTIM].stop(signal.SIGKILL)
    three.at[VICTIM].start()
    three.win((2, VICTIM))
    three.append((2, VICTIM))
    three.wait((2, VICTIM), lambda status: status.commit_lsn == three.end[0])
