"""Records as framed here against pg_waldump, on WAL of plain Postgres."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore import _native
from pagestore.pgformat import wal
from pagestore.v1.page_pb2 import ControlCounters
from tests.plain_postgres import VERSION, plain_postgres, reachable_dir
from tests.wal_log import WalLog, framing, waldump

COUNTERS = ControlCounters(
    next_full_xid=5 << 32 | 1024,
    next_oid=24576,
    next_multi=7,
    next_multi_offset=19,
    oldest_xid=716,
    oldest_xid_db=1,
    oldest_multi=1,
    oldest_multi_db=5,
    oldest_commit_ts_xid=0,
    newest_commit_ts_xid=0,
    full_page_writes=True,
)


@pytest.fixture(scope="module")
def log() -> Iterator[WalLog]:
    with plain_postgres(autovacuum="off", wal_keep_size="1GB") as cluster:
        cluster.sql("CREATE TABLE t (a int PRIMARY KEY, b text)")
        cluster.sql("INSERT INTO t SELECT i, repeat('x', i % 900) FROM generate_series(1, 9000) i")
        cluster.sql("SELECT pg_switch_wal()")
        cluster.sql("CHECKPOINT")
        cluster.sql("UPDATE t SET b = b || 'y' WHERE a % 7 = 0")
        cluster.stop()
        yield WalLog.of(cluster)


@pytest.fixture(scope="module")
def found(log: WalLog) -> list[wal.RecordHeader]:
    return list(log.records())


def test_framing_is_what_pg_waldump_sees(log: WalLog, found: list[wal.RecordHeader]) -> None:
    got = [(r.start_lsn, r.total_length, r.prev_lsn) for r in found]
    assert len(got) > 5000
    assert got == framing(log.waldump())


def test_align_finds_the_last_record_that_ends_by_the_limit(
    log: WalLog, found: list[wal.RecordHeader]
) -> None:
    ends = [(r.end_lsn, r.start_lsn) for r in found]
    log_end = log.start + len(log.data)
    assert _native.wal_align(log.data, log.start, log_end, None, 0) == ends[-1]
    for end, start in ends[3::701]:
        page = (start - 1) // wal.PAGE_SIZE * wal.PAGE_SIZE - 3 * wal.PAGE_SIZE
        page = max(page, log.start)
        for limit in (end, end + 1, end + 7):
            piece = log.slice(page, log_end)
            assert _native.wal_align(piece, page, limit, None, 0) == (end, start)


def test_align_from_a_known_start_answers_at_least_that(
    log: WalLog, found: list[wal.RecordHeader]
) -> None:
    before, known, after = found[1000:1003]
    page = known.end_lsn - known.end_lsn % wal.PAGE_SIZE
    rest = log.slice(known.end_lsn, log.start + len(log.data))
    torn = bytes(known.end_lsn - page) + rest
    args = (known.end_lsn, known.start_lsn)
    assert _native.wal_align(torn, page, known.end_lsn, *args) == args
    assert _native.wal_align(torn, page, after.end_lsn - 1, *args) == args
    assert _native.wal_align(torn, page, after.end_lsn, *args) == (after.end_lsn, after.start_lsn)
    wrong = _native.wal_align(torn, page, after.end_lsn, known.end_lsn, before.start_lsn)
    assert wrong == (known.end_lsn, before.start_lsn)


def test_align_stops_at_a_flipped_bit(log: WalLog, found: list[wal.RecordHeader]) -> None:
    good, bad = found[2000:2002]
    data = bytearray(log.data)
    data[wal.record_start(good.end_lsn) - log.start + 17] ^= 4
    assert bad.start_lsn == wal.record_start(good.end_lsn)
    end = log.start + len(data)
    assert _native.wal_align(bytes(data), log.start, end, None, 0) == (
        good.end_lsn,
        good.start_lsn,
    )


@pytest.fixture
def segments() -> Iterator[Path]:
    directory = reachable_dir()
    yield directory
    shutil.rmtree(directory)


START = 0x3_0200_0000
PAGE = wal.PAGE_SIZE
OFFSETS = [0, 40, 8104, 8064, 8168, 8184, PAGE, PAGE + 24, 5 * PAGE + 8000, 5 * PAGE + 8184]
OFFSETS += [wal.SEGMENT_SIZE - PAGE, wal.SEGMENT_SIZE - 64, wal.SEGMENT_SIZE - 8]


@pytest.mark.parametrize(
    "offset",
    OFFSETS,
)
def test_pg_waldump_reads_the_synthesized_checkpoint(offset: int, segments: Path) -> None:
    start = START + offset
    data, record_lsn, end = wal.checkpoint_shutdown_bytes(
        start,
        START - 104,
        COUNTERS,
        timestamp=1_700_000_000,
        system_id=0x1234567890ABCDEF,
        version=VERSION,
    )
    assert len(data) == end - start
    records = wal.read_records(data, start, version=VERSION)
    assert [(r.start_lsn, r.end_lsn) for r in records] == [(record_lsn, end)]
    _write_segments(segments, start, data)
    dump = waldump(segments, record_lsn)
    assert framing(dump) == [(record_lsn, 114, START - 104)]
    assert "CHECKPOINT_SHUTDOWN" in dump
    for fact in ("tli 1", "fpw true", "xid 5:1024", "oid 24576", "multi 7", "offset 19"):
        assert fact in dump
    page = start - start % PAGE
    if start != page:  # readers that come from the page's start find it by rem_len too
        assert framing(waldump(segments, page + wal.header_length(page))) == framing(dump)


def _write_segments(directory: Path, start: int, data: bytes) -> None:
    base = start - start % wal.SEGMENT_SIZE
    prefix = wal.segment_prefix(start, system_id=0x1234567890ABCDEF, version=VERSION)
    pieces = [(base + at, b) for at, b in prefix]
    pieces.append((start, data))
    for lsn, piece in pieces:
        while piece:
            room = wal.SEGMENT_SIZE - lsn % wal.SEGMENT_SIZE
            path = directory / wal.segment_name(1, lsn)
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(lsn % wal.SEGMENT_SIZE)
                file.write(piece[:room])
                os.truncate(path, wal.SEGMENT_SIZE)
            lsn, piece = lsn + len(piece[:room]), piece[room:]
