"""The rules of several safekeepers, one by one: cutting by terms, what counts as committed,
incarnations, and the choice of the log that an election continues."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pagestore.walservice import acceptor
from pagestore.walservice.acceptor import (
    Append,
    Attach,
    CutLog,
    Elect,
    Flushed,
    Heard,
    Member,
    Persist,
    Position,
    State,
    TermSwitch,
    Vote,
    admit,
    common_end,
    initial,
    step,
)
from pagestore.walservice.election import (
    Admit,
    AskVote,
    Ballot,
    Blank,
    Declined,
    Election,
    Fill,
    Reached,
    SendElect,
)

START = Position(0x1000, 0xF80)
MEMBERS = (Member(1), Member(2), Member(3))


def switches(*items: tuple[int, int]) -> tuple[TermSwitch, ...]:
    return tuple(TermSwitch(*item) for item in items)


def state_of(
    number: int, term: int, flush_lsn: int, *history: tuple[int, int], commit: int = 0x1000
) -> State:
    peers = tuple(item for item in MEMBERS if item.number != number)
    return replace(
        initial(START, 7, Member(number), peers),
        term=term,
        position=Position(flush_lsn, flush_lsn - 8),
        history=switches(*history),
        known_commit_lsn=commit,
    )


def elect(term: int, *history: tuple[int, int], members: tuple[Member, ...] = MEMBERS) -> Elect:
    return Elect(term, switches(*history), (Member(1), Member(2)), members)


@pytest.mark.parametrize(
    ("own", "flush_lsn", "elected", "common"),
    [
        # behind, and of the same terms
        ([(1, 0x1000)], 0x1800, [(1, 0x1000), (2, 0x2000)], 0x1800),
        # the lower term wrote more than was elected
        ([(1, 0x1000)], 0x3000, [(1, 0x1000), (2, 0x2000)], 0x2000),
        # other terms at the same place, of the same length
        ([(1, 0x1000), (2, 0x1800)], 0x2000, [(1, 0x1000), (3, 0x1800)], 0x1800),
        # the longer log of a lower term, and a term that it never saw
        ([(1, 0x1000), (2, 0x1800)], 0x4000, [(1, 0x1000), (3, 0x1400), (4, 0x1C00)], 0x1400),
        # nothing in common
        ([(1, 0x1000)], 0x2000, [(2, 0x1000), (3, 0x1800)], 0x1000),
        # nothing written at all
        ([], 0x1000, [(2, 0x1000)], 0x1000),
        # the term that it was elected in wrote nothing
        ([(1, 0x1000), (2, 0x2000)], 0x2000, [(1, 0x1000), (3, 0x2000)], 0x2000),
        # history beyond the end of the log
        ([(1, 0x1000), (2, 0x2000)], 0x1800, [(1, 0x1000), (3, 0x1400)], 0x1400),
    ],
)
def test_logs_part_where_their_terms_do(
    own: list[tuple[int, int]], flush_lsn: int, elected: list[tuple[int, int]], common: int
) -> None:
    assert common_end(switches(*own), flush_lsn, switches(*elected)) == common


def test_the_loser_is_cut_before_the_history_is_stored() -> None:
    loser = state_of(3, 3, 0x2000, (1, 0x1000), (2, 0x1800))
    elected = step(loser, elect(3, (1, 0x1000), (3, 0x1800)))
    assert elected.actions == (CutLog(Position(0x1800, 0)), Persist(clean=True))
    assert elected.state.last_log_term == 3
    assert step(elected.state, elect(3, (1, 0x1000), (3, 0x1800))).actions == ()


def test_what_is_committed_is_never_cut() -> None:
    state = state_of(3, 3, 0x2000, (1, 0x1000), commit=0x1900)
    refused = step(state, elect(3, (2, 0x1000), (3, 0x1800)))
    assert refused.refusal is not None
    assert refused.refusal.reason == "LOG_DIVERGED"
    assert refused.actions == ()


@pytest.mark.parametrize("message", [Append(2, 0x2000, 8), Attach(2, "host=a", 0x2000)])
def test_a_promise_alone_does_not_let_write(message: Append | Attach) -> None:
    """That the log ends where the winner's begins does not make it the same log."""
    refused = step(state_of(1, 2, 0x2000, (1, 0x1000)), message)
    assert refused.refusal is not None
    assert refused.refusal.reason == "NOT_ELECTED"
    elected = step(state_of(1, 2, 0x2000, (1, 0x1000)), elect(2, (1, 0x1000), (2, 0x2000))).state
    assert step(elected, message).refusal is None


