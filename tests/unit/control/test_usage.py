"""What databases have cost is counted once, however often and late it is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagestore.control.compute import Cost
from pagestore.control.metering import Metering
from pagestore.control.state import ControlState, now_micros
from pagestore.control.usage import HOUR, KEPT_HOURS, Told, Usage, Used, Whose
from pagestore.errors import InvalidInput
from pagestore.ids import TenantId

ACME, OTHER = TenantId(b"a" * 16), TenantId(b"o" * 16)
APP = Whose(ACME, 7, "app")
BEGIN = 400_000 * HOUR
MINUTE = HOUR // 60


def used(state: ControlState, whose: Whose = APP, since: int = BEGIN) -> Used | None:
    found = Usage(state).between(since, BEGIN + 1_000 * HOUR, whose.tenant)
    return next((item for item in found if item.whose.created == whose.created), None)


def test_what_is_told_twice_or_late_counts_once(tmp_path: Path) -> None:
    early, late = Told(BEGIN, BEGIN + MINUTE, 5), Told(BEGIN, BEGIN + 3 * MINUTE, 9)
    with ControlState(tmp_path) as state:
        usage = Usage(state)
        usage.note([(APP, "c1", early), (APP, "c1", late), (APP, "c1", late), (APP, "c1", early)])
    with ControlState(tmp_path) as state:
        Usage(state).note([(APP, "c1", late)])
        assert used(state) == Used(APP, 3 * MINUTE, 9, 0, 1)


def test_time_awake_is_in_the_hours_in_which_it_was(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state:
        start = BEGIN + 50 * MINUTE
        Usage(state).note([(APP, "c1", Told(start, start + 2 * HOUR, 120))])
        hours = [(hour, item.awake, item.cpu) for _, _, hour, item in state.view().usage(ACME)]
        first = BEGIN // HOUR
        assert [item[:2] for item in hours] == [
            (first, 10 * MINUTE),
            (first + 1, HOUR),
            (first + 2, 50 * MINUTE),
        ]
        assert [item[2] for item in hours] == [10, 60, 50]
        later = used(state, since=BEGIN + HOUR)
        assert later is not None
        assert (later.awake_micros, later.wakes) == (HOUR + 50 * MINUTE, 0)


def test_each_start_is_a_wake_and_queries_are_none(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state:
        usage = Usage(state)
        usage.note([(APP, f"c{i}", Told(BEGIN, BEGIN + i, 0)) for i in range(3)])
        usage.note([(APP, "p/7", Told(BEGIN, BEGIN, 0, 10, awake=False))])
        usage.note([(APP, "p/7", Told(BEGIN + 9, BEGIN + 9, 0, 15, awake=False))])
        usage.note([(APP, "q/7", Told(BEGIN + 9, BEGIN + 9, 0, 4, awake=False))])
        assert used(state) == Used(APP, 3, 0, 19, 3)


def test_a_database_keeps_its_account_under_another_name(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state:
        usage = Usage(state)
        usage.note([(APP, "c1", Told(BEGIN, BEGIN + 5))])
        usage.note([(Whose(ACME, 7, "renamed"), "c1", Told(BEGIN, BEGIN + 9))])
        usage.note([(Whose(ACME, 7), "p", Told(BEGIN, BEGIN, 0, 2, awake=False))])
        usage.note([(Whose(ACME, 8, "app"), "c2", Told(BEGIN, BEGIN + 1))])
        usage.note([(Whose(OTHER, 7, "app"), "c3", Told(BEGIN, BEGIN + 1))])
        assert used(state) == Used(Whose(ACME, 7, "renamed"), 9, 0, 2, 1)
        assert len(usage.between(BEGIN, BEGIN)) == 3


def test_old_hours_and_sources_are_forgotten(tmp_path: Path) -> None:
    now = now_micros()
    with ControlState(tmp_path) as state:
        usage = Usage(state)
        long_ago = now - (KEPT_HOURS + 2) * HOUR
        usage.note([(APP, "old", Told(long_ago, long_ago + 1)), (APP, "new", Told(now - 5, now))])
        usage.forget_old()
        assert [item.awake for _, _, _, item in state.view().usage(ACME)] == [5]
        view = state.view()
        assert view.usage_source("old") is None
        assert view.usage_source("new") is not None


@dataclass
class OfCompute:
    name: str
    cost: Cost


def test_who_opens_the_past_uses_its_database(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state:
        metering = Metering(state)
        present, past = (
            OfCompute("c1", Cost(BEGIN, BEGIN + 5, 1)),
            OfCompute("c2", Cost(BEGIN, BEGIN + 7, 1)),
        )
        silent = OfCompute("c3", Cost())
        metering.note(
            [
                ((ACME, "app"), 7, present),  # type: ignore[list-item]
                ((ACME, "7/0000@0/1"), 9999, past),  # type: ignore[list-item]
                ((ACME, "app"), 7, silent),  # type: ignore[list-item]
            ]
        )
        assert used(state) == Used(APP, 12, 2, 0, 2)


def test_places_that_are_none_are_refused(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state:
        metering = Metering(state)
        metering.note_queries("life", {f"{ACME}/7": 3})
        for place in ("", "7", f"{ACME}/x", "zz/7"):
            with pytest.raises(InvalidInput):
                metering.note_queries("life", {place: 1})
        found = metering.usage.between(now_micros() - HOUR, now_micros(), ACME)
        assert [item.queries for item in found] == [3]


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 90), st.integers(0, 1_000)), max_size=20
    ),
    heard=st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_sums_are_what_each_source_came_to(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, int, int]],
    heard: list[bool],
) -> None:
    """Whatever was told of in between, and what of it was lost."""
    until, cpu = [BEGIN] * 3, [0] * 3
    with ControlState(tmp_path_factory.mktemp("state")) as state:
        usage = Usage(state)
        for (source, minutes, more), is_heard in zip(steps, heard, strict=False):
            until[source] += minutes * MINUTE
            cpu[source] += more
            if is_heard:
                usage.note([(APP, f"c{source}", Told(BEGIN, until[source], cpu[source]))])
        ends = [Told(BEGIN, until[i] + 1, cpu[i]) for i in range(3)]
        usage.note([(APP, f"c{i}", end) for i, end in enumerate(ends)])
        assert used(state) == Used(APP, sum(until) + 3 - 3 * BEGIN, sum(cpu), 0, 3)
