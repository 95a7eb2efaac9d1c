"""The acceptor's invariants, under any sequence of messages (pagestore/consensus/acceptor.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pagestore.consensus.acceptor import (
    Append,
    Attach,
    Attachment,
    CompareLog,
    Detach,
    Flushed,
    Message,
    Persist,
    StartStream,
    State,
    Step,
    StopStream,
    TermSwitch,
    Vote,
    WalPosition,
    WriteLog,
    initial,
    step,
)
from pagestore.errors import Aborted, FailedPrecondition, PagestoreError

START = WalPosition(0x1000, 0xF80)


def state_at(term: int, flush_lsn: int, *history: tuple[int, int]) -> State:
    return replace(
        initial(START, 7),
        term=term,
        position=WalPosition(flush_lsn, flush_lsn - 8),
        history=tuple(TermSwitch(*item) for item in history),
    )


@pytest.mark.parametrize("term", [0, 1, 3, 4, 2**63])
def test_a_promise_is_not_given_twice_nor_for_less(term: int) -> None:
    state = state_at(4, 0x2000, (4, 0x1000))
    assert step(state, Vote(term)) == Step(state)


def test_a_vote_ends_the_stream_before_it_is_remembered() -> None:
    state = replace(state_at(1, 0x2000, (1, 0x1000)), attachment=Attachment(1, "host=a"))
    voted = step(state, Vote(2))
    assert voted.actions == (StopStream(), Persist(clean=True))
    assert voted.state.attachment is None
    assert voted.state.history == state.history


def test_the_first_append_of_a_term_is_in_its_history() -> None:
    state = state_at(2, 0x2000, (1, 0x1000))
    appended = step(state, Append(2, 0x2000, 120))
    assert appended.actions == (Persist(clean=False), WriteLog())
    assert appended.state.history == (TermSwitch(1, 0x1000), TermSwitch(2, 0x2000))


def test_a_term_that_wrote_nothing_leaves_the_history() -> None:
    state = state_at(3, 0x2000, (1, 0x1000), (2, 0x2000))
    appended = step(state, Append(3, 0x2000, 120))
    assert appended.state.history == (TermSwitch(1, 0x1000), TermSwitch(3, 0x2000))


def test_an_append_again_is_compared_not_written() -> None:
    state = state_at(2, 0x2078, (2, 0x2000))
    assert step(state, Append(2, 0x2000, 0x78)).actions == (CompareLog(),)


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        (Append(1, 0x2000, 8), Aborted, "STALE_TERM"),
        (Append(3, 0x2000, 8), FailedPrecondition, "TERM_NOT_PROMISED"),
        (Append(2, 0x2008, 8), FailedPrecondition, "LSN_MISMATCH"),
        (Append(2, 0x1FF8, 16), FailedPrecondition, "LSN_MISMATCH"),
        (Append(2, 0x0FF8, 8), FailedPrecondition, "LSN_MISMATCH"),
        (Attach(1, "host=b", 0x2000), Aborted, "STALE_TERM"),
        (Attach(2, "host=b", 0x2008), FailedPrecondition, "LSN_MISMATCH"),
        (Detach(1), Aborted, "STALE_TERM"),
        (Detach(3), FailedPrecondition, "TERM_NOT_PROMISED"),
        (Flushed(2, WalPosition(0x3000, 0x2FF8)), Aborted, "STALE_TERM"),
        (Flushed(1, WalPosition(0x1FF8, 0x1FF0)), Aborted, "STALE_TERM"),
    ],
)
def test_refusals(message: Message, kind: type[PagestoreError], reason: str) -> None:
    state = state_at(2, 0x2000, (1, 0x1000))
    refused = step(state, message)
    assert type(refused.refusal) is kind
    assert refused.refusal is not None
    assert refused.refusal.reason == reason
    assert (refused.state, refused.actions) == (state, ())


def test_before_any_vote_nothing_is_appended() -> None:
    refusal = step(initial(START, 7), Append(0, START.flush_lsn, 8)).refusal
    assert refusal is not None
    assert refusal.reason == "TERM_NOT_PROMISED"


def test_one_compute_at_a_time() -> None:
    attached = step(state_at(1, 0x1000), Attach(1, "host=a", 0x1000)).state
    assert step(attached, Attach(1, "host=a", 0x1000)) == Step(attached)
    refusal = step(attached, Append(1, 0x1000, 8)).refusal
    assert refusal is not None
    assert refusal.reason == "ATTACHED"


def test_the_compute_of_a_term_may_be_told_anew_and_is_still_one() -> None:
    attached = step(state_at(1, 0x1000), Attach(1, "host=a", 0x1000)).state
    told = step(attached, Attach(1, "host=b", 0))
    assert told.actions == (StopStream(), Persist(clean=False), StartStream())
    assert told.state == replace(attached, attachment=Attachment(1, "host=b"))


class Disk:
    """What a safekeeper really has: the control file, the log by terms, a running stream."""

    def __init__(self) -> None:
        self.stored = initial(START, 7)
        self.log: list[tuple[int, int]] = []  # (term, end LSN) of each flushed stretch
        self.streaming: Attachment | None = None

    @property
    def end(self) -> int:
        return self.log[-1][1] if self.log else START.flush_lsn


class AcceptorModel(RuleBasedStateMachine):
    """Drives `step` as pagestore.walservice.timeline does, crashing between any two actions."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.state = self.disk.stored
        self.answered = 0  # the highest term that anybody was told is promised
        self.confirmed = START.flush_lsn  # the highest LSN that anybody was told is durable

    def step(self, state: State, message: Message) -> Step:
        return step(state, message)

    def drive(self, message: Message, crash_after: int = 99) -> Step:
        outcome = self.step(self.state, message)
        state = outcome.state
        for index, action in enumerate(outcome.actions):
            if index == crash_after:
                self.crash()
                return Step(self.state, refusal=Aborted("CRASH", "crashed"))
            state = self.carry_out(action, state, message)
        self.state = state
        return replace(outcome, state=state)

    def carry_out(self, action: object, state: State, message: Message) -> State:
        match action:
            case Persist():
                assert state.term >= self.disk.stored.term
                self.disk.stored = state
            case StopStream():
                self.disk.streaming = None
            case StartStream():
                assert self.disk.stored == state, "attached before it was remembered"
                self.disk.streaming = state.attachment
            case WriteLog():
                assert isinstance(message, Append)
                assert self.disk.stored.history == state.history, "written before remembered"
                end = message.lsn + message.length
                self.disk.log.append((message.term, end))
                flushed = step(state, Flushed(message.term, WalPosition(end, message.lsn)))
                assert flushed.refusal is None
                return flushed.state
        return state

    def crash(self) -> None:
        """The control file and the log stay; the attachment is resumed."""
        end = self.disk.end
        self.state = replace(
            self.disk.stored, position=WalPosition(end, self.state.start.flush_lsn)
        )
        if end == START.flush_lsn:
            self.state = replace(self.state, position=START)
        self.disk.streaming = self.state.attachment

    @rule(term=st.integers(0, 8), crash_after=st.integers(0, 3))
    def vote(self, term: int, crash_after: int) -> None:
        before = self.state.term
        outcome = self.drive(Vote(term), crash_after)
        if outcome.refusal is None and outcome.state.term > before:
            assert outcome.state.term > self.answered
            self.answered = outcome.state.term

    @rule(behind=st.sampled_from([0, 0, 0, 8]), below=st.integers(0, 1), crash=st.integers(0, 3))
    def append(self, behind: int, below: int, crash: int) -> None:
        term, lsn = self.state.term - below, self.state.position.flush_lsn - behind
        outcome = self.drive(Append(term, lsn, 16), crash)
        if outcome.refusal is None and WriteLog() in outcome.actions:
            assert term >= self.answered
            self.confirmed = lsn + 16

    @rule(below=st.integers(0, 1), host=st.sampled_from("ab"), crash=st.integers(0, 3))
    def attach(self, below: int, host: str, crash: int) -> None:
        term, end = self.state.term - below, self.state.position.flush_lsn
        self.drive(Attach(term, f"host={host}", end), crash)

    @rule(crash=st.integers(0, 3))
    def detach(self, crash: int) -> None:
        self.drive(Detach(self.state.term), crash)

    @precondition(lambda self: self.disk.streaming is not None)
    @rule(length=st.sampled_from([8, 64]))
    def stream(self, length: int) -> None:
        """The stream flushes, and confirms to its compute."""
        assert self.disk.streaming is not None
        term, end = self.disk.streaming.term, self.disk.end + length
        assert term >= self.answered, "confirmed to a compute whose term is over"
        outcome = self.step(self.state, Flushed(term, WalPosition(end, end - length)))
        assert outcome.refusal is None
        self.disk.log.append((term, end))
        self.state = outcome.state
        self.confirmed = end

    @rule()
    def restart(self) -> None:
        self.crash()

    @invariant()
    def nothing_told_is_forgotten(self) -> None:
        assert self.disk.stored.term >= self.answered
        assert self.disk.end >= self.confirmed
        assert self.state.position.flush_lsn == self.disk.end == self.state.commit_lsn

    @invariant()
    def what_streams_is_what_is_attached(self) -> None:
        assert self.disk.streaming == self.state.attachment == self.disk.stored.attachment

    @invariant()
    def the_history_says_who_wrote_what(self) -> None:
        history = self.state.history
        assert [item.term for item in history] == sorted({item.term for item in history})
        starts = [item.start_lsn for item in history]
        assert starts == sorted(set(starts))
        start = START.flush_lsn
        for term, end in self.disk.log:
            wrote = [item.term for item in history if item.start_lsn <= start]
            assert wrote[-1] == term
            start = end


AcceptorModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestAcceptorModel = AcceptorModel.TestCase


def _without(kind: type) -> Callable[[Step], Step]:
    return lambda made: replace(
        made, actions=tuple(item for item in made.actions if not isinstance(item, kind))
    )


def _backwards(made: Step) -> Step:
    return replace(made, actions=made.actions[::-1])


def _forgetting_history(made: Step) -> Step:
    return replace(made, state=replace(made.state, history=made.state.history[:1]))


def assert_caught(mutant: type[AcceptorModel]) -> None:
    """It ends with the first example that fails; most need a few of them, none needs so many."""
    quick = settings(
        max_examples=5000,
        stateful_step_count=30,
        database=None,
        derandomize=True,
        print_blob=False,
        phases=[Phase.generate],
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(mutant, settings=quick)


MUTATIONS: dict[str, tuple[type, Callable[[Step], Step]]] = {
    "a vote that is not remembered": (Vote, _without(Persist)),
    "a vote that leaves the stream running": (Vote, _without(StopStream)),
    "an append before its term is in the history": (Append, _backwards),
    "an append that is not remembered": (Append, _without(Persist)),
    "an attachment that is not remembered": (Attach, _without(Persist)),
    "a detached stream that runs on": (Detach, _without(StopStream)),
    "a history that knows only the first term": (Append, _forgetting_history),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_model_catches_a_planted_bug(name: str) -> None:
    kind, mutate = MUTATIONS[name]

    class Mutant(AcceptorModel):
        def step(self, state: State, message: Message) -> Step:
            made = step(state, message)
            return mutate(made) if isinstance(message, kind) and made.refusal is None else made

    assert_caught(Mutant)


def test_the_model_catches_a_confirmation_for_an_old_term() -> None:
    """The stream of a term that is over may not move the log on."""

    class Mutant(AcceptorModel):
        def step(self, state: State, message: Message) -> Step:
            if isinstance(message, Append) and message.term == state.term - 1:
                message = replace(message, term=state.term)
            return step(state, message)

    assert_caught(Mutant)
