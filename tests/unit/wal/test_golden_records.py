"""Records as each major wrote them: what ingest makes of those that differ between majors.

The files in golden/ were made by tools/golden-records.py on that major; what must come of a record
is read from pg_waldump's words about it.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pagestore import _native
from pagestore import keyspace as ks
from pagestore.keyspace import Fork, Key, Slru, ValueKind
from pagestore.pg_control_values import pack_counters, pack_settings, unpack_counters
from pagestore.pgformat import versions, wal
from pagestore.v1 import page_pb2
from tests.truth.minors import without_map

START = 0x3_0000_2000
BLOCKS = 1 << 16
"""Of each relation that a record touches: none grows."""
GOLDEN = Path(__file__).with_name("golden")
FORKS = {"main": Fork.MAIN, "fsm": Fork.FSM, "vm": Fork.VM, "init": Fork.INIT}
ALWAYS = {
    *("xlog checkpoint_shutdown", "xlog checkpoint_online", "xlog end_of_recovery"),
    *("clog zeropage", "clog truncate", "commit_ts zeropage", "commit_ts truncate"),
    *("multixact zero_mem_page", "multixact truncate_id", "relmap update"),
    *("transaction commit", "transaction abort"),
    *("transaction prepare", "transaction commit_prepared"),
    *("heap2 visible", "heap2 lock_updated", "heap inplace", "gist delete"),
}
PRUNES = {f"heap2 prune_{why}" for why in ("on_access", "vacuum_scan", "vacuum_cleanup")}
NAME_MAP = {
    f"heap {operation} names map"
    for operation in ("insert", "delete", "update", "hot_update", "lock", "multi_insert")
}
KINDS = {
    15: ALWAYS | {"heap2 prune", "heap2 vacuum", "heap2 freeze_page"},
    17: ALWAYS | PRUNES | NAME_MAP | {"xlog checkpoint_redo"},
    18: ALWAYS | PRUNES | NAME_MAP | {"xlog checkpoint_redo"},
}


@dataclass(frozen=True)
class Golden:
    """One record."""

    kind: str
    version: versions.Version
    manager: int
    info: int
    xid: int
    body: bytes
    says: str

    @property
    def blocks(self) -> list[Key]:
        """That the record refers to."""
        found = re.findall(r"rel (\d+)/(\d+)/(\d+)(?: fork (\w+))? blk (\d+)", self.says)
        return [
            ks.rel_block(int(spc), int(db), int(rel), FORKS[fork or "main"], int(block))
            for spc, db, rel, fork, block in found
        ]

    @property
    def dropped(self) -> list[Key]:
        """The sizes of relations that it drops."""
        names = re.search(r"rels: ([^;]*)", self.says)
        found = re.findall(r"base/(\d+)/(\d+)", names[1]) if names else []
        return [ks.rel_size(1663, int(db), int(rel), Fork.MAIN) for db, rel in found]

    def number(self, pattern: str) -> int:
        found = re.search(pattern, self.says)
        assert found is not None, self.says
        return int(found[1])


def _read(major: int) -> dict[str, Golden]:
    content: dict[str, Any] = json.loads((GOLDEN / f"postgres-{major}.json").read_text())
    version = versions.of_catalog(content["catalog_version"])
    assert version.major == major
    return {
        kind: Golden(
            kind,
            version,
            record["manager"],
            record["info"],
            record["xid"],
            bytes.fromhex(record["body"]),
            record["says"],
        )
        for kind, record in content["records"].items()
    }


RECORDS = {version.major: _read(version.major) for version in versions.ALL}
EVERY = [record for records in RECORDS.values() for record in records.values()]


def _of(*kinds: str) -> Any:
    """A test's records: of each major those whose kind begins so."""
    found = [record for record in EVERY if record.kind.startswith(kinds)]
    assert found, kinds
    return pytest.mark.parametrize("record", found, ids=_name)


def _name(record: Golden) -> str:
    return f"{record.version.major}-{record.kind.replace(' ', '-')}"


