"""WalIngestor on records made by hand: what each leaves in the keyspace."""

from __future__ import annotations

import struct

import pytest

from pagestore import _native
from pagestore import keyspace as ks
from pagestore.keyspace import Fork, Key, Slru, ValueKind
from pagestore.pgformat import wal
from pagestore.v1.page_pb2 import ControlCounters

START = 0x3_0000_2000
REL = (1663, 5, 16384)
XLOG, XACT, SMGR, CLOG, DBASE, MULTIXACT, STANDBY, HEAP, COMMIT_TS = 0, 1, 2, 3, 4, 6, 8, 10, 18
IMAGE, RECORD, PATCH, ZERO, TOMBSTONE = ValueKind
Value = tuple[Key, ValueKind, bytes]
VM_BLOCKS = (ks.PAGE_SIZE - 24) * 4


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def body(main: bytes, *blocks: tuple[int, bytes]) -> bytes:
    """Block references to REL's main fork: (block number, data); then the main data."""
    head = payload = b""
    for number, (block, data) in enumerate(blocks):
        flags = (0x20 if data else 0) | (0x80 if number else 0)
        head += struct.pack("<BBH", number, flags, len(data))
        head += (u32(*REL) if number == 0 else b"") + u32(block)
        payload += data
    return head + struct.pack("<BI", 254, len(main)) + payload + main


def entry_of(item: tuple[bytes, int, int, int, bytes]) -> Value:
    return Key.unpack(item[0]), ValueKind(item[2]), item[4]


class Rig:
    """An ingestor, its source, and a log that grows by records."""

    def __init__(self, start: int = START) -> None:
        self.meta = _native.MetaTable()
        self.ingestor = _native.WalIngestor(start, 0)
        self.position = start
        self.prev = start - 64
        self.log = b""
        self.settings(track_commit_timestamp=0)

    def settings(self, track_commit_timestamp: int) -> None:
        value = struct.pack("<Q8I", 1, 1, 0, 100, 8, 10, 0, 64, track_commit_timestamp) + bytes(48)
        self.meta.put(ks.SETTINGS.pack(), value)

    def counters(self, **fields: int) -> None:
        names = ControlCounters.DESCRIPTOR.fields_by_name
        value = struct.pack("<Q9I", *(fields.get(name, 0) for name in list(names)[:10])) + bytes(20)
        self.meta.put(ks.COUNTERS.pack(), value)

    def size(self, fork: int, blocks: int) -> None:
        self.meta.put(ks.rel_size(*REL, fork).pack(), u32(blocks))

    def add(self, rmgr: int, info: int, content: bytes, xid: int = 0) -> int:
        """Appends a record to the log; its end."""
        record = wal.record_bytes(rmgr, info, xid, self.prev, content)
        piece, self.prev, self.position = wal.lay_out(self.position, record, system_id=1)
        self.log += piece
        return self.position

    def feed(self) -> list[Value]:
        """Feeds what was added; the values in order."""
        batch = _native.Batch()
        try:
            step = self.ingestor.feed(self.log, self.meta, batch)
            self.barrier = step.barrier
            self.log = self.log[step.consumed :]
        finally:
            self.meta.apply(batch)
            self.values = [entry_of(batch[i]) for i in range(len(batch))]
        return self.values

    def run(self, rmgr: int, info: int, content: bytes, xid: int = 0) -> list[Value]:
        self.add(rmgr, info, content, xid)
        return self.feed()


def told(values: list[Value]) -> list[tuple[Key, ValueKind]]:
    return [(key, kind) for key, kind, _ in values if key.kind != ks.Kind.CONTROL]


def counter_values(values: list[Value]) -> list[int]:
    return [struct.unpack_from("<Q", v)[0] for k, _, v in values if k == ks.COUNTERS]


