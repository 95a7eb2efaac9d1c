"""Which mark an undo goes back to, as a table of logs."""

from __future__ import annotations

import pytest

from pagestore.control.records import EventRecord, Verb
from pagestore.control.undo import Marks
from pagestore.ids import TimelineId


def log(*words: str) -> list[EventRecord]:
    """Events from words like ``checkpoint:a``; the LSN is the position."""
    events = []
    for position, word in enumerate(words, 1):
        verb, _, checkpoint = word.partition(":")
        events.append(
            EventRecord(
                verb=Verb(verb),
                timeline=TimelineId(bytes(15) + bytes([position])),
                lsn=position,
                created_micros=position,
                checkpoint=checkpoint,
            )
        )
    return events


@pytest.mark.parametrize(
    ("words", "latest", "last_move"),
    [
        (["create"], None, None),
        (["create", "checkpoint:a"], 2, None),
        (["create", "checkpoint:a", "checkpoint:b"], 3, None),
        (["create", "checkpoint:a", "restore:k"], 3, 3),
        (["create", "checkpoint:a", "restore:k", "undo:l"], 4, 4),
        (["create", "checkpoint:a", "restore:k", "checkpoint:b"], 4, 3),
        (["branch", "port"], None, None),
    ],
)
def test_marks_of_a_log(words: list[str], latest: int | None, last_move: int | None) -> None:
    marks = Marks.of(log(*words))
    assert (marks.latest.lsn if marks.latest else None) == latest
    assert (marks.last_move.lsn if marks.last_move else None) == last_move


def test_the_refusal_names_what_it_found() -> None:
    assert "no checkpoint" in Marks.of(log("create")).nothing_to_undo("app").message
    since = Marks.of(log("create", "checkpoint:a")).nothing_to_undo("app").message
    assert "since checkpoint a" in since
