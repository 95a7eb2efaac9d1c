"""A change of members, step by step (pagestore/consensus/change.py)."""

from __future__ import annotations

from pagestore.consensus.acceptor import ChangeMembers, Elect, TermSwitch, WalPosition
from pagestore.consensus.change import (
    Admit,
    MembershipChange,
    RuleIs,
    Send,
    SetRule,
    Stage,
)
from pagestore.consensus.election import Blank, Fill, Reached
from pagestore.consensus.members import Configuration, Member

ONE, TWO, THREE, FOUR = (Member(number) for number in range(1, 5))
START = WalPosition(0x1000, 0xF80)
STABLE = Configuration(1, (ONE, TWO, THREE))
LEARNER = Member(4, 77)
JOINT = Configuration(10, (ONE, TWO, THREE), (ONE, TWO, LEARNER))


def change_of(
    configuration: Configuration, target: tuple[int, ...], lost: tuple[int, ...] = ()
) -> MembershipChange:
    elect = Elect(5, (TermSwitch(1, 0x1000), TermSwitch(5, 0x2000)), configuration)
    return MembershipChange(elect, START, 7, target=target, lost=lost, level=0x3000, generation=10)


def reached(member: Member, generation: int, flush_lsn: int = 0x3000) -> Reached:
    return Reached(member, 5, generation, flush_lsn)


def told(change: MembershipChange, generation: int, *members: Member) -> list[object]:
    done: list[object] = []
    for member in members:
        done = [*change.step(reached(member, generation))]
    return done


def test_one_is_replaced_by_another() -> None:
    change = change_of(STABLE, (1, 2, 4))
    assert change.retry() == [Send(n, ChangeMembers(5, STABLE)) for n in (1, 2, 3)]
    assert change.step(reached(ONE, 1)) == []
    due = change.step(reached(TWO, 1))
    assert [type(item) for item in due] == [Send, Send, Admit]
    assert change.step(reached(LEARNER, 1, 0x1000)) == [Fill(4, (1, 2), 5)]
    assert change.waiting_for == (4,)
    joint = change.step(reached(LEARNER, 1, 0x3000))
    assert joint == [Send(n, ChangeMembers(5, JOINT)) for n in (1, 2, 3, 4)]
    assert told(change, 10, ONE, LEARNER) == [], "a majority of the new only"
    assert told(change, 10, THREE) == [SetRule(JOINT)]
    change.step(RuleIs(10, 0x3800))
    assert change.stage is Stage.LEVEL
    assert change.step(reached(TWO, 10, 0x3800)) == []
    assert change.step(reached(THREE, 10, 0x3800)) == [], "one of the old"
    final = Configuration(11, (ONE, TWO, LEARNER))
    sent = change.step(reached(LEARNER, 10, 0x3800))
    assert sent == [Send(n, ChangeMembers(5, final)) for n in (1, 2, 4)]
    assert told(change, 11, ONE, LEARNER) == [SetRule(final)]
    assert not change.done
    change.step(RuleIs(10, 0x4000))
    assert not change.done, "an answer to the rule before"
    change.step(RuleIs(11, 0x4000))
    assert change.done


def test_a_joint_one_in_force_is_carried_on_whatever_is_wanted_now() -> None:
    in_force = Configuration(4, JOINT.members, JOINT.joining)
    change = change_of(in_force, (1, 2, 3))
    assert change.retry()[0] == Send(1, ChangeMembers(5, in_force))
    assert told(change, 4, ONE, TWO) == [SetRule(in_force)]
    change.step(RuleIs(4, 0x3000))
    assert change.configuration == Configuration(10, (ONE, TWO, LEARNER)), "of ours"
    assert [type(item) for item in told(change, 10, ONE, TWO)] == [Send, Send, Admit], (
        "and now 3 in the place of 4"
    )


def test_who_lost_its_disk_comes_back_as_another() -> None:
    change = change_of(STABLE, (1, 2, 3))
    change.retry()
    change.step(Blank(3))
    due = told(change, 1, ONE, TWO)
    admit = due[-1]
    assert isinstance(admit, Admit)
    assert (admit.number, admit.elect.configuration) == (3, STABLE)
    change.step(reached(Member(3, 99), 1))
    assert change.configuration.joining == (ONE, TWO, Member(3, 99))
    change.step(Blank(3))
    assert change.configuration.joining == (ONE, TWO, Member(3, 99)), "that is for the next one"


def test_nothing_begins_without_a_majority_of_those_who_shall_be() -> None:
    change = change_of(STABLE, (3,))
    change.retry()
    told(change, 1, ONE, TWO)
    assert (change.stage, change.waiting_for) == (Stage.ADMIT, (3,))
    change.step(reached(THREE, 1))
    assert change.configuration == Configuration(10, (ONE, TWO, THREE), (THREE,))


def test_who_is_not_level_is_filled_by_those_who_are() -> None:
    change = change_of(STABLE, (3,))
    change.retry()
    told(change, 1, ONE, TWO)
    change.step(reached(THREE, 1, 0x1800))
    told(change, 10, ONE, TWO)
    change.step(reached(THREE, 10, 0x1800))
    change.step(RuleIs(10, 0x3000))
    assert change.step(reached(THREE, 10, 0x1800)) == [Fill(3, (1, 2), 5)]
    due = change.step(reached(THREE, 10, 0x3000))
    assert due == [Send(3, ChangeMembers(5, Configuration(11, (THREE,))))]


def test_when_nothing_is_to_change_the_rule_is_made_sure_of() -> None:
    change = change_of(STABLE, (1, 2, 3))
    change.retry()
    assert told(change, 1, ONE, THREE) == [SetRule(STABLE)]
    change.step(RuleIs(1, 0x3000))
    assert change.done


def test_another_terms_answer_counts_for_nothing() -> None:
    change = change_of(STABLE, (1, 2, 3))
    change.retry()
    for member in (ONE, TWO, THREE):
        assert change.step(Reached(member, 4, 1, 0x3000)) == []
    assert change.stage is Stage.ESTABLISH