class Taken:
    """An ingestor of some major after some records: what they left."""

    def __init__(self, *records: Golden, version: versions.Version | None = None) -> None:
        self.version = version or records[0].version
        self.meta = _native.MetaTable()
        settings = page_pb2.ControlSettings(
            catalog_version=self.version.catalog_version, track_commit_timestamp=True
        )
        self.meta.put(ks.SETTINGS.pack(), pack_settings(settings))
        counters = page_pb2.ControlCounters(
            next_full_xid=1 << 21, oldest_xid=3, oldest_multi=1, oldest_commit_ts_xid=3
        )
        self.meta.put(ks.COUNTERS.pack(), pack_counters(counters))
        for record in records:
            self._prepare(record)
        self.values = self._feed(records)

    def _prepare(self, record: Golden) -> None:
        """The relations that it touches are there, and the segments of each SLRU."""
        for key in record.blocks:
            for fork in (Fork.MAIN, Fork.VM):
                size = ks.rel_size(key.spc, key.db, key.rel, fork)
                self.meta.put(size.pack(), struct.pack("<I", BLOCKS))
        for size in record.dropped:
            self.meta.put(size.pack(), struct.pack("<I", 1))
        if record.kind == "transaction commit_prepared":
            xid = record.number(r"COMMIT_PREPARED (\d+)")
            self.meta.put(ks.two_phase(xid).pack(), b"state")
        for slru in Slru:
            for segment in range(2):
                self.meta.put(ks.slru_size(slru, segment).pack(), struct.pack("<I", 32))

    def _feed(self, records: tuple[Golden, ...]) -> list[tuple[Key, ValueKind, bytes]]:
        position, previous, log = START, START - 64, b""
        for record in records:
            made = wal.record_bytes(record.manager, record.info, record.xid, previous, record.body)
            piece, previous, position = wal.lay_out(
                position, made, system_id=1, version=self.version
            )
            log += piece
        ingestor = _native.WalIngestor(START, 0)
        batch = _native.Batch()
        step = ingestor.feed(log, self.meta, batch)
        assert (step.records, step.consumed) == (len(records), len(log))
        return [
            (Key.unpack(key), ValueKind(kind), payload)
            for key, _, kind, _, payload in (batch[i] for i in range(len(batch)))
        ]

    def kinds(self, key: Key) -> list[ValueKind]:
        """Of the values that a key got."""
        return [kind for at, kind, _ in self.values if at == key]

    def counters(self) -> page_pb2.ControlCounters:
        (value,) = [payload for key, _, payload in self.values if key == ks.COUNTERS][-1:]
        return unpack_counters(value)


@pytest.mark.parametrize("major", RECORDS)
def test_each_kind_that_changed_is_there(major: int) -> None:
    assert {*RECORDS[major]} >= KINDS[major]


@pytest.mark.parametrize("major", RECORDS)
def test_all_are_taken_in_one_log(major: int) -> None:
    assert Taken(*RECORDS[major].values()).values


@_of("heap", "btree", "gist", "hash", "spgist")
def test_a_record_goes_to_every_block_that_it_names(record: Golden) -> None:
    taken = Taken(record)
    assert record.blocks
    for key in record.blocks:
        assert taken.kinds(key) == [ValueKind.RECORD]


def _map_of(key: Key) -> Key:
    return key._replace(fork=Fork.VM, block=0)


@pytest.mark.parametrize(
    "record", [r for r in EVERY if r.kind.endswith(("names map", "has a flag"))], ids=_name
)
def test_the_map_gets_the_record_or_a_patch_never_both(record: Golden) -> None:
    taken = Taken(record)
    in_map = {key for key, _, _ in taken.values if key.fork == Fork.VM and key.block == 0}
    kinds = {kind for key in in_map for kind in taken.kinds(key)}
    named = record.kind.endswith("names map")
    assert kinds == ({ValueKind.RECORD} if named else {ValueKind.PATCH})
    if not named:
        assert in_map <= {_map_of(key) for key in record.blocks}


