"""What of a timeline's WAL is released, while replication slots need some of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pagestore.errors import NotFound
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.ingest.releases import Releases
from pagestore.pgformat.slot_state import SlotState

PARENT, CHILD = TimelineId(b"\1" * 16), TimelineId(b"\2" * 16)
MIB = 1 << 20


def slot(restart_lsn: int) -> bytes:
    state = SlotState("taken", 5, 0, 0, 700, restart_lsn, 0, 0, 0, False, "pgoutput").pack()
    return struct.pack("<64sII", b"taken", len(state), 0) + state


@dataclass
class FakeTimeline:
    last_record_lsn: int
    disk_consistent_lsn: int
    branch_lsn: int = 0
    parent: TimelineId | None = None
    slots: list[bytes] = field(default_factory=list)

    def snapshot(self) -> Any:
        return SimpleNamespace(scan=lambda low, high, lsn: [(b"", value) for value in self.slots])


class Store:
    def __init__(self, **timelines: FakeTimeline) -> None:
        self.timelines = {PARENT: timelines["parent"]}
        if "child" in timelines:
            self.timelines[CHILD] = timelines["child"]
        source = SimpleNamespace(unreleased=set())
        self.noted: set[Any] = source.unreleased
        sources = SimpleNamespace(all=[source])
        self.releases = Releases(self, sources, "page", 100 * MIB)  # type: ignore[arg-type]

    def get(self, tenant: Any, timeline: TimelineId) -> FakeTimeline:
        try:
            return self.timelines[timeline]
        except KeyError:
            raise NotFound("TIMELINE_NOT_FOUND", "gone") from None

    def released(self, timeline: TimelineId) -> int | None:
        found = self.releases._position((DEFAULT_TENANT, timeline))
        return None if found is None else found[2]


def test_without_slots_what_is_in_files_is_released() -> None:
    assert Store(parent=FakeTimeline(50 * MIB, 40 * MIB)).released(PARENT) == 40 * MIB


@pytest.mark.parametrize(
    ("restart", "released"),
    [(10 * MIB, 10 * MIB), (45 * MIB, 40 * MIB), (0, 40 * MIB)],
)
def test_a_slot_holds_back_what_it_needs(restart: int, released: int) -> None:
    store = Store(parent=FakeTimeline(50 * MIB, 40 * MIB, slots=[slot(restart)]))
    assert store.released(PARENT) == released


def test_and_no_more_than_the_bound() -> None:
    store = Store(parent=FakeTimeline(500 * MIB, 490 * MIB, slots=[slot(10 * MIB)]))
    assert store.released(PARENT) == 400 * MIB


def test_a_damaged_state_holds_nothing_back() -> None:
    broken = slot(10 * MIB)[:-1]
    assert Store(parent=FakeTimeline(50, 40, slots=[broken, b"x"])).released(PARENT) == 40


def test_a_restored_timelines_slot_holds_its_parent_until_it_has_passed_the_branch() -> None:
    child = FakeTimeline(60 * MIB, 60 * MIB, 50 * MIB, PARENT, [slot(20 * MIB)])
    store = Store(parent=FakeTimeline(90 * MIB, 90 * MIB), child=child)
    assert store.released(PARENT) == 90 * MIB
    assert store.released(CHILD) == 20 * MIB
    assert store.released(PARENT) == 20 * MIB
    child.slots = [slot(55 * MIB)]
    assert store.released(CHILD) == 55 * MIB
    assert (DEFAULT_TENANT, PARENT) in store.noted
    assert store.released(PARENT) == 90 * MIB


def test_a_deleted_timeline_holds_nothing_any_more() -> None:
    child = FakeTimeline(60 * MIB, 60 * MIB, 50 * MIB, PARENT, [slot(20 * MIB)])
    store = Store(parent=FakeTimeline(90 * MIB, 90 * MIB), child=child)
    store.released(CHILD)
    del store.timelines[CHILD]
    assert store.released(CHILD) is None
    assert store.released(PARENT) == 90 * MIB
