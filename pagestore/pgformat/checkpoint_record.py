"""``struct CheckPoint``: 88 bytes, in a checkpoint record and in pg_control.

Offsets and meanings stand in docs/formats/pg-control.md. Source: ``catalog/pg_control.h``.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass, fields
from typing import Any, Protocol, Self

from pagestore.pgformat.versions import Version

_TIMELINE_ID = 1


def format_of(version: Version) -> str:
    """For `struct`; padding where there is no wal_level."""
    wal_level = "3xi" if version.checkpoint_names_wal_level else "7x"
    return f"QII?{wal_level}QIIIIIII4xqIII4x"


class Counters(Protocol):
    """What a checkpoint record carries; ``pagestore.v1`` ControlCounters is one."""

    @property
    def next_full_xid(self) -> int: ...
    @property
    def next_oid(self) -> int: ...
    @property
    def next_multi(self) -> int: ...
    @property
    def next_multi_offset(self) -> int: ...
    @property
    def oldest_xid(self) -> int: ...
    @property
    def oldest_xid_db(self) -> int: ...
    @property
    def oldest_multi(self) -> int: ...
    @property
    def oldest_multi_db(self) -> int: ...
    @property
    def oldest_commit_ts_xid(self) -> int: ...
    @property
    def newest_commit_ts_xid(self) -> int: ...
    @property
    def full_page_writes(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class CheckPoint:
    """The fields in their order. ``time`` is Unix seconds."""

    redo: int
    timeline: int
    prev_timeline: int
    full_page_writes: bool
    wal_level: int | None
    """None in a major that does not name it."""
    next_full_xid: int
    next_oid: int
    next_multi: int
    next_multi_offset: int
    oldest_xid: int
    oldest_xid_db: int
    oldest_multi: int
    oldest_multi_db: int
    time: int
    oldest_commit_ts_xid: int
    newest_commit_ts_xid: int
    oldest_active_xid: int

    @classmethod
    def at_shutdown(
        cls, counters: Counters, *, redo: int, time: int, version: Version, wal_level: int
    ) -> Self:
        """Of a cluster that stops cleanly: ``redo`` is the record's own start."""
        return cls(
            redo=redo,
            timeline=_TIMELINE_ID,
            prev_timeline=_TIMELINE_ID,
            full_page_writes=bool(counters.full_page_writes),
            wal_level=wal_level if version.checkpoint_names_wal_level else None,
            next_full_xid=counters.next_full_xid,
            next_oid=counters.next_oid,
            next_multi=counters.next_multi,
            next_multi_offset=counters.next_multi_offset,
            oldest_xid=counters.oldest_xid,
            oldest_xid_db=counters.oldest_xid_db,
            oldest_multi=counters.oldest_multi,
            oldest_multi_db=counters.oldest_multi_db,
            time=time,
            oldest_commit_ts_xid=counters.oldest_commit_ts_xid,
            newest_commit_ts_xid=counters.newest_commit_ts_xid,
            oldest_active_xid=0,
        )

    @classmethod
    def of_values(cls, values: list[Any], version: Version) -> tuple[Self, list[Any]]:
        """From the values that begin with its own, and what follows them."""
        if not version.checkpoint_names_wal_level:
            values = [*values[:_WAL_LEVEL], None, *values[_WAL_LEVEL:]]
        count = len(fields(cls))
        return cls(*values[:count]), values[count:]

    def values(self) -> list[Any]:
        """As they are packed."""
        values = list(astuple(self))
        if self.wal_level is None:
            del values[_WAL_LEVEL]
        return values

    def pack(self, version: Version) -> bytes:
        return struct.pack(f"<{format_of(version)}", *self.values())


_WAL_LEVEL = [field.name for field in fields(CheckPoint)].index("wal_level")
