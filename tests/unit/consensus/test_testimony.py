"""What peers remember, against what a disk says: more means that the disk is an older copy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pagestore.consensus.acceptor import Heard
from pagestore.consensus.members import Configuration, Member
from pagestore.consensus.testimony import contradicts, may_speak

ONE, TWO, THREE = Member(1), Member(2), Member(3)
OF_THREE = Configuration(4, (ONE, TWO, THREE))
NOW = Heard(THREE, 7, 4, 0x5000, 0x4000, 7)

REMEMBERED = {
    "nothing more": (NOW, False),
    "less": (Heard(THREE, 6, 5, 0x9000, 0x9000, 6), False),
    "another promise": (replace(NOW, promised=8), True),
    "a later term": (replace(NOW, term=8, promised=8, flush_lsn=0x4000), True),
    "another configuration of the term": (replace(NOW, generation=5), True),
    "more of the log": (replace(NOW, flush_lsn=0x5008), True),
    "more that is committed, which is learnt anew": (replace(NOW, commit_lsn=0x5000), False),
    "who had that number before it": (replace(NOW, member=Member(3, 99), term=9), False),
}


@pytest.mark.parametrize("what", REMEMBERED)
def test_whoever_once_said_more_has_an_older_copy(what: str) -> None:
    remembered, older = REMEMBERED[what]
    assert contradicts(remembered, NOW) is older


def test_a_log_that_is_being_cut_for_a_higher_term_is_no_older_copy() -> None:
    remembered = Heard(THREE, 7, 4, 0x5000, 0x4000, 8)
    cut = Heard(THREE, 7, 4, 0x4800, 0x4000, 8)
    assert not contradicts(remembered, cut)
    assert not contradicts(remembered, replace(cut, term=8))


def test_a_log_counts_when_all_have_spoken_or_after_a_time_with_a_majority() -> None:
    for spoken, at_once, later in (
        ({1, 2}, True, True),
        ({1}, False, True),
        ({2, 9}, False, True),
        (set(), False, False),
    ):
        assert may_speak(THREE, OF_THREE, spoken, patient=True) is at_once
        assert may_speak(THREE, OF_THREE, spoken, patient=False) is later


def test_while_members_change_a_majority_of_both_sets_has_to_speak() -> None:
    joint = OF_THREE.followed_by(5, (THREE, Member(4), Member(5)))
    assert not may_speak(THREE, joint, {1, 2}, patient=False)
    assert may_speak(THREE, joint, {1, 4}, patient=False)
    assert not may_speak(THREE, joint, {1, 4}, patient=True)
