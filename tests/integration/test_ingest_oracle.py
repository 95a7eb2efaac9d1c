"""What ingest makes of WAL since initdb, against pg_waldump and the data directory."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pagestore import _native
from pagestore.ids import parse_lsn
from pagestore.keyspace import (
    COUNTERS,
    PAGE_SIZE,
    SETTINGS,
    Fork,
    Key,
    Kind,
    Slru,
    ValueKind,
    database_range,
    kind_range,
)
from tests.integration import ingest_workload
from tests.plain_postgres import plain_postgres
from tests.wal_log import WalLog, empty_meta, framing

FORK_SUFFIX = {Fork.MAIN: "", Fork.FSM: "_fsm", Fork.VM: "_vm", Fork.INIT: "_init"}
SLRU_DIR = {
    Slru.XACT: "pg_xact",
    Slru.MULTIXACT_OFFSETS: "pg_multixact/offsets",
    Slru.MULTIXACT_MEMBERS: "pg_multixact/members",
    Slru.COMMIT_TS: "pg_commit_ts",
}
MANAGERS = [
    *("XLOG", "Transaction", "Storage", "CLOG", "Database", "MultiXact", "RelMap", "Standby"),
    *("Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN", "CommitTs"),
    *("ReplicationOrigin", "LogicalMessage"),
]
Entry = tuple[bytes, int, int, int, bytes]


@dataclass(repr=False)
class Outcome:
    """All that came out of a log."""

    meta: _native.MetaTable = field(default_factory=empty_meta)
    entries: list[Entry] = field(default_factory=list)
    records: int = 0
    end: int = 0

    def values(self, kind: Kind) -> dict[Key, bytes]:
        return {Key.unpack(k): v for k, v in self.meta.items(*kind_range(kind))}

    def value(self, key: Key) -> bytes:
        ((_, value),) = self.meta.items(key.pack(), key._replace(block=key.block + 1).pack())
        return value


def ingest(log: WalLog, end: int, step: int = 1 << 20) -> Outcome:
    """Feeds the log in steps; copies databases where asked to, sizes only."""
    outcome = Outcome(end=end)
    ingestor = _native.WalIngestor(log.first_record, 0)
    while ingestor.next_lsn < end:
        batch = _native.Batch()
        at = ingestor.next_lsn
        done = ingestor.feed(log.slice(at, min(at + step, end)), outcome.meta, batch)
        outcome.records += done.records
        outcome.entries += [batch[i] for i in range(len(batch))]
        outcome.meta.apply(batch)
        if done.barrier:
            copy_sizes(outcome.meta, *done.barrier[2][0])
    assert ingestor.last_record_lsn == end
    return outcome


def copy_sizes(meta: _native.MetaTable, src_spc: int, src_db: int, spc: int, db: int) -> None:
    for raw, value in meta.items(*database_range(Kind.REL_SIZE, src_spc, src_db)):
        meta.put(Key.unpack(raw)._replace(spc=spc, db=db).pack(), value)


@pytest.fixture(scope="module")
def log() -> Iterator[WalLog]:
    settings = {
        "wal_keep_size": "2GB",
        "max_prepared_transactions": 5,
        "track_commit_timestamp": "on",
        "full_page_writes": "on",
        "wal_compression": "pglz",
        "autovacuum": "off",
    }
    with plain_postgres(**settings) as cluster:
        ingest_workload.run(cluster)
        cluster.sql("SELECT pg_sleep(0)")
        cluster.stop()
        yield WalLog.of(cluster)


@pytest.fixture(scope="module")
def outcome(log: WalLog) -> Outcome:
    last = list(log.records())[-1]
    return ingest(log, last.end_lsn)


def controldata(log: WalLog) -> dict[str, str]:
    out = log.cluster.tool("pg_controldata", "-D", log.cluster.data).stdout
    return {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in out.splitlines())}


def test_every_resource_manager_wrote(log: WalLog, outcome: Outcome) -> None:
    managers = Counter(re.findall(r"^rmgr: (\w+)", log.waldump(), re.MULTILINE))
    assert set(MANAGERS) <= set(managers)
    assert outcome.records == sum(managers.values())


REFERENCE = re.compile(r"blkref #\d+: rel (\d+)/(\d+)/(\d+) (?:fork (\w+) )?blk (\d+)( FPW)?")
LSN = re.compile(r"lsn: (\S+),")
FORKS = {"": Fork.MAIN, "fsm": Fork.FSM, "vm": Fork.VM, "init": Fork.INIT}


def test_block_references_are_those_of_pg_waldump(log: WalLog, outcome: Outcome) -> None:
    dump = log.waldump()
    ends = {r.start_lsn: r.end_lsn for r in log.records()}
    expected = Counter(
        (
            ends[parse_lsn(LSN.search(line)[1])],  # type: ignore[index]
            Key(Kind.REL_BLOCK, int(m[1]), int(m[2]), int(m[3]), FORKS[m[4] or ""], int(m[5])),
            ValueKind.IMAGE if m[6] else ValueKind.RECORD,
        )
        for line in dump.splitlines()
        for m in REFERENCE.finditer(line)
    )
    got = Counter(
        (lsn, Key.unpack(raw), ValueKind(kind))
        for raw, lsn, kind, _, _ in outcome.entries
        if raw[0] == Kind.REL_BLOCK and kind in (ValueKind.IMAGE, ValueKind.RECORD)
    )
    assert len(got) > 10_000
    assert got == expected
    assert len(framing(dump)) == outcome.records


def relation_path(data: Path, key: Key) -> Path:
    folder = data / ("global" if key.spc == 1664 else f"base/{key.db}")
    return folder / f"{key.rel}{FORK_SUFFIX[Fork(key.fork)]}"


def test_relation_sizes_are_those_of_the_files(log: WalLog, outcome: Outcome) -> None:
    wrong = {}
    for key, value in outcome.values(Kind.REL_SIZE).items():
        path = relation_path(log.cluster.data, key)
        found = path.stat().st_size // PAGE_SIZE if path.exists() else None
        expected = struct.unpack("<I", value)[0]
        if found != expected:
            wrong[key] = (expected, found)
    # The server makes the first page of a map without WAL, and a bulk extension of the heap.
    unlogged = {k: v for k, v in wrong.items() if k.fork == Fork.VM and v == (0, 1)}
    assert {k: v for k, v in wrong.items() if k not in unlogged} == {}


def test_every_permanent_file_is_known(log: WalLog, outcome: Outcome) -> None:
    known = {relation_path(log.cluster.data, k) for k in outcome.values(Kind.REL_SIZE)}
    unlogged = {p for p in known if p.name.endswith("_init")}
    for folder in [*(log.cluster.data / "base").iterdir(), log.cluster.data / "global"]:
        for path in folder.iterdir():
            name = re.fullmatch(r"\d+(_vm)?", path.name)
            if name and path.with_name(f"{path.name}_init") not in unlogged:
                empty_map = path.name.endswith("_vm") and path.stat().st_size == PAGE_SIZE
                assert path in known or empty_map or path.stat().st_size == 0


def test_slru_pages_are_those_of_the_files(log: WalLog, outcome: Outcome) -> None:
    pages: dict[Key, bytearray] = {}
    for raw, _, kind, _, payload in outcome.entries:
        key = Key.unpack(raw)
        if key.kind != Kind.SLRU_PAGE:
            continue
        if kind == ValueKind.ZERO:
            pages[key] = bytearray(PAGE_SIZE)
            continue
        assert kind == ValueKind.PATCH
        page = pages[key]
        for offset, length, mask, value in struct.iter_unpack("<HHBB", payload):
            for at in range(offset, offset + length):
                page[at] = page[at] & ~mask | value & mask
    for slru, folder in SLRU_DIR.items():
        live = {k.block: struct.unpack("<I", v)[0] for k, v in slru_sizes(outcome, slru)}
        files = {int(p.name, 16): p for p in (log.cluster.data / folder).iterdir()}
        assert live.keys() <= files.keys()
        for segment, size in live.items():
            content = files[segment].read_bytes()
            assert len(content) == size * PAGE_SIZE
            for n in range(size):
                key = Key(Kind.SLRU_PAGE, slru, block=segment * 32 + n)
                expected = content[n * PAGE_SIZE : (n + 1) * PAGE_SIZE]
                assert settle(slru, bytes(pages[key])) == settle(slru, expected), key
    assert slru_sizes(outcome, Slru.MULTIXACT_MEMBERS)
    assert slru_sizes(outcome, Slru.COMMIT_TS)


def settle(slru: Slru, page: bytes) -> bytes:
    """The bootstrap transaction's status (xids 0 to 3) is in no WAL."""
    return b"\0" + page[1:] if slru == Slru.XACT else page


