"""Where undo and redo go: a table of logs, every short sequence of verbs, long random ones.

The model (undo_model.py) is held against :mod:`pagestore.control.undo` through :class:`Name`, which
does with the log, positions and timelines what past.py does.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pagestore.control.records import EventRecord, Verb
from pagestore.control.undo import Marks, Stay, Step, ToLeft, ToMark
from pagestore.errors import FailedPrecondition, NotFound
from pagestore.ids import TimelineId
from tests.unit.control.undo_model import VERBS, Content, Model


@dataclass
class Name:
    """A name, its timelines as lists of commits, and its log."""

    parents: list[tuple[int, int]] = field(default_factory=lambda: [(-1, 0)])
    commits: list[list[tuple[int, str]]] = field(default_factory=lambda: [[]])
    lsn: int = 1
    timeline: int = 0
    events: list[EventRecord] = field(default_factory=list)
    checkpoints: dict[str, tuple[int, int]] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.happened(Verb.CREATE, self.lsn)

    def happened(self, verb: Verb, lsn: int, checkpoint: str = "") -> None:
        raw = self.timeline.to_bytes(16, "big")
        self.events.append(
            EventRecord(
                verb=verb,
                timeline=TimelineId(raw),
                lsn=lsn,
                created_micros=0,
                checkpoint=checkpoint,
            )
        )

    def content(self, timeline: int | None = None, lsn: int | None = None) -> Content:
        timeline = self.timeline if timeline is None else timeline
        lsn = self.lsn if lsn is None else lsn
        parent, branch_lsn = self.parents[timeline]
        before = self.content(parent, min(lsn, branch_lsn)) if parent >= 0 else ()
        return before + tuple(said for at, said in self.commits[timeline] if at <= lsn)

    def last_commit(self, timeline: int | None = None, lsn: int | None = None) -> int:
        timeline = self.timeline if timeline is None else timeline
        lsn = self.lsn if lsn is None else lsn
        own = [at for at, _ in self.commits[timeline] if at <= lsn]
        parent, branch_lsn = self.parents[timeline]
        if own or parent < 0:
            return own[-1] if own else 0
        return self.last_commit(parent, min(lsn, branch_lsn))

    @property
    def marks(self) -> Marks:
        return Marks.of("app", self.events)

    # What a user does

    def commit(self, said: str) -> None:
        self.lsn += 10
        self.commits[self.timeline].append((self.lsn, said))

    def checkpoint(self) -> str:
        name = f"c{next(self.numbers)}"
        self.lsn += 1
        self.checkpoints[name] = (self.timeline, self.lsn)
        self.happened(Verb.CHECKPOINT, self.lsn, name)
        return name

    def delete(self, name: str) -> None:
        del self.checkpoints[name]
        self.happened(Verb.DELETE_CHECKPOINT, self.lsn, name)

    def restore(self, name: str) -> None:
        self._move(Verb.RESTORE, *self.checkpoints[name])

    def take(self, verb: Verb, step: Step) -> bool:
        """Whether it moved."""
        match step:
            case ToMark(mark):
                self._move(verb, int.from_bytes(mark.timeline.raw, "big"), mark.lsn)
            case ToLeft(move):
                self._move(verb, *self.checkpoints[move.checkpoint])
            case _:
                return False
        return True

    def undo(self) -> bool | None:
        """Whether it moved; None where it was refused."""
        try:
            return self.take(Verb.UNDO, self.marks.undo(self.last_commit()))
        except FailedPrecondition:
            return None

    def redo(self) -> bool:
        return self.take(Verb.REDO, self.marks.redo(self.last_commit()))

    def _move(self, verb: Verb, timeline: int, lsn: int) -> None:
        kept = f"before-{verb}-{next(self.numbers)}"
        self.lsn += 1  # a compute that stops writes, and commits nothing
        self.checkpoints[kept] = (self.timeline, self.lsn)
        self.parents.append((timeline, lsn))
        self.commits.append([])
        self.timeline = len(self.parents) - 1
        self.happened(verb, lsn, kept)
        self.lsn = lsn + 1


DEEPEST = 6


class Pair:
    """A name and its model, which do the same."""

    def __init__(self) -> None:
        self.name, self.model = Name(), Model()

    def do(self, verb: str, number: int) -> bool | None:
        """Whether it moved; None where it was refused."""
        if verb == "commit":
            self.name.commit(f"w{number}")
            self.model.commit(f"w{number}")
            return False
        if verb == "checkpoint":
            self.model.checkpoint(self.name.checkpoint())
            return False
        if verb == "restore":
            if not self.model.checkpoints:
                return False
            first = next(iter(self.model.checkpoints))
            self.name.restore(first)
            self.model.restore(first)
            return True
        moved, expected = getattr(self.name, verb)(), getattr(self.model, verb)()
        assert moved == expected
        return bool(moved) if moved is not None else None


def replay(verbs: tuple[str, ...]) -> Pair:
    pair = Pair()
    for number, verb in enumerate(verbs):
        before = pair.name.content()
        moved = pair.do(verb, number)
        assert pair.name.content() == pair.model.content, verbs
        if verb in ("undo", "redo"):
            assert (pair.name.content() != before) <= bool(moved), verbs
    return pair


@pytest.mark.parametrize("length", range(1, DEEPEST + 1))
def test_every_short_sequence_does_what_a_user_expects(length: int) -> None:
    for verbs in itertools.product(VERBS, repeat=length):
        replay(verbs)


def test_undo_again_is_harmless_after_every_short_sequence() -> None:
    for verbs in itertools.product(VERBS, repeat=5):
        pair = replay(verbs)
        for verb in ("undo", "redo"):
            pair.do(verb, 99)
            after = pair.name.content()
            assert not pair.do(verb, 99), (verbs, verb)
            assert pair.name.content() == after


def test_undo_never_passes_the_latest_checkpoint() -> None:
    for verbs in itertools.product(VERBS, repeat=4):
        pair = replay((*verbs, "checkpoint"))
        kept = pair.name.content()
        for after in itertools.product(("commit", "undo"), repeat=3):
            again = replay((*verbs, "checkpoint", *after))
            assert again.name.content()[: len(kept)] == kept, (verbs, after)


def test_undo_alone_never_brings_back_what_was_undone() -> None:
    """Whatever good work and checkpoints come after; the commits of `damage` stay away."""
    for before in itertools.product(VERBS, repeat=2):
        for after in itertools.product(("commit", "checkpoint", "undo"), repeat=4):
            verbs = (*before, "checkpoint", "commit", "undo", *after)
            damage = f"w{len(before) + 1}"
            assert damage not in replay(verbs).name.content(), verbs


def test_the_issue_s_example() -> None:
    pair = Pair()
    for number, verb in enumerate(("checkpoint", "commit", "undo", "commit", "checkpoint")):
        pair.do(verb, number)
    assert pair.name.content() == ("w3",)
    assert pair.do("undo", 9) is False
    assert pair.name.content() == ("w3",)


def test_nothing_that_a_move_leaves_is_lost() -> None:
    for verbs in itertools.product(VERBS, repeat=5):
        pair = replay(verbs)
        name = pair.name
        left = {name.content(*position) for position in name.checkpoints.values()}
        seen, again = {name.content()}, Pair()
        for number, verb in enumerate(verbs):
            before = again.name.content()
            if again.do(verb, number):
                seen.add(before)
        assert seen <= left | {name.content()}


class LongStory(RuleBasedStateMachine):
    """As the short ones, with checkpoints deleted and any of them restored."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.number = 0

    @rule(verb=st.sampled_from(("commit", "checkpoint", "undo", "redo")))
    def plain(self, verb: str) -> None:
        self.number += 1
        self.pair.do(verb, self.number)

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        name, model = self.pair.name, self.pair.model
        if model.checkpoints:
            chosen = data.draw(st.sampled_from(sorted(model.checkpoints)))
            name.restore(chosen)
            model.restore(chosen)

    @rule(data=st.data())
    def delete_an_older_checkpoint(self, data: st.DataObject) -> None:
        """One that is not the latest mark changes nothing."""
        name, model = self.pair.name, self.pair.model
        latest = name.marks.latest
        older = [key for key in model.checkpoints if latest and latest.checkpoint != key]
        if older:
            chosen = data.draw(st.sampled_from(sorted(older)))
            name.delete(chosen)
            del model.checkpoints[chosen]

    @rule()
    def undo_to_the_latest_checkpoint_and_again(self) -> None:
        name = self.pair.name
        made = [event.checkpoint for event in name.marks.marks if event.verb is Verb.CHECKPOINT]
        if not made:
            return
        mark = name.marks.checkpoint(made[-1])
        position = name.checkpoints[made[-1]]
        for again in (False, True):
            here = name.parents[name.timeline] == position
            step = name.marks.undo_to(made[-1], name.last_commit(), here=here)
            if isinstance(step, Stay):
                assert name.content() == name.content(*position)
            else:
                assert not again
                assert step == ToMark(mark, f"checkpoint {made[-1]}")
                before = name.content()
                name.take(Verb.UNDO, step)
                self.pair.model._go(name.content(*position), redoable=before)
        for older in made[:-1]:
            with pytest.raises(FailedPrecondition, match="never passes"):
                name.marks.undo_to(older, name.last_commit(), here=False)

    @invariant()
    def both_say_the_same(self) -> None:
        assert self.pair.name.content() == self.pair.model.content


