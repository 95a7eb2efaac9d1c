"""The rules of several safekeepers, one by one: cutting by terms, what counts as committed, who
counts, and the choice of the log that an election continues."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from pagestore.consensus import acceptor
from pagestore.consensus.acceptor import (
    Append,
    Attach,
    Attachment,
    ChangeMembers,
    CutLog,
    Elect,
    Flushed,
    Heard,
    Persist,
    State,
    TermSwitch,
    Vote,
    WalPosition,
    admit,
    common_end,
    initial,
    step,
)
from pagestore.consensus.election import (
    AskVote,
    Ballot,
    Blank,
    Declined,
    Election,
    Fill,
    Reached,
    SendElect,
    ruling,
)
from pagestore.consensus.members import UNCONFIGURED, Configuration, Member

START = WalPosition(0x1000, 0xF80)
ONE, TWO, THREE, FOUR = (Member(number) for number in range(1, 5))
STABLE = Configuration(1, (ONE, TWO, THREE))
JOINT = Configuration(2, (ONE, TWO, THREE), (ONE, TWO, FOUR))
FINAL = Configuration(3, (ONE, TWO, FOUR))


def switches(*items: tuple[int, int]) -> tuple[TermSwitch, ...]:
    return tuple(TermSwitch(*item) for item in items)


def state_of(
    number: int,
    term: int,
    flush_lsn: int,
    *history: tuple[int, int],
    commit: int = 0x1000,
    configuration: Configuration = STABLE,
) -> State:
    return replace(
        initial(START, 7, Member(number), configuration),
        term=term,
        position=WalPosition(flush_lsn, flush_lsn - 8),
        history=switches(*history),
        known_commit_lsn=commit,
    )


def elect(term: int, *history: tuple[int, int], configuration: Configuration = STABLE) -> Elect:
    return Elect(term, switches(*history), configuration)


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
    assert elected.actions == (CutLog(WalPosition(0x1800, 0)), Persist(clean=True))
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
    state = step(state, Heard(TWO, 1, 1, 0x2400, 0x1000)).state
    assert state.commit_lsn == 0x1000, "another term's log may be another"
    state = step(state, Heard(THREE, 2, 1, 0x1F00, 0x1000)).state
    assert state.commit_lsn == 0x1000, "not yet at the term's start"
    state = step(state, Heard(THREE, 2, 1, 0x2400, 0x1000)).state
    assert state.commit_lsn == 0x2400
    state = step(state, Heard(TWO, 2, 1, 0x3000, 0x3000)).state
    assert state.commit_lsn == 0x2800, "not beyond its own log"
    state = step(state, Flushed(2, WalPosition(0x3000, 0x2FF8))).state
    assert state.commit_lsn == 0x3000


def test_a_majority_with_wal_of_an_older_term_commits_nothing() -> None:
    """1 wrote to 0x2000 in term 1 and is elected in 3; 3 is being filled, and has come as far as
    0x1800. Both have that, but 2 may have a log of term 2 that parts before, and win over 3."""
    filled = state_of(3, 3, 0x1800, (1, 0x1000), (3, 0x2000))
    heard = step(filled, Heard(ONE, 3, 1, 0x2000, 0x1000)).state
    assert heard.commit_lsn == 0x1000
    reached = step(heard, Flushed(3, WalPosition(0x2000, 0x1FF8))).state
    assert reached.commit_lsn == 0x2000


def test_what_is_heard_again_late_takes_nothing_back() -> None:
    state = state_of(1, 2, 0x3000, (2, 0x1000))
    late, early = Heard(TWO, 2, 1, 0x2000, 0x1000), Heard(TWO, 2, 1, 0x1800, 0x1000)
    both = step(step(state, late).state, early).state
    assert [item.flush_lsn for item in both.heard] == [0x2000]
    assert step(state, Heard(Member(9), 2, 1, 0x3000, 0x3000)).state == state, "no member"


def test_a_joint_configuration_asks_for_two_majorities() -> None:
    state = state_of(1, 2, 0x2800, (2, 0x2000), configuration=JOINT)
    state = step(state, Heard(THREE, 2, 1, 0x2400, 0x1000)).state
    assert state.commit_lsn == 0x1000, "of the new ones, only this"
    state = step(state, Heard(FOUR, 2, 2, 0x2200, 0x1000)).state
    assert state.commit_lsn == 0x2200
    state = step(state, Heard(TWO, 2, 2, 0x2300, 0x1000)).state
    assert state.commit_lsn == 0x2300, "who is in both counts for both"


def test_who_has_gone_on_to_other_members_is_not_counted() -> None:
    """3 was not told of the change; what 1 and 2 flush now may be on no majority of the new."""
    state = state_of(3, 2, 0x2800, (2, 0x2000))
    state = step(state, Heard(TWO, 2, 2, 0x2400, 0x1000)).state
    assert state.commit_lsn == 0x1000
    state = step(state, Heard(ONE, 2, 3, 0x2400, 0x2300)).state
    assert state.commit_lsn == 0x2300, "but what it knows to be committed is"
    state = step(state, ChangeMembers(2, JOINT)).state
    state = step(state, Heard(FOUR, 2, 2, 0x2500, 0x1000)).state
    assert state.commit_lsn == 0x2400, "now 2 is of the same, and 1 is not"


def test_a_change_of_members_needs_the_elected_term() -> None:
    state = state_of(1, 2, 0x2000, (1, 0x1000))
    for term, reason in ((1, "STALE_TERM"), (2, "NOT_ELECTED"), (3, "TERM_NOT_PROMISED")):
        refusal = step(state, ChangeMembers(term, JOINT)).refusal
        assert refusal is not None
        assert refusal.reason == reason


def test_of_one_term_the_higher_generation_stays() -> None:
    state = state_of(1, 2, 0x2000, (2, 0x2000))
    final = step(state, ChangeMembers(2, FINAL))
    assert final.state.configuration == FINAL
    for late in (ChangeMembers(2, JOINT), elect(2, (2, 0x2000)), ChangeMembers(2, FINAL)):
        assert step(final.state, late) == acceptor.Step(final.state)
    promised = step(final.state, Vote(3)).state
    assert step(promised, elect(3, (2, 0x1000), (3, 0x2000))).state.configuration == STABLE, (
        "a later election did not see it: it was never established"
    )


def test_a_change_of_members_leaves_the_stream_running() -> None:
    state = replace(state_of(1, 2, 0x2000, (2, 0x2000)), attachment=Attachment(2, "host=a"))
    changed = step(state, ChangeMembers(2, JOINT))
    assert changed.actions == (Persist(clean=False),)
    assert changed.state.attachment == state.attachment


def test_one_alone_becomes_one_of_three() -> None:
    alone = replace(initial(START, 7), term=2, position=WalPosition(0x2000, 0x1FF8))
    assert alone.configuration == UNCONFIGURED
    grown = step(alone, ChangeMembers(2, Configuration(1, (ONE,), (ONE, TWO, THREE))))
    assert (grown.state.member, grown.state.writing_term) == (ONE, 2)
    assert grown.state.commit_lsn == 0x2000, "its own majority so far"
    flushed = step(grown.state, Flushed(2, WalPosition(0x2400, 0x23F8))).state
    assert flushed.commit_lsn == 0x2000
    assert step(flushed, Heard(THREE, 2, 1, 0x2200, 0)).state.commit_lsn == 0x2200


def test_a_blank_one_learns_and_is_not_counted() -> None:
    third = Member(3, 77)
    joined = admit(third, elect(5, (1, 0x1000), (5, 0x2000)), START, 7)
    assert joined.actions == (Persist(clean=True),)
    assert joined.state.member == third
    assert (joined.state.term, joined.state.position, joined.state.last_log_term) == (5, START, 1)
    assert acceptor.may_fill(joined.state, 5)
    assert step(joined.state, Append(5, 0x1000, 64)).refusal is None
    state = state_of(1, 5, 0x2800, (5, 0x2000))
    assert step(state, Heard(third, 5, 1, 0x2800, 0x1000)).state.commit_lsn == 0x1000


def test_a_member_cannot_begin_anew_as_whom_it_was() -> None:
    refusal = admit(THREE, elect(5, (1, 0x1000), (5, 0x2000)), START, 7).refusal
    assert refusal is not None
    assert refusal.reason == "MEMBER_KNOWN"


# Elections


def ballot(
    number: int, flush_lsn: int, *history: tuple[int, int], configuration: Configuration = STABLE
) -> Ballot:
    state = state_of(number, 5, flush_lsn, *history, configuration=configuration)
    return Ballot.of(state, number)


def reached(number: int, flush_lsn: int) -> Reached:
    return Reached(Member(number), 5, 1, flush_lsn)


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
    assert election.step(reached(1, 0x2000)) == []
    assert election.start is None
    assert election.step(reached(3, 0x1800)) == [Fill(3, (1,), 5)]
    election.step(reached(3, 0x2000))
    assert election.start == WalPosition(0x2000, 0x1FF8)


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


def test_a_blank_one_has_no_vote_and_is_not_waited_for() -> None:
    election = asked()
    election.step(Blank(2))
    election.step(ballot(1, 0x2000, (1, 0x1000)))
    due = election.step(ballot(3, 0x1800, (1, 0x1000)))
    assert [(type(item), item.number) for item in due] == [(SendElect, 1), (SendElect, 3)]
    assert election.blanks == {2}
    election.step(reached(1, 0x2000))
    election.step(reached(3, 0x2000))
    assert election.start == WalPosition(0x2000, 0x1FF8)
    assert election.retry() == []


def test_who_forgets_its_promise_takes_it_along() -> None:
    election = asked()
    election.step(ballot(2, 0x4000, (1, 0x1000)))
    election.step(Blank(2))
    election.step(ballot(1, 0x2000, (1, 0x1000)))
    due = election.step(ballot(3, 0x1800, (1, 0x1000)))
    assert isinstance(due[0], SendElect)
    assert due[0].elect.history[-1] == TermSwitch(5, 0x2000)


def test_an_old_incarnation_has_no_vote() -> None:
    election = asked()
    again = Configuration(4, (ONE, Member(2, 77), THREE))
    election.step(ballot(2, 0x3000, (1, 0x1000)))
    election.step(ballot(1, 0x2000, (1, 0x1000), configuration=again))
    assert [item.number for item in election.retry()] == [3], "one vote is no majority of three"
    election.step(ballot(3, 0x1800, (1, 0x1000)))
    assert election.choice is not None
    assert election.choice.donor.member == ONE


def test_the_ruling_configuration_was_elected_last_then_changed_last() -> None:
    def with_(configuration: Configuration, term: int) -> Ballot:
        return ballot(1, 0x2000, (term, 0x1000), configuration=configuration)

    assert ruling([with_(FINAL, 2), with_(JOINT, 2), with_(STABLE, 2)]) == FINAL
    assert ruling([with_(FINAL, 2), with_(STABLE, 3)]) == STABLE


def test_a_joint_configuration_has_more_to_ask() -> None:
    election = asked()
    election.step(ballot(3, 0x2000, (1, 0x1000)))
    assert election.step(ballot(1, 0x2000, (1, 0x1000), configuration=JOINT)) == [AskVote(4, 5)]
    assert [type(item) for item in election.retry()] == [AskVote, AskVote], "1 and 3 are of the old"
    election.step(ballot(4, 0x1000, (1, 0x1000), configuration=JOINT))
    due = election.retry()
    assert isinstance(due[0], SendElect)
    assert due[0].elect.configuration == JOINT
    election.step(reached(1, 0x2000))
    election.step(reached(3, 0x2000))
    assert election.start is None, "a majority of the old"
    election.step(reached(4, 0x2000))
    assert election.start is not None


def test_one_alone_is_a_configuration_of_itself() -> None:
    election = Election(5, (1,))
    (send,) = election.step(Ballot.of(replace(initial(START, 7), term=5), 1))
    assert isinstance(send, SendElect)
    assert send.elect.configuration == Configuration(0, (ONE,))
    state = step(replace(initial(START, 7), term=5), send.elect).state
    assert state.alone


# Configurations


@pytest.mark.parametrize(
    ("configuration", "names"),
    [
        (STABLE, "ANY 2 (sk1, sk2, sk3)"),
        (JOINT, "ANY 3 (sk1, sk2, sk3, sk4)"),
        (Configuration(1, (ONE,), (ONE, TWO, THREE)), "ANY 3 (sk1, sk2, sk3)"),
        (Configuration(1, (ONE, TWO, THREE), (ONE,)), "ANY 3 (sk1, sk2, sk3)"),
        (Configuration(1, (ONE, TWO), (ONE, Member(2, 77))), "ANY 3 (sk1, sk2, sk2_77)"),
        (Configuration(1, (ONE,), (FOUR,)), "ANY 2 (sk1, sk4)"),
    ],
)
def test_the_rule_of_a_compute_is_a_majority_of_each(
    configuration: Configuration, names: str
) -> None:
    assert configuration.standby_names == names
    for some in itertools.combinations(configuration.everyone, configuration.any_of):
        assert configuration.decided_by(some)
    fewer = itertools.combinations(configuration.everyone, configuration.any_of - 1)
    assert not all(configuration.decided_by(some) for some in fewer)
