"""The files that decoding needs, out of what the page store keeps."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

from pagestore.keyspace import Key, Kind
from pagestore.pgformat.slot_state import SlotState
from pagestore.timeline.slots import decoding_files, oldest_needed, replication_slots

OLDEST = 0x1_0000_2000


def stored(name: str, restart_lsn: int, snapshot: bytes = b"", database: int = 5) -> bytes:
    state = SlotState(name, database, 0, 0, 700, restart_lsn, 0, 0, 0, False, "plugin").pack()
    return struct.pack("<64sII", name.encode(), len(state), len(snapshot)) + state + snapshot


def rewrite(start_lsn: int, offset: int, fill: bytes) -> bytes:
    return struct.pack("<IIII4xQI4xQ", 701, 700, 5, 1259, offset, 1, start_lsn) + fill * 36


def snapshot_of(slots: list[bytes], rewrites: dict[int, bytes]) -> Any:
    def scan(low: bytes, high: bytes, lsn: int) -> list[tuple[bytes, bytes]]:
        if Key.unpack(low).kind == Kind.SLOT:
            return [(b"", value) for value in slots]
        found = {Key(Kind.REWRITE, at >> 32, at & 0xFFFFFFFF).pack(): at for at in rewrites}
        return [(key, rewrites[found[key]]) for key in sorted(found) if low <= key < high]

    return SimpleNamespace(scan=scan)


def test_slots_come_by_name_and_damaged_ones_not_at_all() -> None:
    slots = [stored("b", OLDEST), stored("a", 0), stored("c", OLDEST + 8)[:-1], b"x"]
    renamed = b"z" + stored("d", OLDEST)[1:]
    found = replication_slots(snapshot_of([*slots, renamed], {}), OLDEST)
    assert [slot.state.name for slot in found] == ["a", "b"]
    assert oldest_needed(found) == OLDEST
    assert oldest_needed(found[:1]) is None


def test_files_are_the_states_one_snapshot_an_lsn_and_later_mappings() -> None:
    slots = [stored("a", OLDEST, b"running"), stored("b", OLDEST, b"running"), stored("c", 0)]
    rewrites = {
        OLDEST - 8: rewrite(OLDEST - 800, 0, b"0"),
        OLDEST + 80: rewrite(OLDEST - 800, 36, b"1"),
        OLDEST + 88: rewrite(OLDEST + 8, 0, b"2"),
        OLDEST + 96: rewrite(OLDEST + 8, 36, b"3"),
    }
    files = dict(decoding_files(snapshot_of(slots, rewrites), OLDEST + 800))
    assert sorted(files) == [
        "pg_logical/mappings/map-5-4eb-1_2008-2bc-2bd",
        "pg_logical/snapshots/1-2000.snap",
        "pg_replslot/a/state",
        "pg_replslot/b/state",
        "pg_replslot/c/state",
    ]
    assert files["pg_logical/mappings/map-5-4eb-1_2008-2bc-2bd"] == b"2" * 36 + b"3" * 36
    assert files["pg_logical/snapshots/1-2000.snap"] == b"running"


def test_physical_slots_need_no_mappings() -> None:
    slots = [stored("bytes", OLDEST, database=0)]
    rewrites = {OLDEST + 88: rewrite(OLDEST + 8, 0, b"2")}
    files = dict(decoding_files(snapshot_of(slots, rewrites), OLDEST + 800))
    assert list(files) == ["pg_replslot/bytes/state"]