def slru_sizes(outcome: Outcome, slru: Slru) -> list[tuple[Key, bytes]]:
    return [(k, v) for k, v in outcome.values(Kind.SLRU_SIZE).items() if k.spc == slru]


def test_relation_maps_are_those_of_the_files(log: WalLog, outcome: Outcome) -> None:
    maps = outcome.values(Kind.RELMAP)
    assert len(maps) >= 3  # those of the bootstrap are in no WAL
    for key, value in maps.items():
        folder = log.cluster.data / (f"base/{key.db}" if key.db else "global")
        assert (folder / "pg_filenode.map").read_bytes() == value
    databases = {k.db for k in outcome.values(Kind.DATABASE)}
    assert databases | {1} == {int(p.name) for p in (log.cluster.data / "base").iterdir()}


def test_two_phase_state_is_that_of_the_files(log: WalLog, outcome: Outcome) -> None:
    files = {int(p.name, 16): p for p in (log.cluster.data / "pg_twophase").iterdir()}
    state = {k.block: v for k, v in outcome.values(Kind.TWO_PHASE).items()}
    assert len(state) == 1
    assert {xid: p.read_bytes()[:-4] for xid, p in files.items()} == state


def test_counters_are_those_of_the_control_file(log: WalLog, outcome: Outcome) -> None:
    control = controldata(log)
    names = [
        "NextXID", "NextOID", "NextMultiXactId", "NextMultiOffset", "oldestXID",
        "oldestXID's DB", "oldestMultiXid", "oldestMulti's DB", "oldestCommitTsXid",
        "newestCommitTsXid", "oldestActiveXID",
    ]  # fmt: skip
    expected = [control[f"Latest checkpoint's {name}"] for name in names]
    epoch, _, xid = expected[0].partition(":")
    expected[0] = str(int(epoch) << 32 | int(xid))
    assert list(struct.unpack_from("<Q10I", outcome.value(COUNTERS))) == [int(v) for v in expected]
    settings = struct.unpack_from("<Q8I", outcome.value(SETTINGS))
    assert settings[3] == int(control["max_connections setting"])
    assert settings[6] == int(control["max_prepared_xacts setting"])
    assert settings[8] == 1