def test_an_election_needs_its_promise() -> None:
    for term, reason in ((1, "STALE_TERM"), (3, "TERM_NOT_PROMISED")):
        refusal = step(state_of(1, 2, 0x1000), elect(term, (term, 0x1000))).refusal
        assert refusal is not None
        assert refusal.reason == reason


def test_commit_is_what_a_majority_has_flushed_in_the_term() -> None:
    state = state_of(1, 2, 0x2800, (1, 0x1000), (2, 0x2000))
    state = step(state, Heard(Member(2), 1, 0x2400, 0x1000)).state
    assert state.commit_lsn == 0x1000, "another term's log may be another"
    state = step(state, Heard(Member(3), 2, 0x1F00, 0x1000)).state
    assert state.commit_lsn == 0x1000, "not yet at the term's start"
    state = step(state, Heard(Member(3), 2, 0x2400, 0x1000)).state
    assert state.commit_lsn == 0x2400
    state = step(state, Heard(Member(2), 2, 0x3000, 0x3000)).state
    assert state.commit_lsn == 0x2800, "not beyond its own log"
    state = step(state, Flushed(2, Position(0x3000, 0x2FF8))).state
    assert state.commit_lsn == 0x3000


def test_a_majority_with_wal_of_an_older_term_commits_nothing() -> None:
    """1 wrote to 0x2000 in term 1 and is elected in 3; 3 is being filled, and has come as far as
    0x1800. Both have that, but 2 may have a log of term 2 that parts before, and win over 3."""
    filled = state_of(3, 3, 0x1800, (1, 0x1000), (3, 0x2000))
    heard = step(filled, Heard(Member(1), 3, 0x2000, 0x1000)).state
    assert heard.commit_lsn == 0x1000
    reached = step(heard, Flushed(3, Position(0x2000, 0x1FF8))).state
    assert reached.commit_lsn == 0x2000


def test_what_is_heard_again_late_takes_nothing_back() -> None:
    state = state_of(1, 2, 0x3000, (2, 0x1000))
    late, early = Heard(Member(2), 2, 0x2000, 0x1000), Heard(Member(2), 2, 0x1800, 0x1000)
    both = step(step(state, late).state, early).state
    assert [item.flush_lsn for item in both.heard] == [0x2000]
    assert step(state, Heard(Member(9), 2, 0x3000, 0x3000)).state == state, "no member"


def test_the_vote_of_one_that_lost_its_disk_is_void() -> None:
    renewed = (Member(1), Member(2, 2), Member(3))
    state = step(state_of(3, 2, 0x1000), elect(2, (2, 0x1000), members=renewed)).state
    assert state.peers == (Member(1), Member(2, 2))
    promised = step(state, Vote(4)).state
    refusal = step(promised, elect(4, (4, 0x1000))).refusal
    assert refusal is not None
    assert refusal.reason == "STALE_VOTE"


def test_a_blank_one_joins_as_a_new_incarnation() -> None:
    renewed = (Member(1), Member(2), Member(3, 2))
    joined = admit(3, elect(5, (1, 0x1000), (5, 0x2000), members=renewed), START, 7)
    assert joined.actions == (Persist(clean=True),)
    assert joined.state.member == Member(3, 2)
    assert (joined.state.term, joined.state.position, joined.state.last_log_term) == (5, START, 1)
    assert acceptor.may_fill(joined.state, 5)
    assert step(joined.state, Append(5, 0x1000, 64)).refusal is None


# Elections


def ballot(number: int, flush_lsn: int, *history: tuple[int, int], term: int = 5) -> Ballot:
    return Ballot.of(state_of(number, term, flush_lsn, *history))


def asked() -> Election:
    election = Election(5, (1, 2, 3))
    assert election.retry() == [AskVote(1, 5), AskVote(2, 5), AskVote(3, 5)]
    return election


