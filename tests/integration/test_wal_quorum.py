"""Three safekeepers between themselves: elected, cut, filled, admitted, and telling each other."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from pagestore.errors import DataLoss, FailedPrecondition, InvalidInput, NotFound
from pagestore.v1 import wal_pb2 as pb
from pagestore.walservice import control_file
from pagestore.walservice.owner import Owner
from tests import access
from tests.safekeepers import ALL, Safekeepers, three_safekeepers
from tests.waiting import stays

NOWHERE = "host=/nowhere port=1 user=nobody"

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Safekeepers]:
    with three_safekeepers(tmp_path_factory.mktemp("three")) as safekeepers:
        yield safekeepers


@pytest.fixture
def three(running: Safekeepers) -> Safekeepers:
    """All running, with a timeline that is new."""
    running.run_all()
    running.forget()
    running.create()
    return running


def test_what_a_majority_has_is_committed_and_told_to_all(three: Safekeepers) -> None:
    three.win()
    three.append((1,))
    assert stays(lambda: {three.status(n).commit_lsn for n in ALL} == {three.start_lsn}, 0.2)
    three.append((1,))
    three.fill(2, [1])
    three.wait((1, 2), lambda status: status.commit_lsn == three.end[0])
    assert three.status(3).commit_lsn == three.start_lsn, "not beyond its own log"
    three.fill(3, [1])
    three.wait((3,), lambda status: status.commit_lsn == three.end[0])


def test_a_vote_tells_the_whole_ballot(three: Safekeepers) -> None:
    three.win((1, 2))
    three.append((1, 2))
    three.term += 1
    ballot = three.vote(1)
    assert (ballot.granted, ballot.term, ballot.last_log_term) == (True, 2, 1)
    assert (ballot.end_lsn, ballot.prev_record_lsn) == three.end
    assert [(item.term, item.start_lsn) for item in ballot.term_history] == [(1, three.start_lsn)]
    assert ballot.configuration == three.configuration
    assert ballot.member == three.configuration.members[0]
    assert (ballot.start_lsn, ballot.system_id) == (three.start_lsn, 1)
    again = three.vote(1)
    assert (again.granted, again.term) == (False, 2)


def test_commit_news_reach_who_comes_back_while_no_wal_flows(three: Safekeepers) -> None:
    """Its control file knows an older commit LSN than it may tell: peers say the present one."""
    three.win()
    three.append(ALL)
    three.wait(ALL, lambda status: status.commit_lsn == three.end[0])
    for process in three.at.values():
        process.stop(signal.SIGKILL)
    remembered = control_file.read(three.directory(3), Owner(*three.key, 3))
    assert remembered.state.commit_lsn < three.end[0]
    three.at[3].start()
    three.at[1].start()
    three.wait((1, 3), lambda status: status.commit_lsn == three.end[0])
    three.at[2].start()
    three.wait((2,), lambda status: status.commit_lsn == three.end[0])


def test_a_frozen_peer_hears_of_commits_when_it_goes_on(three: Safekeepers) -> None:
    three.win()
    three.append(ALL)
    three.at[3].send(signal.SIGSTOP)
    three.append((1, 2))
    three.wait((1, 2), lambda status: status.commit_lsn == three.end[0])
    three.at[3].send(signal.SIGCONT)
    three.fill(3, [1])
    three.wait((3,), lambda status: status.commit_lsn == three.end[0])


def test_a_log_that_lost_is_cut_and_filled(three: Safekeepers) -> None:
    three.win()
    three.append(ALL)
    common = three.end
    three.append((3,), size=3 * MEGABYTE)
    three.end = common
    three.win((1, 2))
    three.append((1, 2), size=20000)
    before = three.status(3)
    assert three.vote(3).granted
    assert three.elect(3).flush_lsn == common[0]
    assert three.status(3).prev_record_lsn == common[1], "who ends there is found again"
    answer = three.fill(3, [1, 2])
    assert answer.flush_lsn == three.end[0] < before.flush_lsn
    assert answer.member.number == 3
    three.wait(ALL, lambda status: status.commit_lsn == three.end[0])
    assert three.wal(1) == three.wal(2) == three.wal(3)


def test_nothing_committed_is_cut(three: Safekeepers) -> None:
    three.win()
    three.append(ALL)
    three.wait((3,), lambda status: status.commit_lsn == three.end[0])
    three.term += 1
    three.vote(3)
    three.history = [pb.TermSwitch(term=three.term, start_lsn=three.start_lsn)]
    with pytest.raises(DataLoss) as refusal:
        three.elect(3)
    assert refusal.value.reason == "LOG_DIVERGED"
    assert three.status(3).flush_lsn == three.end[0]


def test_a_long_gap_is_filled_by_the_next_donor_when_one_is_away(three: Safekeepers) -> None:
    three.win()
    for _ in range(3):
        three.append((1, 2), size=5 * MEGABYTE)
    three.at[1].stop(signal.SIGKILL)
    three.fill(3, [1, 2])
    three.at[1].start()
    assert three.wal(3) == three.wal(2) == three.wal(1)


def test_a_record_larger_than_a_piece_is_filled(three: Safekeepers) -> None:
    three.win()
    three.append((1, 2), size=9 * MEGABYTE)
    three.append((1, 2))
    three.fill(3, [1])
    assert three.wal(3) == three.wal(1)


def test_a_frozen_donor_is_given_up(three: Safekeepers) -> None:
    three.win()
    three.append((1, 2))
    three.at[1].send(signal.SIGSTOP)
    three.fill(3, [1, 2])
    assert three.status(3).flush_lsn == three.end[0]


def test_nobody_is_filled_from_a_log_of_another_term(three: Safekeepers) -> None:
    three.win()
    three.append((1, 2))
    three.term += 1
    three.history.append(pb.TermSwitch(term=three.term, start_lsn=three.end[0]))
    three.vote(3)
    three.elect(3)
    with pytest.raises(FailedPrecondition) as refusal:
        three.fill(3, [1, 2])
    assert refusal.value.reason == "NOT_FILLED"
    assert "is of term 1, not 2" in refusal.value.message
    assert three.status(3).flush_lsn == three.start_lsn


def test_a_higher_promise_ends_a_filling(three: Safekeepers) -> None:
    three.win()
    three.append((1, 2))
    three.term += 1
    three.vote(3)
    three.term -= 1
    with pytest.raises(Exception, match="has been promised") as refusal:
        three.fill(3, [1])
    assert getattr(refusal.value, "reason", "") == "STALE_TERM"
    assert three.status(3).flush_lsn == three.start_lsn


def test_an_empty_disk_comes_back_as_another_member(three: Safekeepers) -> None:
    three.win()
    three.append(ALL, size=MEGABYTE)
    three.wipe(3)
    with pytest.raises(NotFound):
        three.vote(3)
    learner = three.admit(3)
    assert learner.incarnation != 1
    assert three.admit(3) == learner, "said twice, the same one"
    three.fill(3, [1, 2])
    three.append((1,))
    assert stays(lambda: three.status(1).commit_lsn < three.end[0], 0.2)
    three.fill(3, [1])
    learners_do_not_count = stays(lambda: three.status(1).commit_lsn < three.end[0], 0.2)
    assert learners_do_not_count
    three.change([*three.configuration.members[:2], learner], ALL)
    three.wait((1, 3), lambda status: status.commit_lsn == three.end[0])
    assert three.wal(3) == three.wal(1)
    three.at[3].stop(signal.SIGKILL)
    three.at[3].start()
    assert three.status(3).incarnation == learner.incarnation
    assert three.status(3).configuration == three.configuration


def test_who_is_lost_again_is_somebody_else_again(three: Safekeepers) -> None:
    three.win()
    three.wipe(3)
    learner = three.admit(3)
    three.change([*three.configuration.members[:2], learner], ALL)
    three.wipe(3)
    assert three.admit(3).incarnation not in (1, learner.incarnation)


def test_only_who_is_elected_attaches(three: Safekeepers) -> None:
    three.term = 1
    three.vote(1)
    nowhere = access.address(*three.key, 1, NOWHERE)
    with pytest.raises(FailedPrecondition) as refusal:
        three.at[1].call(
            lambda client: client.attach_compute(*three.key, 1, nowhere, three.start_lsn)
        )
    assert refusal.value.reason == "NOT_ELECTED"


def test_impossible_members_and_histories_are_refused(three: Safekeepers) -> None:
    three.win()
    three.term += 1
    three.vote(1)
    good_history, good = three.history, three.configuration
    for history, members, reason in (
        ([], good.members, "INVALID_HISTORY"),
        (good_history, good.members, "INVALID_HISTORY"),
        ([pb.TermSwitch(term=2, start_lsn=5)], [pb.Member(number=1)], "INVALID_MEMBERS"),
        ([pb.TermSwitch(term=2, start_lsn=5)], [good.members[0]] * 2, "INVALID_MEMBERS"),
    ):
        three.history = list(history)
        three.configuration = pb.Configuration(generation=2, members=members)
        with pytest.raises(InvalidInput) as refusal:
            three.elect(1)
        assert refusal.value.reason == reason
    assert three.status(1).configuration == good


def test_who_else_there_is_is_told_to_consumers(three: Safekeepers) -> None:
    async def work(client: object) -> dict[int, str]:
        async for update in client.watch_commits("test"):  # type: ignore[attr-defined]
            if update.safekeepers:
                return {item.number: item.address for item in update.safekeepers}
        return {}

    expected = {number: process.listen for number, process in three.at.items()}
    assert three.at[2].call(work) == expected
    three.at[2].stop()
    three.at[2].start()
    assert three.at[2].call(work) == expected, "remembered"
