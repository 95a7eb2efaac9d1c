"""The plain-Python reference of WAL framing, and CRC-32C in both its forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore import _native
from pagestore.errors import DataLoss, InvalidInput
from pagestore.pgformat import wal
from pagestore.pgformat.crc32c import crc32c

BASE = 0x1_0100_0000


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_crc32c_chains_and_equals_the_native_one(a: bytes, b: bytes) -> None:
    assert crc32c(b, crc32c(a)) == crc32c(a + b) == _native.crc32c(a + b)


def test_crc32c_of_the_standards_vector() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@given(
    st.integers(0, 3 * wal.PAGE_SIZE // 8).map(lambda n: BASE + n * 8),
    st.lists(st.integers(0, 20_000), min_size=1, max_size=5),
)
def test_records_laid_out_are_read_back_and_aligned(start: int, lengths: list[int]) -> None:
    if 0 < start % wal.PAGE_SIZE < wal.header_length(start):
        start += wal.LONG_HEADER
    log, ends, prev, position = b"", [], BASE - 32, start
    for length in lengths:
        record = wal.record_bytes(15, 0, 7, prev, b"\xfe" + length.to_bytes(4, "little") * 2)
        record = wal.record_bytes(15, 0, 7, prev, record[24:] + bytes(length))
        piece, prev, end = wal.lay_out(position, record, system_id=5)
        assert end == wal.record_end(prev, len(record)) == position + len(piece)
        log += piece
        ends.append((end, prev))
        position = end
    found = list(wal.read_records(log, start, BASE - 32))
    assert [(r.end_lsn, r.start_lsn) for r in found] == ends
    page = start - start % wal.PAGE_SIZE
    data = bytes(start - page) + log
    assert _native.wal_align(data, page, position, start, BASE - 32) == ends[-1]
    at_least = ends[-2] if len(ends) > 1 else (start, BASE - 32)
    assert _native.wal_align(data, page, position - 1, start, BASE - 32) == at_least


def test_a_flipped_bit_is_named() -> None:
    piece, start, _ = wal.lay_out(BASE, wal.record_bytes(0, 0, 0, 8, bytes(90)), system_id=5)
    for at in (0, 2, 9, 16, 41, 50, 57, 61, 100):
        broken = bytearray(piece)
        broken[at] ^= 1
        with pytest.raises(DataLoss, match=r"1/10000(00|28)"):
            list(wal.read_records(bytes(broken) + bytes(512), BASE, 8))
    assert start == BASE + wal.LONG_HEADER


def test_segment_names() -> None:
    assert wal.segment_name(1, 0x1_0100_0000) == "000000010000000100000001"
    assert wal.segment_name(1, 0x1_0100_0000 - 1) == "000000010000000100000000"
    assert wal.segment_name(1, 0xFFFF_FFFF) == "0000000100000000000000FF"


def test_no_prefix_inside_a_page_header() -> None:
    with pytest.raises(InvalidInput):
        wal.segment_prefix(BASE + 8, system_id=1)


def test_a_log_ends_at_no_odd_place_and_in_no_page_header() -> None:
    segment = 5 << 24
    assert wal.position_below(segment + 8192 + 103) == segment + 8192 + 96
    assert wal.position_below(segment + 8192 + 23) == segment + 8192
    assert wal.position_below(segment + 8192 + 24) == segment + 8192 + 24
    assert wal.position_below(segment + 39) == segment
    assert wal.position_below(segment + 40) == segment + 40
