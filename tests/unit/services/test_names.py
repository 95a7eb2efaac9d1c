"""Databases' names in lines of logs."""

from __future__ import annotations

from typing import Any

from pagestore.ids import TimelineId
from pagestore.services.names import Names

T1, T2, T3 = (TimelineId(bytes([number]) * 16) for number in (1, 2, 3))


def line(names: Names, **said: Any) -> Any:
    return names.named(None, "info", {"event": "x", **said}).get("database")


def test_a_line_that_says_a_timeline_has_its_database() -> None:
    names = Names()
    names.learn({T1: "app", T2: "acme/app"})
    assert line(names, timeline=str(T1)) == "app"
    assert line(names, timeline=T2) == "acme/app"
    assert line(names, directory=f"/wal/{'0' * 32}/{T2}") == "acme/app"
    assert line(names, error=f"timeline {T1}: gone", layers=3) == "app"
    assert line(names, timeline=str(T3)) is None
    assert line(names, path=f"/x/{T1}0") is None, "another number"
    assert line(names, timeline=str(T1), database="said") == "said"
    names.learn({T1: ""})
    assert line(names, timeline=str(T1)) is None


def test_so_many_are_kept_and_no_more() -> None:
    names = Names(most=2)
    names.learn({T1: "a"})
    names.learn({T2: "b"})
    names.learn({T1: "a again"})
    names.learn({T3: "c" * 10_000})
    kept = [line(names, timeline=str(item)) for item in (T1, T2, T3)]
    assert kept == ["a again", None, "c" * 200]
