"""Commits of a timeline: the last one at an LSN, and the one of a time.

Ingest writes the end of each commit under its time, and under one key for the last of all; the
values are LSNs, 8 bytes, little-endian (docs/formats/keyspace.md).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pagestore import keyspace
from pagestore._native import Snapshot
from pagestore.keyspace import Key, Kind
from pagestore.layers.native import store_errors
from pagestore.timeline import Timeline

_U64 = struct.Struct("<Q")
_LAST = struct.Struct("<QQ")


class Found(NamedTuple):
    """What a time means in a timeline's history."""

    lsn: int
    """The state of that time: the end of its last commit, or all that is ingested."""
    commit_lsn: int = 0
    commit_unix_micros: int = 0
    before_history: bool = False
    after_head: bool = False


class Last(NamedTuple):
    """The last commit at or below an LSN: its end, 0 for none; and the first transaction that had
    not begun then, or a later one, 0 where history does not say."""

    lsn: int
    next_full_xid: int


def last(snapshot: Snapshot, lsn: int) -> int:
    """The end of the last commit at or below an LSN; 0 when there is none."""
    return last_known(snapshot, lsn).lsn


def last_known(snapshot: Snapshot, lsn: int) -> Last:
    """
    Raises:
        Unavailable: IO_ERROR, OBJECT_STORE_UNAVAILABLE. DataLoss: LAYER_CORRUPT.
    """
    with store_errors():
        value = snapshot.get(keyspace.LAST_COMMIT.pack(), lsn)
        if value is None:
            # History of before the key was written has the times alone: the latest time is the
            # last commit, unless a clock was set back.
            found = snapshot.last_before(*keyspace.kind_range(Kind.COMMIT_TIME), lsn)
            value = found[1] if found else bytes(_U64.size)
    commit_lsn, next_full_xid = _LAST.unpack(value.ljust(_LAST.size, b"\0"))
    return Last(commit_lsn, next_full_xid)


def by_time(timeline: Timeline, unix_micros: int) -> Found:
    """The last commit at or before a time, in the timeline's whole history. Raises as `last_known`,
    and as `Timeline.snapshot`."""
    head = timeline.last_record_lsn
    snapshot = timeline.snapshot()
    low, high = keyspace.kind_range(Kind.COMMIT_TIME)
    beyond = keyspace.commit_time(unix_micros + 1).pack()
    with store_errors():
        newer = snapshot.last_before(beyond, high, head)
        found = snapshot.last_before(low, beyond, head)
    if found is None:
        return Found(timeline.earliest_lsn, before_history=True, after_head=newer is None)
    key, value = found
    commit_lsn = int(_U64.unpack(value)[0])
    return Found(
        lsn=head if newer is None else commit_lsn,
        commit_lsn=commit_lsn,
        commit_unix_micros=keyspace.commit_time_micros(Key.unpack(key)),
        after_head=newer is None,
    )