LongStory.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestLongStory = LongStory.TestCase


def test_a_deleted_checkpoint_is_no_mark() -> None:
    name = Name()
    name.checkpoint()
    name.commit("damage")
    mistaken = name.checkpoint()
    assert name.undo() is False
    name.delete(mistaken)
    assert name.undo() is True
    assert name.content() == ()


def test_what_a_restore_left_and_somebody_deleted_is_not_gone_back_to() -> None:
    name = Name()
    base = name.checkpoint()
    name.commit("work")
    name.restore(base)
    name.delete(name.events[-1].checkpoint)
    step = name.marks.undo(name.last_commit())
    assert isinstance(step, Stay)
    assert "was deleted" in step.why
    # One of that name which somebody makes later is another one.
    name.checkpoints["before-restore-2"] = (name.timeline, name.lsn)
    assert name.undo() is False


def test_refusals_and_reasons_name_what_they_found() -> None:
    name = Name()
    assert "since it was made" in _why(name.marks.undo(name.last_commit()))
    name.commit("damage")
    with pytest.raises(FailedPrecondition, match="no checkpoint to go back to") as caught:
        name.marks.undo(name.last_commit())
    assert caught.value.reason == "NO_MARK"
    with pytest.raises(NotFound, match="Nobody made a checkpoint 'x'"):
        name.marks.undo_to("x", name.last_commit(), here=False)
    made = name.checkpoint()
    assert f"since checkpoint {made}" in _why(name.marks.undo(name.last_commit()))
    assert "was not an undo" in _why(name.marks.redo(name.last_commit()))
    name.commit("more")
    name.undo()
    assert "since the state right after the last undo" in _why(name.marks.undo(name.last_commit()))
    name.commit("good")
    assert "was written to since the undo" in _why(name.marks.redo(name.last_commit()))


def _why(step: Step) -> str:
    assert isinstance(step, Stay)
    return step.why
