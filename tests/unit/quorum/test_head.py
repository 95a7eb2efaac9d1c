"""What some safekeepers' answers say of the end of a log, and when they say too little."""

from __future__ import annotations

import pytest

from pagestore.quorum.head import Said, judge, superseded
from pagestore.v1 import wal_pb2 as pb

THREE = ((1, 1), (2, 1), (3, 1))


def says(
    number: int,
    flush_lsn: int,
    commit_lsn: int = 0,
    *,
    history: tuple[tuple[int, int], ...] = ((1, 0),),
    incarnation: int = 1,
    members: tuple[tuple[int, int], ...] = THREE,
    joining: tuple[tuple[int, int], ...] = (),
    generation: int = 1,
) -> Said:
    def told(pairs: tuple[tuple[int, int], ...]) -> list[pb.Member]:
        return [pb.Member(number=n, incarnation=i) for n, i in pairs]

    configuration = pb.Configuration(
        generation=generation, members=told(members), joining=told(joining)
    )
    return Said.by(
        pb.WalTimelineStatus(
            number=number,
            incarnation=incarnation,
            flush_lsn=flush_lsn,
            commit_lsn=commit_lsn,
            term=history[-1][0] if history else 0,
            term_history=[pb.TermSwitch(term=t, start_lsn=s) for t, s in history],
            configuration=configuration,
        )
    )


@pytest.mark.parametrize(
    ("said", "committed", "known"),
    [
        pytest.param([says(1, 8), says(2, 8)], 8, True, id="both have it"),
        pytest.param([says(1, 16), says(2, 8)], 8, False, id="the third may have it too"),
        pytest.param([says(1, 16), says(2, 8), says(3, 8)], 8, False, id="one alone has it"),
        pytest.param([says(1, 16), says(2, 8, 16)], 16, True, id="told to be committed"),
        pytest.param([says(1, 16), says(2, 8), says(3, 16)], 16, True, id="a majority has it"),
        pytest.param(
            [says(1, 24), says(2, 16, history=((1, 0), (2, 8)))], 0, False, id="an older term's"
        ),
        pytest.param(
            [says(1, 24), *(says(n, 16, history=((1, 0), (2, 8))) for n in (2, 3))],
            *(16, True),
            id="the longer log has lost",
        ),
        pytest.param(
            [says(n, 16, history=((1, 0), (2, 24))) for n in (1, 2)],
            *(0, False),
            id="not at the term's start yet",
        ),
        pytest.param(
            [says(1, 16), says(2, 16, incarnation=7), says(3, 8)],
            *(8, False),
            id="who lost its disk does not count",
        ),
    ],
)
def test_where_the_log_ends(said: list[Said], committed: int, known: bool) -> None:
    head = judge(said)
    assert head is not None
    assert (head.committed, head.known) == (committed, known)


def test_less_than_a_majority_says_nothing() -> None:
    assert judge([]) is None
    assert judge([says(1, 8)]) is None
    assert judge([says(1, 8), says(4, 8)]) is None
    assert judge([says(1, 8), says(2, 8, incarnation=7)]) is None


def test_a_joint_configuration_needs_both_majorities() -> None:
    joint = {"joining": ((1, 1), (4, 1), (5, 1)), "generation": 2}
    old = [says(n, 8) for n in (2, 3)]
    assert judge([says(1, 8, **joint), *old]) is None  # type: ignore[arg-type]
    head = judge([says(1, 8, **joint), *old, says(4, 8, **joint)])  # type: ignore[arg-type]
    assert head is not None
    assert head.known


def test_one_alone_is_its_own_majority() -> None:
    alone = says(1, 8, 8, members=(), generation=0)
    head = judge([alone])
    assert head is not None
    assert (head.committed, head.known) == (8, True)
    assert [item.number for item in head.configuration.members] == [1]


def test_a_term_is_over_when_too_few_are_left_to_confirm_it() -> None:
    overtaken = {"history": ((1, 0), (2, 8))}
    one, two, three = (says(n, 8) for n in (1, 2, 3))
    later_two, later_three = (says(n, 8, **overtaken) for n in (2, 3))  # type: ignore[arg-type]
    for said, over in (
        ([one, two, three], False),
        ([one, two, later_three], False),
        ([one, later_two, later_three], True),
        ([later_two, later_three], True),
    ):
        head = judge(said)
        assert head is not None
        assert superseded(1, said, head) == over
        assert not superseded(2, said, head)
