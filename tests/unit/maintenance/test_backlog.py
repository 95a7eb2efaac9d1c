"""Which transactions may be journaled, and which layers are to be put into the object store."""

from __future__ import annotations

from pagestore._native import LayerSummary
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.lmdbfile.changes import Batch
from pagestore.lmdbfile.whole import Change, Whole
from pagestore.maintenance.backlog import Backlog
from pagestore.timeline.entries import LayerEntry, Place, layer_key

TIMELINE = TimelineId((1).to_bytes(16, "big"))
HERE, BOTH = Place.LOCAL, Place.LOCAL | Place.REMOTE


def key(number: int) -> bytes:
    return layer_key(DEFAULT_TENANT, TIMELINE, number)


def entry(number: int, place: Place) -> Change:
    summary = LayerSummary((1, bytes(18), bytes(18), 1, 2, 3, 4, 100 * number))
    packed = LayerEntry(summary, place=place).pack(key(number))
    return Change(b"", key(number), packed)


def gone(number: int) -> Change:
    return Change(b"", key(number), None)


class Told:
    """A backlog, and transactions counted from 1."""

    def __init__(self) -> None:
        self.now = 0.0
        self.backlog = Backlog("catalog", lambda: self.now)
        self.transaction = 0

    def note(self, *changes: Change) -> None:
        self.transaction += 1
        self.backlog.note(Batch(Whole(self.transaction, bytes(16), 0), changes))

    def ready(self) -> list[int]:
        return [batch.whole.transaction for batch in self.backlog.ready()]


def test_what_names_no_layer_is_ready_at_once() -> None:
    told = Told()
    told.note(Change(b"", b"h", b"a horizon"))
    assert told.ready() == [1]
    told.backlog.journaled(1)
    assert told.ready() == []
    assert told.backlog.is_empty


def test_a_transaction_waits_for_its_layer_and_those_behind_it_too() -> None:
    told = Told()
    told.note(Change(b"", b"h", b""))
    told.note(entry(1, HERE))
    told.note(Change(b"", b"h", b""))
    assert told.ready() == [1]
    told.note(entry(1, BOTH))
    assert told.ready() == [1, 2, 3, 4]


def test_a_layer_that_goes_before_its_turn_is_waited_for_no_more() -> None:
    told = Told()
    told.note(entry(1, HERE))
    told.note(entry(2, HERE))
    told.note(gone(1), gone(2), entry(3, HERE))
    assert told.ready() == []
    assert told.backlog.take() == key(3), "neither of those that went"
    told.note(entry(3, BOTH))
    assert told.ready() == [1, 2, 3, 4], "as one: alone the first would name what is nowhere"
    told.backlog.journaled(4)
    assert told.backlog.is_empty


def test_what_was_there_when_it_began_counts() -> None:
    told = Told()
    told.backlog.layer(key(1), entry(1, HERE).value or b"")
    told.note(Change(b"", b"h", b""))
    assert told.ready() == [1], "that names it no more than before"
    told.note(entry(1, HERE))
    assert told.ready() == [1]


def test_each_layer_is_taken_once_and_again_when_it_failed_behind_the_others() -> None:
    told = Told()
    told.note(entry(1, HERE), entry(2, HERE))
    assert [told.backlog.take() for _ in range(3)] == [key(1), key(2), None]
    told.now = 7.0
    told.backlog.failed(key(1))
    assert told.backlog.take() == key(1)
    assert told.backlog.waiting_bytes == 300
    told.note(entry(4, HERE))
    assert told.backlog.age == 7.0
    told.note(entry(2, BOTH), entry(4, BOTH))
    assert told.backlog.age == 7.0, "since it came, not since it failed"
