"""A page server with one bug planted, for tests that ask whether truth would find it.

Run as a program with a bug's name and the settings. The bugs are made here, around what ingest
puts and what a branch reads; the page server's own code knows nothing of them.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable

from pagestore._native import Batch, Snapshot
from pagestore.keyspace import Fork, Key, Kind, ValueKind
from pagestore.services.page import PageSettings, serve
from pagestore.services.server import run
from pagestore.timeline import Timeline

Value = tuple[bytes, int, int, int, bytes]
Change = Callable[[Value], Value | None]
HEAP_INSERT = (10, 0)
"""The resource manager's number, and the operation."""
INFO_AT, RMID_AT = 16, 17
OPERATION = 0x70
TUPLE_END = -4
"""Behind the tuple, an insertion's record has three bytes of its own."""


class WrongByte:
    """Redo of one insertion makes the tuple's last byte another."""

    def __init__(self) -> None:
        self.is_done = False

    def __call__(self, value: Value) -> Value:
        key, lsn, kind, flags, payload = value
        block = Key.unpack(key)
        in_heap = block.kind == Kind.REL_BLOCK and block.fork == Fork.MAIN
        if self.is_done or kind != ValueKind.RECORD or not in_heap:
            return value
        if (payload[RMID_AT], payload[INFO_AT] & OPERATION) != HEAP_INSERT:
            return value
        self.is_done = True
        changed = bytearray(payload)
        changed[TUPLE_END] ^= 1
        return key, lsn, kind, flags, bytes(changed)


def missed_map_clear(value: Value) -> Value | None:
    """A change of a heap page leaves its bits in the visibility map."""
    key = Key.unpack(value[0])
    is_clear = key.kind == Kind.REL_BLOCK and key.fork == Fork.VM and value[2] == ValueKind.PATCH
    return None if is_clear else value


class LostTruncation:
    """A relation's length never falls."""

    def __init__(self) -> None:
        self.lengths: dict[bytes, int] = {}

    def __call__(self, value: Value) -> Value | None:
        key, _, kind, _, payload = value
        if Key.unpack(key).kind != Kind.REL_SIZE or kind != ValueKind.IMAGE:
            return value
        (blocks,) = struct.unpack("<I", payload)
        if 0 < blocks < self.lengths.get(key, 0):
            return None
        self.lengths[key] = blocks
        return value


def plant_in_ingest(change: Change) -> None:
    append = Timeline.append

    def changed(self: Timeline, batch: Batch, last: int, prev: int) -> None:
        kept = Batch()
        for index in range(len(batch)):
            value = change(batch[index])
            if value is not None:
                kept.put(*value)
        append(self, kept, last, prev)

    Timeline.append = changed  # type: ignore[method-assign]


def plant_in_branches() -> None:
    """A branch reads its parent up to one byte before the branch LSN."""

    def short(self: Timeline, own: Snapshot) -> Snapshot:
        if self._ancestor is None:
            return own
        assert self._ancestor._layers is not None
        return own.over(self._ancestor._layers, self.branch_lsn - 1)

    Timeline._over_parent = short  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "none": lambda: plant_in_ingest(lambda value: value),
    "wrong_byte": lambda: plant_in_ingest(WrongByte()),
    "missed_map_clear": lambda: plant_in_ingest(missed_map_clear),
    "lost_truncation": lambda: plant_in_ingest(LostTruncation()),
    "branch_off_by_one": plant_in_branches,
}

if __name__ == "__main__":
    BUGS[sys.argv[1]]()
    run(serve(PageSettings.model_validate(json.loads(sys.argv[2]))))
