"""What the first start on a timeline writes."""

from __future__ import annotations

import struct

import pytest

from pagestore.ids import TimelineId
from pagestore.pgformat.wal import read_records
from pagestore.postgres.prologue import Prologue, enabled_subscriptions, write_prologue
from pagestore.v1 import page_pb2 as pb

TIMELINE, OTHER = TimelineId(b"\1" * 16), TimelineId(b"\2" * 16)
END, PREV = 0x1500_0F00, 0x1500_0E00


def header(owner: str = "", slots: tuple[str, ...] = (), branch_lsn: int = END) -> pb.BackupHeader:
    return pb.BackupHeader(
        lsn=END,
        settings=pb.ControlSettings(system_id=7),
        branch_lsn=branch_lsn,
        owner=owner.encode(),
        slots=slots,
    )


def row(name: bytes, enabled: bool) -> bytes:
    return struct.pack("<IIQ64sI??", 16400, 5, 0, name, 10, enabled, False) + b"f" * 30


def page_of(*rows: bytes) -> bytes:
    """A heap page of live rows."""
    page, pointers, end = bytearray(8192), b"", 8192
    for body in rows:
        tuple_ = struct.pack("<II", 3, 0).ljust(20, b"\0") + struct.pack("<HB", 0x0900, 24)
        tuple_ = tuple_.ljust(24, b"\0") + body
        end = (end - len(tuple_)) & ~7
        page[end : end + len(tuple_)] = tuple_
        pointers += struct.pack("<I", end | 1 << 15 | len(tuple_) << 17)
    page[24 : 24 + len(pointers)] = pointers
    struct.pack_into("<HH", page, 12, 24 + len(pointers), end)
    return bytes(page)


def write(told: pb.BackupHeader, owner: str = "app") -> Prologue:
    return write_prologue(told, TIMELINE, owner, END, PREV)


def kinds(prologue: Prologue) -> list[tuple[int, int]]:
    records = list(read_records(prologue.data, END, PREV))
    assert not records or records[-1].end_lsn == prologue.end_lsn
    assert not records or records[-1].start_lsn == prologue.last_record_lsn
    return [(record.rmgr, record.info) for record in records]


def test_a_timeline_that_is_known_gets_nothing() -> None:
    prologue = write(header(f"{TIMELINE} app", ("taken",)))
    assert prologue == Prologue(END, END, PREV)


def test_an_older_versions_timeline_only_gets_an_owner() -> None:
    told = header("", ("taken",), branch_lsn=END - 8000)
    told.subscriptions.blocks.append(0)
    told.subscriptions.pages.append(page_of(row(b"follows", True)))
    prologue = write(told)
    assert kinds(prologue) == [(21, 0)]
    assert (prologue.dropped_slots, dict(prologue.pages)) == ((), {})


@pytest.mark.parametrize(("owner", "dropped"), [("app", ()), ("other", ("one", "two"))])
def test_slots_are_dropped_where_another_database_had_them(
    owner: str, dropped: tuple[str, ...]
) -> None:
    prologue = write(header(f"{OTHER} app", ("one", "two")), owner)
    assert prologue.dropped_slots == dropped
    assert kinds(prologue) == [(21, 0)] * (len(dropped) + 1)


def test_enabled_subscriptions_are_disabled_in_place() -> None:
    told = header(f"{OTHER} app")
    before = page_of(row(b"one", True), row(b"two", False), row(b"three", True))
    told.subscriptions.rel.CopyFrom(pb.RelTag(spc_oid=1664, rel_number=6100))
    told.subscriptions.blocks.append(3)
    told.subscriptions.pages.append(before)
    prologue = write(told)
    assert kinds(prologue) == [(10, 0x70), (10, 0x70), (21, 0)]
    after = prologue.pages[3]
    records = list(read_records(prologue.data, END, PREV))
    high, low = struct.unpack_from("<II", after)
    assert high << 32 | low == records[1].end_lsn
    changed = [i for i in range(8, 8192) if before[i] != after[i]]
    assert len(changed) == 2
    assert all(before[i] == 1 and after[i] == 0 for i in changed)


def test_names_of_what_was_enabled() -> None:
    rows = [row(b"b", True), row(b"a", True), row(b"c", False), b"short"]
    assert enabled_subscriptions(rows) == ["a", "b"]
