"""What the control plane says, as values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pagestore.errors import InvalidInput
from pagestore.sdk.values import Facts, Move, entry_of, point_of, seconds_of, sqlalchemy_url
from pagestore.v1 import control_pb2 as pb


def test_a_databases_facts_are_plain_and_tell_no_password() -> None:
    said = pb.Database(
        name="app",
        url="postgresql://postgres:secret@127.0.0.1:5432/app",
        lsn=0x16B3748,
        compute=pb.COMPUTE_STATE_STOPPED,
        created_unix_micros=1_800_000_000_000_000,
        expires_unix_micros=1_800_000_060_000_000,
        postgres_major=15,
    )
    facts = Facts.of(said)
    assert (facts.lsn, facts.compute, facts.parent) == ("0/16B3748", "stopped", None)
    assert facts.created_at == datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
    assert facts.expires_at == facts.created_at + timedelta(minutes=1)
    assert "secret" not in repr(facts)
    assert Facts.of(pb.Database(name="app")).expires_at is None


@pytest.mark.parametrize(
    ("at", "point"),
    [
        (None, None),
        ("head", None),
        ("before", pb.Point(checkpoint="before")),
        ("0/16B3748", pb.Point(lsn=0x16B3748)),
        (datetime(2026, 1, 1, 12, tzinfo=UTC), pb.Point(unix_micros=1_767_268_800_000_000)),
    ],
)
def test_a_point_is_what_at_takes(at: str | datetime | None, point: pb.Point | None) -> None:
    assert point_of(at) == point


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(None, None), ("1h", 3600.0), (90, 90.0), (1.5, 1.5), (timedelta(days=1), 86400.0)],
)
def test_a_time_to_live_is_words_seconds_or_a_timedelta(ttl: object, seconds: object) -> None:
    assert seconds_of(ttl) == seconds  # type: ignore[arg-type]


def test_words_that_are_no_time_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'soon' is no time"):
        seconds_of("soon")


def test_a_move_that_changed_nothing_kept_nothing() -> None:
    assert Move.of(pb.RestoreResponse(summary="nothing to undo")) == Move(
        False, None, "nothing to undo"
    )
    kept = Move.of(pb.RestoreResponse(changed=True, kept=pb.Checkpoint(name="before-undo-1"))).kept
    assert kept is not None
    assert kept.name == "before-undo-1"


def test_a_log_has_checkpoints_and_events() -> None:
    event = pb.LogEntry(event=pb.Event(verb="create", lsn=8))
    checkpoint = pb.LogEntry(checkpoint=pb.Checkpoint(name="x"))
    assert [type(entry_of(item)).__name__ for item in (event, checkpoint)] == [
        "Event",
        "Checkpoint",
    ]


def test_sqlalchemy_has_its_driver_in_the_url() -> None:
    url = "postgresql://a:b%20c@h:1/app"
    assert sqlalchemy_url(url, "asyncpg") == "postgresql+asyncpg://a:b%20c@h:1/app"
