"""Many lives of a timeline on several safekeepers, each from one seed; and planted bugs.

`pytest tests/simulation --seeds 10000` runs more of them; `--seeds 4711:4712` replays one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from pagestore.walservice import acceptor, members
from pagestore.walservice.acceptor import (
    Persist,
    State,
    Step,
    StopStream,
    TermSwitch,
    Vote,
)
from pagestore.walservice.change import MembershipChange
from pagestore.walservice.members import Configuration, Member
from tests.simulation import safekeeper
from tests.simulation.ledger import Stuck, Violation
from tests.simulation.safekeeper import Disk, SimSafekeeper
from tests.simulation.scenario import START, run

SEEDS_TO_CATCH = 300


def seeds_of(option: str) -> range:
    first, colon, end = option.rpartition(":")
    return range(int(first) if colon else 0, int(end))


def test_every_seed_keeps_what_was_acknowledged(request: pytest.FixtureRequest) -> None:
    outcomes = []
    for seed in seeds_of(request.config.getoption("--seeds")):
        try:
            outcomes.append(run(seed, harsh=seed % 2 == 1))
        except AssertionError as error:
            raise AssertionError(f"--seeds {seed}:{seed + 1} replays it: {error}") from error
    if len(outcomes) < 50:
        return
    for happens in vars(outcomes[0]):
        assert sum(getattr(item, happens) for item in outcomes) > 0, f"never any {happens}"


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


def established(when: Callable[[MembershipChange], bool]) -> Plant:
    """A change that takes what is not established for granted."""
    asked = MembershipChange._is_established

    def hasty(self: MembershipChange) -> bool:
        return when(self) or asked(self)

    return lambda patch: patch.setattr(MembershipChange, "_is_established", hasty)


def level_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MembershipChange, "_level_ones", lambda self: set(self.configuration.everyone))


PLANTED: dict[str, Plant] = {
    "a vote that is not fsynced": without(Persist),
    "a vote that leaves the old term's stream confirming": without(StopStream),
    "a log cut by its length, not by its terms": cut_by_length,
    "one who lost its disk goes on as if it had not": forget_and_go_on,
    "less than a majority decides": less_than_a_majority,
    "a joint configuration counted as one set": one_set,
    "a joint configuration that the old members have not stored": established(
        lambda change: change.configuration.joint
    ),
    "the next change before the last is established": established(lambda change: True),
    "new members decide before they have what was committed": level_at_once,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    with pytest.raises(Violation):
        _run_all(SEEDS_TO_CATCH)


def _run_all(seeds: int) -> None:
    for seed in range(seeds):
        with contextlib.suppress(Stuck):
            run(seed, harsh=True)
