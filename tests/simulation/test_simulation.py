"""Many lives of a timeline on several safekeepers, each from one seed; and planted bugs.

`pytest tests/simulation --seeds 10000` runs more of them; `--seeds 4711:4712` replays one.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from pagestore.consensus import acceptor, members
from pagestore.consensus.acceptor import (
    Heard,
    Persist,
    State,
    Step,
    StopStream,
    TermSwitch,
    Vote,
)
from pagestore.consensus.change import MembershipChange
from pagestore.consensus.members import Configuration, Member
from tests.simulation import safekeeper
from tests.simulation.ledger import Stuck, Violation
from tests.simulation.safekeeper import Disk, SimSafekeeper
from tests.simulation.scenario import START, run

SEEDS_TO_CATCH = 3000
PROCESSES, PIECE = 2, 100


def seeds_of(option: str) -> range:
    first, colon, end = option.rpartition(":")
    return range(int(first) if colon else 0, int(end))


@pytest.mark.timeout(1200)
def test_every_seed_keeps_what_was_acknowledged(request: pytest.FixtureRequest) -> None:
    seeds = seeds_of(request.config.getoption("--seeds"))
    pieces = [seeds[at : at + PIECE] for at in range(0, len(seeds), PIECE)]
    happened: Counter[str] = Counter()
    # What the tests before this one left on the heap is not to be looked through again and again.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(PROCESSES, fork, initializer=gc.freeze) as pool:
        for failure, counts in pool.map(lives, pieces):
            assert not failure, failure
            happened += counts
    if len(seeds) >= 50:
        assert not {*vars(run(seeds[0]))} - {*happened}, "something never happened"


def lives(seeds: range) -> tuple[str, Counter[str]]:
    """What went wrong in the first that did, and how often each thing happened."""
    happened: Counter[str] = Counter()
    for seed in seeds:
        try:
            happened += Counter(vars(run(seed, harsh=seed % 2 == 1)))
        except AssertionError as error:
            return f"--seeds {seed}:{seed + 1} replays it: {error}", happened
    return "", happened


def test_a_seed_is_one_life() -> None:
    assert run(11) == run(11)


Plant = Callable[[pytest.MonkeyPatch], None]


def without(action: type) -> Plant:
    """A vote that leaves this out."""

    def forgetful(state: State, message: acceptor.Message) -> Step:
        made = acceptor.step(state, message)
        if not isinstance(message, Vote):
            return made
        return replace(made, actions=tuple(a for a in made.actions if not isinstance(a, action)))

    return lambda patch: patch.setattr(safekeeper, "step", forgetful)


def cut_by_length(patch: pytest.MonkeyPatch) -> None:
    def shorter(
        own: tuple[TermSwitch, ...], flush_lsn: int, elected: tuple[TermSwitch, ...]
    ) -> int:
        return min(flush_lsn, elected[-1].start_lsn)

    patch.setattr(acceptor, "common_end", shorter)


def forget_and_go_on(patch: pytest.MonkeyPatch) -> None:
    def wipe(self: SimSafekeeper) -> None:
        stored = self.disk.stored
        self.crash()
        configuration = stored.configuration if stored else Configuration(1, (Member(1),))
        me = stored.member if stored else Member(self.number)
        self.disk = Disk(acceptor.initial(START, 7, me, configuration))

    patch.setattr(SimSafekeeper, "wipe", wipe)


def less_than_a_majority(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(members, "majority", lambda count: max(1, count // 2))


def one_set(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Configuration, "sets", property(lambda self: (self.everyone,)))


def counts_who_has_gone_on(patch: pytest.MonkeyPatch) -> None:
    told = acceptor.position_of

    def without_generation(state: State) -> Heard:
        return replace(told(state), generation=0)

    patch.setattr(acceptor, "position_of", without_generation)


def established(when: Callable[[MembershipChange], bool]) -> Plant:
    """A change that takes what is not established for granted."""
    asked = MembershipChange._is_established

    def hasty(self: MembershipChange) -> bool:
        return when(self) or asked(self)

    return lambda patch: patch.setattr(MembershipChange, "_is_established", hasty)


def level_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MembershipChange, "_level_ones", lambda self: set(self.configuration.everyone))


def believes_its_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(safekeeper, "contradicts", lambda remembered, own: False)


PLANTED: dict[str, Plant] = {
    "one whose disk is an older copy goes on from it": believes_its_disk,
    "a vote that is not fsynced": without(Persist),
    "a vote that leaves the old term's stream confirming": without(StopStream),
    "a log cut by its length, not by its terms": cut_by_length,
    "one who lost its disk goes on as if it had not": forget_and_go_on,
    "less than a majority decides": less_than_a_majority,
    "a joint configuration counted as one set": one_set,
    "counting those who have gone on to other members": counts_who_has_gone_on,
    "a joint configuration that the old members have not stored": established(
        lambda change: change.configuration.joint
    ),
    "a final configuration before a majority of the new has all that was committed": level_at_once,
}
"""Each makes something happen that must never happen."""

GETS_STUCK: dict[str, Plant] = {
    "the final configuration is the rule before a majority of the new has stored it": established(
        lambda change: change._began and not change.configuration.joint
    ),
    "the next change before the last is established": established(lambda change: True),
}
"""The old members are deleted before the new ones know that they are alone."""


@pytest.mark.parametrize("name", [*PLANTED, *GETS_STUCK])
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (PLANTED | GETS_STUCK)[name](monkeypatch)
    with pytest.raises(Violation if name in PLANTED else Stuck):
        _run_until_caught(Stuck if name in PLANTED else Violation)


def _run_until_caught(other: type[AssertionError]) -> None:
    for seed in range(SEEDS_TO_CATCH):
        with contextlib.suppress(other):
            run(seed, harsh=True)
