"""Which logs count after a start: what peers remember comes early, late, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from pagestore.consensus.acceptor import Heard, State, WalPosition, initial, position_of
from pagestore.consensus.members import Configuration, Member
from pagestore.errors import DataLoss, Unavailable
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.walservice import trial
from pagestore.walservice.trial import Trials
from pagestore.walservice.watch import TimelineKey

KEY = TimelineKey(DEFAULT_TENANT, TimelineId(b"t" * 16))
THREE = Configuration(1, (Member(1), Member(2), Member(3)))
STATE = replace(initial(WalPosition(0x1000, 0), 1, Member(1), THREE), term=4)
SAME = position_of(STATE)
MORE = replace(SAME, promised=5)


class Case:
    def __init__(self) -> None:
        self.counts: list[TimelineKey] = []
        self.late: list[Heard] = []
        self.trials = Trials(lambda key, state: self.counts.append(key), self._late)
        self.trials.begin([KEY])
        self.trials.note(KEY, STATE)
        self.trials.start()

    def _late(self, key: TimelineKey, remembered: Heard) -> bool:
        self.late.append(remembered)
        return remembered == MORE

    def speaks(self, number: int, remembered: Heard | None = None) -> None:
        if remembered is not None:
            self.trials.testify(number, KEY, remembered)
        self.trials.spoken(number, all_of_it=True)

    @property
    def on_trial(self) -> bool:
        return self.trials.is_on_trial(KEY, STATE)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Case], Awaitable[None]]], None]:
    monkeypatch.setattr(trial, "PATIENCE_SECONDS", 0.2)

    def run(story: Callable[[Case], Awaitable[None]]) -> None:
        async def main() -> None:
            await story(Case())

        asyncio.run(main())

    return run


Play = Callable[[Callable[[Case], Awaitable[None]]], None]


def test_a_log_counts_at_once_when_all_remember_no_more(play: Play) -> None:
    async def story(case: Case) -> None:
        waiting = asyncio.create_task(case.trials.end(KEY, STATE))
        case.speaks(2, SAME)
        await asyncio.sleep(0)
        assert case.on_trial
        assert not case.counts
        case.speaks(3)
        await waiting
        assert case.counts == [KEY]
        assert not case.on_trial

    play(story)


def test_an_older_copy_never_counts_whoever_else_knows_of_nothing(play: Play) -> None:
    async def story(case: Case) -> None:
        case.speaks(2, MORE)
        case.speaks(3, SAME)
        for _ in range(2):
            with pytest.raises(DataLoss) as refusal:
                await case.trials.end(KEY, STATE)
            assert refusal.value.reason == "LOG_ROLLED_BACK"
            await asyncio.sleep(0.25)
        assert case.on_trial
        assert not case.counts

    play(story)


def test_one_who_is_away_is_waited_for_only_so_long(play: Play) -> None:
    async def story(case: Case) -> None:
        case.speaks(3, SAME)
        await case.trials.end(KEY, STATE)
        assert not case.on_trial
        case.trials.testify(2, KEY, SAME)
        case.trials.testify(2, KEY, MORE)
        assert case.late == [SAME, MORE]
        case.trials.begin([KEY])
        with pytest.raises(DataLoss, match="Safekeeper 2 remembers"):
            await case.trials.end(KEY, STATE)

    play(story)


def test_with_all_away_it_says_who_is_missing_and_counts_when_one_comes(play: Play) -> None:
    async def story(case: Case) -> None:
        with pytest.raises(Unavailable, match="away: 2, 3") as refusal:
            await case.trials.end(KEY, STATE)
        assert refusal.value.reason == "PEERS_SILENT"
        case.speaks(2)
        await case.trials.end(KEY, STATE)

    play(story)


def test_who_is_alone_or_was_made_since_is_on_no_trial(play: Play) -> None:
    async def story(case: Case) -> None:
        alone: State = initial(WalPosition(0x1000, 0), 1)
        assert not case.trials.is_on_trial(KEY, alone)
        made = KEY._replace(timeline=TimelineId(b"u" * 16))
        await case.trials.end(made, STATE)

    play(story)
