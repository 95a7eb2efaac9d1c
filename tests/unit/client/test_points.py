"""Points of history as users write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.client.points import (
    AtCheckpoint,
    AtLsn,
    AtTime,
    Head,
    Point,
    format_time,
    lasting,
    parse_point,
    reads_as_point,
)
from pagestore.errors import InvalidInput, OutOfRange
from pagestore.ids import Lsn

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def at(moment: datetime) -> AtTime:
    return AtTime(int(moment.timestamp()) * 1_000_000 + moment.microsecond)


def utc(*parts: int) -> AtTime:
    return at(datetime(*parts, tzinfo=UTC))  # type: ignore[misc,arg-type]


def local(*parts: int) -> AtTime:
    return at(datetime(*parts).astimezone())  # type: ignore[arg-type]


CASES: list[tuple[str, Point]] = [
    ("head", Head()),
    ("now", Head()),
    ("0/16B3748", AtLsn(Lsn(0x16B3748))),
    ("1/0", AtLsn(Lsn(1 << 32))),
    ("2026-11-23T10:15:00+01:00", utc(2026, 11, 23, 9, 15)),
    ("2026-11-23 10:15:00.250Z", utc(2026, 11, 23, 10, 15, 0, 250_000)),
    ("2026-11-23 10:15 UTC", utc(2026, 11, 23, 10, 15)),
    ("2026-11-23 10:15:30 +0100", utc(2026, 11, 23, 9, 15, 30)),
    ("2026-11-23 10:15:30.123456+00", utc(2026, 11, 23, 10, 15, 30, 123_456)),
    ("2026-11-22", AtCheckpoint("2026-11-22", local(2026, 11, 22).unix_micros)),
    ("2026-02-30", AtCheckpoint("2026-02-30")),
    ("2026-11-22 9:05", local(2026, 11, 22, 9, 5)),
    ("10m ago", utc(2026, 11, 23, 11, 50)),
    ("10 min ago", utc(2026, 11, 23, 11, 50)),
    ("5 minutes ago", utc(2026, 11, 23, 11, 55)),
    ("1 hour 30 minutes ago", utc(2026, 11, 23, 10, 30)),
    ("1 day and 2 hours ago", utc(2026, 11, 22, 10)),
    ("-1h30m", utc(2026, 11, 23, 10, 30)),
    ("0.5s ago", utc(2026, 11, 23, 11, 59, 59, 500_000)),
    ("2d ago", utc(2026, 11, 21, 12)),
    ("before-migration", AtCheckpoint("before-migration")),
    ("long ago", AtCheckpoint("long ago")),
    ("5 moons ago", AtCheckpoint("5 moons ago")),
    ("yesterdays", AtCheckpoint("yesterdays")),
]


@pytest.mark.parametrize(("text", "point"), CASES)
def test_each_form_means_one_thing(text: str, point: Point) -> None:
    assert parse_point(text, NOW) == point
    assert reads_as_point(text) != isinstance(point, AtCheckpoint)


def test_days_begin_at_midnight_here() -> None:
    now = datetime.now().astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    assert parse_point("today", now) == at(midnight.astimezone())
    before = midnight - timedelta(days=1)
    assert parse_point("yesterday", now) == at(before.astimezone())
    assert parse_point("yesterday 14:30", now) == at(
        before.replace(hour=14, minute=30).astimezone()
    )


def test_a_time_without_an_offset_is_local() -> None:
    assert parse_point("2026-11-23T10:15", NOW) == local(2026, 11, 23, 10, 15)


@pytest.mark.parametrize(
    "text",
    ["2026-13-01T00:00", "2026-11-23T25:00", "99999999w ago", "2026-11-22 10:15 PST"],
)
def test_an_impossible_time_is_refused_and_the_forms_are_listed(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_point(text, NOW)
    assert caught.value.reason == "INVALID_TIME"
    assert "5 minutes ago" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_nothing_is_no_point(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_point(text, NOW)
    assert caught.value.reason == "INVALID_POINT"


@pytest.mark.parametrize("text", ["2026-11-23T12:00:01Z", "9999-01-01 00:00"])
def test_the_future_is_no_past(text: str) -> None:
    with pytest.raises(OutOfRange) as caught:
        parse_point(text, NOW)
    assert caught.value.reason == "TIME_IN_FUTURE"


@pytest.mark.parametrize("text", ["0/", "/", "1/2/3", "x/1"])
def test_what_has_a_slash_is_an_lsn_or_nothing(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_point(text)
    assert caught.value.reason == "INVALID_LSN"


@given(st.integers(0, 1_790_000_000_000_000))
def test_what_is_printed_can_be_pasted(micros: int) -> None:
    for separator in ("T", " "):
        assert parse_point(format_time(micros, separator), NOW) == AtTime(micros)


def test_words_that_last_say_the_same_later() -> None:
    lsn = 0x16B3748
    assert lasting(None, lsn) == lasting("head", lsn) == lasting("0/16B3748", lsn) == "0/16B3748"
    assert lasting("before", lsn) == "before"
    assert lasting("2026-11-23", lsn) == "2026-11-23"
    ago = lasting("5 minutes ago", lsn)
    assert "ago" not in ago
    assert isinstance(parse_point(ago), AtTime)
    when = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)
    assert parse_point(lasting(when, lsn)) == AtTime(int(when.timestamp() * 1_000_000))
