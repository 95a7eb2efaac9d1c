"""The last commit is the last by position, whatever the clocks of computes said."""

from __future__ import annotations

import struct

from pagestore import _native, keyspace
from pagestore.keyspace import ValueKind
from pagestore.reader.commits import last

ALL_LSNS = 2**64 - 1
HOUR = 3_600_000_000


def snapshot(commits: list[tuple[int, int]], *, since: int = 0) -> _native.Snapshot:
    """Of commits (LSN, Unix microseconds), from an LSN on with the key that ingest writes today."""
    layer, batch = _native.OpenLayer(), _native.Batch()
    for lsn, micros in commits:
        value = struct.pack("<Q", lsn)
        batch.put(keyspace.commit_time(micros).pack(), lsn, ValueKind.IMAGE, 0, value)
        if lsn >= since:
            batch.put(keyspace.LAST_COMMIT.pack(), lsn, ValueKind.IMAGE, 0, value)
    layer.put(batch)
    return _native.Snapshot([layer])


def test_a_clock_that_was_set_back_hides_no_commit() -> None:
    seen = snapshot([(10, 30 * HOUR), (20, 6 * HOUR), (30, 7 * HOUR)])
    assert [last(seen, lsn) for lsn in (9, 10, 19, 20, 29, 30, 99)] == [
        *(0, 10, 10, 20, 20, 30, 30)
    ]


def test_history_from_before_the_key_is_known_by_its_times() -> None:
    seen = snapshot([(10, HOUR), (20, 2 * HOUR), (30, 3 * HOUR)], since=30)
    assert [last(seen, lsn) for lsn in (9, 10, 25, 30)] == [0, 10, 20, 30]
