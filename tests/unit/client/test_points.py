"""Points of history as users write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pagestore.client.points import AtCheckpoint, AtLsn, AtTime, Head, Point, parse_point
from pagestore.errors import InvalidInput
from pagestore.ids import Lsn

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def at(moment: datetime) -> AtTime:
    return AtTime(int(moment.timestamp() * 1_000_000))


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("head", Head()),
        ("0/16B3748", AtLsn(Lsn(0x16B3748))),
        ("1/0", AtLsn(Lsn(1 << 32))),
        ("2026-11-23T10:15:00+01:00", at(datetime(2026, 11, 23, 9, 15, tzinfo=UTC))),
        ("2026-11-23 10:15:00.250Z", at(datetime(2026, 11, 23, 10, 15, 0, 250_000, tzinfo=UTC))),
        ("10m ago", at(datetime(2026, 11, 23, 11, 50, tzinfo=UTC))),
        ("-1h30m", at(datetime(2026, 11, 23, 10, 30, tzinfo=UTC))),
        ("0.5s ago", at(datetime(2026, 11, 23, 11, 59, 59, 500_000, tzinfo=UTC))),
        ("2d ago", at(datetime(2026, 11, 21, 12, 0, tzinfo=UTC))),
        ("before-migration", AtCheckpoint("before-migration")),
        ("2026-11-23", AtCheckpoint("2026-11-23")),
    ],
)
def test_each_form_means_one_thing(text: str, point: Point) -> None:
    assert parse_point(text, NOW) == point


def test_a_time_without_an_offset_is_local() -> None:
    local = datetime(2026, 11, 23, 10, 15).astimezone()
    assert parse_point("2026-11-23T10:15") == at(local)


@pytest.mark.parametrize("text", ["2026-13-01T00:00", "2026-11-23T25:00", "99999999w ago"])
def test_an_impossible_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_point(text, NOW)
    assert caught.value.reason == "INVALID_TIME"


@pytest.mark.parametrize("text", ["0/", "/", "1/2/3", "x/1"])
def test_what_has_a_slash_is_an_lsn_or_nothing(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_point(text)
    assert caught.value.reason == "INVALID_LSN"