def test_the_later_term_wins_over_the_longer_log() -> None:
    election = asked()
    assert election.step(ballot(1, 0x4000, (1, 0x1000))) == []
    assert election.step(ballot(2, 0x2000, (1, 0x1000), (2, 0x1800))) == []
    elect_all = election.step(ballot(3, 0x3000, (1, 0x1000)))
    history = switches((1, 0x1000), (2, 0x1800), (5, 0x2000))
    assert [type(item) for item in elect_all] == [SendElect] * 3
    assert all(isinstance(item, SendElect) and item.elect.history == history for item in elect_all)


def test_a_majority_is_enough_when_the_time_is_over() -> None:
    election = asked()
    election.step(ballot(1, 0x2000, (1, 0x1000)))
    assert election.retry() == [AskVote(2, 5), AskVote(3, 5)]
    election.step(ballot(3, 0x1800, (1, 0x1000)))
    due = election.retry()
    assert [(type(item), item.number) for item in due] == [
        (SendElect, 1),
        (AskVote, 2),
        (SendElect, 3),
    ]
    assert election.step(Reached(1, 5, 0x2000)) == []
    assert election.start is None
    assert election.step(Reached(3, 5, 0x1800)) == [Fill(3, (1,), 5)]
    election.step(Reached(3, 5, 0x2000))
    assert election.start == Position(0x2000, 0x1FF8)


def test_a_lost_answer_is_no_vote_but_may_follow() -> None:
    election = asked()
    election.step(ballot(1, 0x2000, (1, 0x1000)))
    assert election.step(Declined(2, 5)) == []
    assert [type(item) for item in election.retry()] == [AskVote, AskVote]
    election.step(ballot(3, 0x1800, (1, 0x1000)))
    assert [type(item) for item in election.retry()] == [SendElect] * 3


def test_a_higher_term_ends_it() -> None:
    election = asked()
    assert election.step(Declined(2, 9)) == []
    assert election.lost_to == 9
    election.step(ballot(1, 0x1000))
    election.step(ballot(3, 0x1000))
    assert election.retry() == []


def test_a_term_that_wrote_nothing_is_not_in_the_elected_history() -> None:
    election = asked()
    for number in (1, 2, 3):
        done = election.step(ballot(number, 0x2000, (1, 0x1000), (4, 0x2000)))
    assert isinstance(done[0], SendElect)
    assert done[0].elect.history == switches((1, 0x1000), (5, 0x2000))


def test_a_blank_one_waits_until_all_others_know() -> None:
    election = asked()
    election.step(Blank(2))
    election.step(ballot(1, 0x2000, (1, 0x1000)))
    due = election.step(ballot(3, 0x1800, (1, 0x1000)))
    assert [(type(item), item.number) for item in due] == [(SendElect, 1), (SendElect, 3)]
    assert isinstance(due[0], SendElect)
    assert due[0].elect.members == (Member(1), Member(2, 2), Member(3))
    assert due[0].elect.voters == (Member(1), Member(3))
    election.step(Reached(1, 5, 0x2000))
    assert election.step(Reached(3, 5, 0x1800)) == [Fill(3, (1,), 5)], "no majority at the start"
    assert election.step(Reached(3, 5, 0x2000)) == [Admit(2, due[0].elect, START, 7)]
    assert election.step(Reached(2, 5, 0x1000)) == [Fill(2, (1, 3), 5)]


@pytest.mark.parametrize("first", [ballot(2, 0x2000, (1, 0x1000)), Declined(2, 5)])
def test_who_forgets_its_promise_waits_for_another_election(first: Ballot | Declined) -> None:
    election = asked()
    election.step(first)
    election.step(Blank(2))
    election.step(ballot(1, 0x2000, (1, 0x1000)))
    assert election.start is None
    due = election.step(ballot(3, 0x2000, (1, 0x1000)))
    assert [item.number for item in due] == [1, 3]
    election.step(Reached(1, 5, 0x2000))
    assert election.step(Reached(3, 5, 0x2000)) == []


def test_an_old_incarnation_has_no_vote() -> None:
    election = asked()
    knows = replace(ballot(1, 0x2000, (1, 0x1000)), peers=(Member(2, 2), Member(3)))
    election.step(ballot(2, 0x3000, (1, 0x1000)))
    election.step(knows)
    assert [item.number for item in election.retry()] == [3], "one vote is no majority of three"
    due = election.step(ballot(3, 0x1800, (1, 0x1000)))
    assert isinstance(due[0], SendElect)
    assert due[0].elect.voters == (Member(1), Member(3))