def test_commit_times_rise_and_name_commits(outcome: Outcome) -> None:
    ends = [
        (int.from_bytes(raw[1:9], "big"), lsn, struct.unpack("<Q", payload)[0])
        for raw, lsn, _, _, payload in outcome.entries
        if raw[0] == Kind.COMMIT_TIME
    ]
    assert len(ends) > 100
    assert all(lsn == value for _, lsn, value in ends)
    assert 1_600_000_000_000_000 < ends[0][0] <= ends[-1][0]


def test_origins(log: WalLog, outcome: Outcome) -> None:
    origins = outcome.values(Kind.ORIGIN)
    assert [struct.unpack("<QQ", v)[0] for v in origins.values()] == [0xABCDEF]


def test_chunks_may_end_anywhere(log: WalLog, outcome: Outcome) -> None:
    end = log.first_record + (3 << 20)
    whole = ingest_until_unsure(log, end, 3 << 20)
    for step in (1, 7, 8191, 8192, 100_003):
        limit = end if step > 1000 else log.first_record + 600_000
        part = ingest_until_unsure(log, limit, step)
        assert part == whole[: len(part)]
        assert len(part) > 300


def ingest_until_unsure(log: WalLog, end: int, step: int) -> list[Entry]:
    """Like ingest(), but the log may be cut inside a record."""
    meta = empty_meta()
    ingestor = _native.WalIngestor(log.first_record, 0)
    entries = []
    while ingestor.next_lsn < end:
        batch = _native.Batch()
        at = ingestor.next_lsn
        done = ingestor.feed(log.slice(at, min(at + step, end)), meta, batch)
        entries += [batch[i] for i in range(len(batch))]
        meta.apply(batch)
        if done.barrier:
            copy_sizes(meta, *done.barrier[2][0])
    return entries