@_of("clog zeropage", "commit_ts zeropage", "multixact zero_mem_page")
def test_a_page_of_zeros(record: Golden) -> None:
    slru = {
        "clog": Slru.XACT,
        "commit_ts": Slru.COMMIT_TS,
        "multixact": Slru.MULTIXACT_MEMBERS,
    }[record.kind.split()[0]]
    page = record.number(r"(?:ZEROPAGE|ZERO_MEM_PAGE)(?: page)? (\d+)")
    assert Taken(record).kinds(ks.slru_page(slru, page)) == [ValueKind.ZERO]


@_of("clog truncate", "commit_ts truncate", "multixact truncate_id")
def test_what_a_truncation_says_is_the_oldest(record: Golden) -> None:
    taken = Taken(record)
    if record.kind == "clog truncate":
        assert taken.counters().oldest_xid == record.number(r"oldestXact (\d+)")
        assert taken.kinds(ks.slru_size(Slru.XACT, 0)) == [ValueKind.TOMBSTONE]
    elif record.kind == "commit_ts truncate":
        assert taken.counters().oldest_commit_ts_xid == record.number(r"oldestXid (\d+)")
        assert taken.kinds(ks.slru_size(Slru.COMMIT_TS, 0)) == [ValueKind.TOMBSTONE]
    else:
        assert taken.counters().oldest_multi == record.number(r"offsets \[\d+, (\d+)\)")


@_of("relmap update")
def test_a_relation_map_is_as_long_as_the_majors(record: Golden) -> None:
    key = ks.relmap(record.number(r"tablespace (\d+)"), record.number(r"database (\d+)"))
    ((content, kind),) = [
        (payload, kind) for at, kind, payload in Taken(record).values if at == key
    ]
    assert kind == ValueKind.IMAGE
    assert len(content) == record.version.relation_map_length == record.number(r"size (\d+)")


@_of("transaction commit", "transaction abort")
def test_what_stands_behind_dropped_statistics_is_read(record: Golden) -> None:
    """Relations that it drops go, and a prepared transaction's state: its id comes after them."""
    taken = Taken(record)
    assert record.dropped
    for size in record.dropped:
        assert taken.kinds(size) == [ValueKind.TOMBSTONE]
    if "PREPARED" in record.says:
        xid = record.number(r"COMMIT_PREPARED (\d+)")
        assert taken.kinds(ks.two_phase(xid)) == [ValueKind.TOMBSTONE]


@_of("xlog checkpoint_shutdown", "xlog checkpoint_online")
def test_a_checkpoint_gives_its_counters(record: Golden) -> None:
    counters = Taken(record).counters()
    assert counters.oldest_active_xid == record.number(r"oldest running xid (\d+)")
    if "shutdown" in record.kind:
        assert counters.next_oid == record.number(r"oid (\d+)")
        assert counters.oldest_xid == record.number(r"oldest xid (\d+)")


@pytest.mark.parametrize(
    ("kind", "major", "other"),
    [
        ("xlog checkpoint_redo", 17, 15),
        ("relmap update", 15, 17),
        ("relmap update", 17, 15),
        ("clog truncate", 15, 17),
        ("transaction commit_prepared", 17, 18),
    ],
)
def test_a_record_of_another_major_is_refused(kind: str, major: int, other: int) -> None:
    with pytest.raises(_native.NativeError):
        Taken(RECORDS[major][kind], version=versions.of_major(other))


@pytest.mark.parametrize("major", [17, 18])
def test_both_forms_of_a_minor_in_one_log(major: int) -> None:
    """A map page that one record clears by name and another by its flag has both in its chain."""
    records = RECORDS[major]
    named = records["heap delete names map"]
    flagged = replace(named, body=without_map(named.body))
    taken = Taken(named, flagged, named)
    (map_page,) = [key for key in named.blocks if key.fork == Fork.VM]
    assert taken.kinds(map_page) == [ValueKind.RECORD, ValueKind.PATCH, ValueKind.RECORD]