def ops(payload: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<HHBB", payload))


def test_growth_fills_what_it_skips() -> None:
    rig = Rig()
    rig.size(Fork.MAIN, 2)
    values = rig.run(HEAP, 0x10, body(bytes(8), (4, b"x")))
    assert told(values) == [
        (ks.rel_size(*REL, Fork.MAIN), IMAGE),
        (ks.rel_block(*REL, Fork.MAIN, 2), ZERO),
        (ks.rel_block(*REL, Fork.MAIN, 3), ZERO),
        (ks.rel_block(*REL, Fork.MAIN, 4), RECORD),
    ]
    assert values[0][2] == u32(5)
    assert values[3][2][24:] == body(bytes(8), (4, b"x"))
    assert told(rig.run(HEAP, 0x10, body(bytes(8), (4, b"x")))) == [
        (ks.rel_block(*REL, Fork.MAIN, 4), RECORD)
    ]


def test_a_record_is_one_payload_for_all_its_blocks() -> None:
    rig = Rig()
    rig.size(Fork.MAIN, 9)
    rig.add(HEAP, 0x20, body(bytes(14), (3, b"new"), (5, b"old")))
    batch = _native.Batch()
    rig.ingestor.feed(rig.log, rig.meta, batch)
    assert [Key.unpack(batch[i][0]).block for i in range(2)] == [3, 5]
    assert batch.nbytes < 2 * len(batch[0][4]) + 200


@pytest.mark.parametrize(
    ("info", "main", "blocks", "cleared", "bits"),
    [
        (0x00, b"\1\0\1", [8], [8], 3),
        (0x00, b"\1\0\2", [8], [], 3),
        (0x10, bytes(7) + b"\1", [8], [8], 3),
        (0x20, bytes(7) + b"\3" + bytes(6), [9, 6], [6, 9], 3),
        (0x20, bytes(7) + b"\2" + bytes(6), [9, 6], [9], 3),
        (0x40, bytes(7) + b"\1" + bytes(6), [9], [9], 3),
        (0x60, bytes(7) + b"\1", [8], [8], 2),
    ],
)
def test_heap_flags_clear_the_visibility_map(
    info: int, main: bytes, blocks: list[int], cleared: list[int], bits: int
) -> None:
    rig = Rig()
    rig.size(Fork.MAIN, VM_BLOCKS + 10)
    rig.size(Fork.VM, 2)
    refs = [(VM_BLOCKS + b, b"d") for b in blocks]
    values = rig.run(HEAP, info, body(main, *refs))
    patches = [(k, ops(v)) for k, kind, v in values if kind == PATCH]
    assert patches == [
        (ks.rel_block(*REL, Fork.VM, 1), [(24 + b // 4, 1, bits << b % 4 * 2, 0)]) for b in cleared
    ]
    short = Rig()
    short.size(Fork.MAIN, VM_BLOCKS + 10)
    short.size(Fork.VM, 1)
    assert PATCH not in [kind for _, kind in told(short.run(HEAP, info, body(main, *refs)))]


def test_truncation_cuts_every_fork_and_its_tail() -> None:
    rig = Rig()
    rig.size(Fork.MAIN, 100)
    rig.size(Fork.VM, 1)
    rig.size(Fork.FSM, 3)
    values = rig.run(SMGR, 0x20, body(u32(10, *REL, 7)))
    sizes = {k.fork: v for k, kind, v in values if k.kind == ks.Kind.REL_SIZE}
    assert sizes == {Fork.MAIN: u32(10)}
    patches = {k: ops(v) for k, kind, v in values if kind == PATCH}
    assert patches == {
        ks.rel_block(*REL, Fork.VM, 0): [(26, 1, 0xF0, 0), (27, 8192 - 27, 0xFF, 0)],
        ks.rel_block(*REL, Fork.FSM, 2): [(24 + 4 + 4095 + 10, 8192 - 4133, 0xFF, 0)],
    }
    values = rig.run(SMGR, 0x20, body(u32(0, *REL, 7)))
    sizes = {k.fork: v for k, kind, v in values if k.kind == ks.Kind.REL_SIZE}
    assert sizes == {Fork.MAIN: u32(0), Fork.VM: u32(0), Fork.FSM: u32(2)}


def test_a_block_beyond_a_truncation_starts_anew() -> None:
    rig = Rig()
    rig.size(Fork.MAIN, 5)
    rig.add(SMGR, 0x20, body(u32(2, *REL, 1)))
    rig.add(HEAP, 0x10, body(bytes(8), (3, b"x")))
    batch = _native.Batch()
    rig.ingestor.feed(rig.log, rig.meta, batch)
    last = batch[len(batch) - 1]
    assert (Key.unpack(last[0]).block, last[2], last[3]) == (3, RECORD, ks.WILL_INIT)


def commit(xid: int, *, parts: int = 0, content: bytes = b"", info: int = 0x00) -> bytes:
    return body(struct.pack("<q", 0) + (u32(parts) if info & 0x80 else b"") + content)


def test_a_commit_with_all_its_parts() -> None:
    rig = Rig()
    rig.settings(track_commit_timestamp=1)
    rig.size(Fork.MAIN, 3)
    rig.size(Fork.VM, 1)
    subxids = u32(3, 32767, 32768, 32770)
    parts = u32(5, 1663) + subxids + u32(1, *REL) + u32(1, 2, 3, 4) + u32(1) + bytes(16)
    values = rig.run(XACT, 0x80, commit(1, parts=0x10F, content=parts, info=0x80), xid=32766)
    assert told(values)[:4] == [
        (ks.slru_size(Slru.XACT, 0), IMAGE),
        (ks.slru_page(Slru.XACT, 0), ZERO),
        (ks.slru_page(Slru.XACT, 0), PATCH),
        (ks.slru_size(Slru.XACT, 0), IMAGE),
    ]
    clog = [(k.block, ops(v)) for k, kind, v in values if k.kind == 0x10 and kind == PATCH]
    assert clog[:2] == [(0, [(8191, 1, 0xF0, 0x50)]), (1, [(0, 1, 0x33, 0x11)])]
    stamps = [k.block for k, _, v in values if k.kind == 0x10 and k.spc == Slru.COMMIT_TS and v]
    assert stamps == [40]  # one patch for the four of them
    (time,) = [(k, v) for k, _, v in values if k.kind == ks.Kind.COMMIT_TIME]
    assert ks.commit_time_micros(time[0]) == 946684800 * 10**6
    assert time[1] == struct.pack("<Q", rig.position)
    last = struct.pack("<QQ", rig.position, 32771)
    assert [v for k, _, v in values if k == ks.LAST_COMMIT] == [last]
    assert told(values)[-2:] == [
        (ks.rel_size(*REL, Fork.MAIN), TOMBSTONE),
        (ks.rel_size(*REL, Fork.VM), TOMBSTONE),
    ]
    assert counter_values(values) == [33 * 1024]


def test_aborts_drop_too_and_have_no_time() -> None:
    rig = Rig()
    rig.size(Fork.INIT, 0)
    values = rig.run(XACT, 0xA0, commit(1, parts=4, content=u32(1, *REL), info=0x80), xid=9)
    assert (ks.rel_size(*REL, Fork.INIT), TOMBSTONE) in told(values)
    assert [ops(v) for _, kind, v in values if kind == PATCH] == [[(2, 1, 0x0C, 0x08)]]
    commits = (ks.Kind.COMMIT_TIME, ks.Kind.LAST_COMMIT)
    assert not [k for k, _ in told(values) if k.kind in commits]


def test_next_xid_is_told_in_steps_and_exactly_at_shutdown() -> None:
    rig = Rig()
    rig.counters(next_full_xid=7 << 32 | 5000)
    assert counter_values(rig.run(HEAP, 0x50, body(b"\1\0"), xid=4999)) == []
    assert counter_values(rig.run(HEAP, 0x50, body(b"\1\0"), xid=5000)) == [7 << 32 | 5120]
    assert counter_values(rig.run(HEAP, 0x50, body(b"\1\0"), xid=5100)) == []
    checkpoint = bytearray(88)
    struct.pack_into("<QI", checkpoint, 24, 7 << 32 | 5101, 24576)
    assert counter_values(rig.run(XLOG, 0x00, body(bytes(checkpoint)))) == [7 << 32 | 5101]
    assert counter_values(rig.run(HEAP, 0x50, body(b"\1\0"), xid=5101)) == [7 << 32 | 5120]
    wrapped = Rig()
    wrapped.counters(next_full_xid=7 << 32 | 0xFFFFFFF0)
    values = wrapped.run(HEAP, 0x50, body(b"\1\0"), xid=0xFFFFFFFF)
    assert counter_values(values) == [8 << 32 | 1024]
    assert counter_values(wrapped.run(STANDBY, 0x10, body(u32(0, 0, 0, 1100, 3, 0)))) == [
        8 << 32 | 2048
    ]


def test_a_multixact_writes_offsets_and_members() -> None:
    rig = Rig()
    rig.counters(next_multi=2047, next_multi_offset=1634, next_full_xid=1000)
    members = u32(700, 1, 701, 5, 702, 0)
    values = rig.run(MULTIXACT, 0x20, body(u32(2047, 1634, 3) + members), xid=702)
    pages: dict[Key, bytearray] = {}
    for key, kind, payload in values:
        if key.kind == ks.Kind.SLRU_PAGE:
            page = pages.setdefault(key, bytearray(ks.PAGE_SIZE))
            for offset, length, mask, value in ops(payload) if kind == PATCH else []:
                assert mask == 0xFF
                page[offset : offset + length] = bytes([value]) * length
    offsets, members_of = Slru.MULTIXACT_OFFSETS, Slru.MULTIXACT_MEMBERS
    assert pages[ks.slru_page(offsets, 0)][8188:] == u32(1634)
    assert pages[ks.slru_page(offsets, 1)][:4] == u32(1637)
    last, first = pages[ks.slru_page(members_of, 0)], pages[ks.slru_page(members_of, 1)]
    group = 408 * 20  # the last group of a page: members 1632 to 1635
    assert last[group : group + 4] == b"\0\0\1\5"
    assert last[group + 12 : group + 20] == u32(700, 701)
    assert first[:8] == bytes(4) + u32(702)
    counters = [struct.unpack_from("<Q3I", v) for k, _, v in values if k == ks.COUNTERS]
    assert counters == [(1000, 0, 2048, 1637)]
    # The page that the id before its first made is not wiped by a late request for it.
    assert rig.run(MULTIXACT, 0x00, body(u32(1))) == []
    assert (ks.slru_page(members_of, 1), ZERO) in told(rig.run(MULTIXACT, 0x10, body(u32(1))))


def test_slru_truncations_drop_whole_segments() -> None:
    rig = Rig()
    rig.counters(next_full_xid=5_000_000, oldest_xid=700, oldest_multi=1)
    for slru in Slru:
        for segment in range(5):
            rig.meta.put(ks.slru_size(slru, segment).pack(), u32(32))
    cases = {
        (CLOG, 0x10, u32(2 * 32 + 31, 95 * 32768 + 5, 16384)): [(1, 0), (1, 1)],
        (COMMIT_TS, 0x10, u32(3 * 32, 96 * 819)): [(4, 0), (4, 1), (4, 2)],
        (MULTIXACT, 0x30, u32(5, 1, 2048 * 32 * 2 + 1, 0, 1636 * 32 * 3)): [
            *((3, 0), (3, 1), (3, 2)),
            *((2, 0), (2, 1)),
        ],
    }
    for (rmgr, info, content), dropped in cases.items():
        values = rig.run(rmgr, info, body(content))
        assert [(k.spc, k.block) for k, kind, _ in values if kind == TOMBSTONE] == dropped
    counters = rig.meta.items(*ks.kind_range(ks.Kind.CONTROL))[0][1]
    assert struct.unpack_from("<6I", counters, 20) == (95 * 32768 + 5, 16384, 131073, 5, 0, 0)


def test_commit_timestamps_switched_off_leave_nothing() -> None:
    rig = Rig()
    rig.settings(track_commit_timestamp=1)
    rig.counters(oldest_commit_ts_xid=3, newest_commit_ts_xid=900)
    rig.meta.put(ks.slru_size(Slru.COMMIT_TS, 0).pack(), u32(2))
    change = struct.pack("<6i??2x", 200, 9, 11, 12, 65, 1, True, False)
    values = rig.run(XLOG, 0x60, body(change))
    assert (ks.slru_size(Slru.COMMIT_TS, 0), TOMBSTONE) in told(values)
    settings = [v for k, _, v in values if k == ks.SETTINGS]
    assert struct.unpack_from("<Q8I", settings[0]) == (1, 1, 1, 200, 9, 11, 12, 65, 0)


def test_dropping_a_database_knows_what_the_same_feed_made() -> None:
    rig = Rig()
    rig.size(Fork.MAIN, 3)
    rig.meta.put(ks.rel_size(1663, 5, 99, 0).pack(), u32(1))
    rig.meta.put(ks.rel_size(1663, 6, 99, 0).pack(), u32(1))
    rig.add(SMGR, 0x10, body(u32(1663, 5, 77, 0)))
    rig.add(XACT, 0x80, commit(1, parts=4, content=u32(1, 1663, 5, 99), info=0x80), xid=9)
    rig.add(DBASE, 0x20, body(u32(5, 1, 1663)))
    dropped = [k for k, kind in told(rig.feed())[-4:] if kind == TOMBSTONE]
    assert {(k.kind, k.rel) for k in dropped} == {(3, 16384), (3, 77), (2, 0), (1, 0)}
    assert [Key.unpack(k).db for k, _ in rig.meta.items(*ks.kind_range(ks.Kind.REL_SIZE))] == [6]


def test_a_file_copy_is_a_barrier() -> None:
    rig = Rig()
    rig.meta.put(ks.relmap(1663, 1).pack(), b"m" * 512)
    end = rig.add(DBASE, 0x00, body(u32(20000, 1663, 1, 1663)))
    rig.add(HEAP, 0x10, body(bytes(8), (0, b"x")))
    values = rig.feed()
    assert rig.barrier == ("clone_database", end, [(1663, 1, 1663, 20000)])
    assert told(values) == [(ks.database(1663, 20000), IMAGE), (ks.relmap(1663, 20000), IMAGE)]
    assert rig.ingestor.next_lsn == rig.ingestor.last_record_lsn == end
    assert told(rig.feed())[-1] == (ks.rel_block(*REL, Fork.MAIN, 0), RECORD)


def test_what_precedes_a_fault_is_kept_and_the_rest_may_be_fed_again() -> None:
    rig = Rig()
    rig.size(Fork.MAIN, 1)
    good = rig.add(HEAP, 0x10, body(bytes(8), (7, b"x")))
    rig.add(200, 0x10, body(bytes(8), (8, b"x")))
    with pytest.raises(_native.NativeError, match="resource manager number 200") as caught:
        rig.feed()
    assert caught.value.args[0] == -6
    assert told(rig.values)[-1] == (ks.rel_block(*REL, Fork.MAIN, 7), RECORD)
    assert rig.ingestor.next_lsn == rig.ingestor.last_record_lsn == good
    rig.log = rig.log[good - START :]
    with pytest.raises(_native.NativeError, match="200"):
        rig.feed()
    assert rig.values == []


def test_an_ingestor_begins_only_where_a_record_may_end() -> None:
    for lsn in (0, START + 4, START + 8):
        with pytest.raises(_native.NativeError, match="no WAL record can end"):
            _native.WalIngestor(lsn, 0)
    with pytest.raises(AttributeError):
        _native.WalIngestor(START, 0).feed(b"", object(), _native.Batch())  # type: ignore[arg-type]


def message(database: int, prefix: str, content: bytes, *, transactional: bool = False) -> bytes:
    """xl_logical_message."""
    name = prefix.encode() + b"\0"
    head = struct.pack("<I?3xQQ", database, transactional, len(name), len(content))
    return body(head + name + content)


def slot(name: bytes, state: bytes, snapshot: bytes = b"") -> bytes:
    return struct.pack("<64sII", name, len(state), len(snapshot)) + state + snapshot


def test_a_slot_is_kept_under_its_name_and_dropped() -> None:
    rig = Rig()
    content = slot(b"taken", b"state", b"snapshot")
    ((key, kind, value),) = rig.run(21, 0, message(0, "pagestore.slot", content))
    assert (key.kind, kind, value) == (ks.Kind.SLOT, IMAGE, content)
    ((other, _, _),) = rig.run(21, 0, message(0, "pagestore.slot", slot(b"taken_2", b"state")))
    assert other != key
    dropped = rig.run(21, 0, message(0, "pagestore.slot", slot(b"taken", b"")))
    assert told(dropped) == [(key, TOMBSTONE)]


def test_whose_timeline_it_is_is_kept() -> None:
    ((key, kind, value),) = Rig().run(21, 0, message(0, "pagestore.owner", b"timeline app"))
    assert (key, kind, value) == (Key(ks.Kind.FILE, block=ks.FILE_OWNER), IMAGE, b"timeline app")


@pytest.mark.parametrize(
    "content",
    [
        message(5, "pagestore.slot", slot(b"taken", b"state")),
        message(0, "pagestore.slot", slot(b"taken", b"state"), transactional=True),
        message(0, "pagestore.slot.", slot(b"taken", b"state")),
        message(0, "pagestore.slot", b"short"),
        message(0, "pagestore.slot", slot(b"../taken", b"state")),
        message(0, "pagestore.slot", slot(b"", b"state")),
        message(0, "pagestore.slot", slot(b"a\0b", b"state")),
        message(0, "pagestore.slot", slot(b"x" * 64, b"state")),
        message(0, "pagestore.slot", slot(b"taken", b"state") + b"more"),
        message(0, "pagestore.slot", slot(b"taken", bytes(4097))),
        message(0, "pagestore.owner", bytes(257)),
    ],
)
def test_a_message_of_another_form_is_somebody_elses(content: bytes) -> None:
    assert told(Rig().run(21, 0, content)) == []


def test_what_a_rewrite_of_a_catalog_moved_is_kept_by_lsn() -> None:
    rig = Rig()
    main = struct.pack("<III4xQI4xQ", 700, 5, 1259, 0, 1, START) + bytes(36)
    ((key, kind, value),) = [
        entry for entry in rig.run(9, 0, body(main), xid=701) if entry[0].kind != ks.Kind.CONTROL
    ]
    assert (key.kind, kind, value) == (ks.Kind.REWRITE, IMAGE, u32(701) + main)
    assert key.spc << 32 | key.db == rig.position
