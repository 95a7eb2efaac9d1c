"""WAL: pages, record framing, and the shutdown checkpoint record.

The layout stands in docs/formats/wal.md. WAL is a stream of bytes, cut into pages of 8 KiB
that each begin with a header (a longer one on a segment's first page). A record begins at a
multiple of 8 and runs on over page headers; when it does, the header's ``rem_len`` says how
many of its bytes are still to come.

*Where a record ends*: after its last byte, rounded up to 8, and never past a page header.
A record that fills its page ends at the page boundary, and the next one *starts* after the
header there. Page LSNs in data pages, branch LSNs and ``last_record_lsn`` are all ends in
this sense; it is what XLogReader calls EndRecPtr.

This module is the readable reference of native/core/wal; nothing that is fast lives here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pagestore.errors import DataLoss, InvalidInput
from pagestore.ids import format_lsn
from pagestore.pgformat.checkpoint_record import CheckPoint, Counters
from pagestore.pgformat.crc32c import crc32c
from pagestore.pgformat.versions import OLDEST, Version

PAGE_SIZE = 8192
SEGMENT_SIZE = 16 << 20
TIMELINE_ID = 1
SHORT_HEADER = 24
LONG_HEADER = 40
RECORD_HEADER = 24

FIRST_IS_CONTRECORD = 0x0001
HAS_LONG_HEADER = 0x0002
BKP_REMOVABLE = 0x0004
FIRST_IS_OVERWRITE_CONTRECORD = 0x0008

RMGR_XLOG = 0
XLOG_CHECKPOINT_SHUTDOWN = 0x00
XLOG_SWITCH = 0x40

_PAGE_HEADER = struct.Struct("<HHIQI4x")
_LONG_TAIL = struct.Struct("<QII")
_RECORD_HEADER = struct.Struct("<IIQBBxxI")
_SHORT_DATA, _LONG_DATA = 255, 254


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """One record: where it starts and ends, and its fixed header."""

    start_lsn: int
    end_lsn: int
    total_length: int
    xid: int
    prev_lsn: int
    info: int
    rmgr: int
    crc: int
    data: bytes
    """All ``total_length`` bytes, header included, page headers left out."""


def align8(value: int) -> int:
    return (value + 7) & ~7


def segment_name(tli: int, lsn: int, segment_size: int = SEGMENT_SIZE) -> str:
    """The file that holds the byte at ``lsn``: 24 hexadecimal digits."""
    segment = lsn // segment_size
    per_id = 0x1_0000_0000 // segment_size
    return f"{tli:08X}{segment // per_id:08X}{segment % per_id:08X}"


def header_length(lsn: int, segment_size: int = SEGMENT_SIZE) -> int:
    """Bytes of the header of the page in which ``lsn`` lies."""
    return LONG_HEADER if lsn - lsn % PAGE_SIZE == lsn - lsn % segment_size else SHORT_HEADER


def position_below(lsn: int) -> int:
    """The highest position at or below `lsn` at which a log may end, by its form alone."""
    lsn -= lsn % 8
    in_page = lsn % PAGE_SIZE
    return lsn - in_page if in_page < header_length(lsn) else lsn


def record_start(lsn: int, segment_size: int = SEGMENT_SIZE) -> int:
    """Where the record behind ``lsn`` (an end) begins: past a page header, if one is there."""
    return lsn + header_length(lsn, segment_size) if lsn % PAGE_SIZE == 0 else lsn


def record_end(start_lsn: int, length: int, segment_size: int = SEGMENT_SIZE) -> int:
    """The end of a record of ``length`` bytes that starts at ``start_lsn``."""
    position = start_lsn
    left = align8(length)
    while True:
        room = PAGE_SIZE - position % PAGE_SIZE
        if left <= room:
            return position + left
        left -= room
        position += room
        position += header_length(position, segment_size)


def page_header(
    page_lsn: int,
    *,
    system_id: int,
    rem_len: int = 0,
    tli: int = TIMELINE_ID,
    segment_size: int = SEGMENT_SIZE,
    version: Version = OLDEST,
) -> bytes:
    """The header of the page at ``page_lsn``: 24 bytes, or 40 where a segment begins.

    ``rem_len`` other than 0 says that a record runs on into the page (FIRST_IS_CONTRECORD).
    """
    if page_lsn % PAGE_SIZE != 0:
        raise InvalidInput("INVALID_LSN", f"{format_lsn(page_lsn)} is not the start of a page.")
    info = BKP_REMOVABLE | (FIRST_IS_CONTRECORD if rem_len else 0)
    is_long = page_lsn % segment_size == 0
    if is_long:
        info |= HAS_LONG_HEADER
    header = _PAGE_HEADER.pack(version.wal_magic, info, tli, page_lsn, rem_len)
    if is_long:
        header += _LONG_TAIL.pack(system_id, segment_size, PAGE_SIZE)
    return header


def segment_prefix(
    start_lsn: int,
    *,
    system_id: int,
    tli: int = TIMELINE_ID,
    segment_size: int = SEGMENT_SIZE,
    version: Version = OLDEST,
) -> list[tuple[int, bytes]]:
    """What a segment file needs before ``start_lsn`` so that readers accept it.

    ``[(offset in the file, bytes)]``: the segment's long header, and the header of the page
    in which ``start_lsn`` lies, with a rem_len that leads to ``start_lsn``. The rest may be a
    hole. What is written from ``start_lsn`` on brings its own header when it begins a page.
    """
    segment = start_lsn - start_lsn % segment_size
    page = start_lsn - start_lsn % PAGE_SIZE
    pieces = []
    if page != segment:
        header = page_header(
            segment, system_id=system_id, tli=tli, segment_size=segment_size, version=version
        )
        pieces.append((0, header))
    if start_lsn != page:
        rem_len = start_lsn - page - header_length(page, segment_size)
        if rem_len < 0:
            raise InvalidInput(
                "INVALID_LSN", f"{format_lsn(start_lsn)} lies inside a WAL page header."
            )
        header = page_header(
            page,
            system_id=system_id,
            rem_len=rem_len,
            tli=tli,
            segment_size=segment_size,
            version=version,
        )
        pieces.append((page - segment, header))
    return pieces


def record_bytes(rmgr: int, info: int, xid: int, prev_lsn: int, body: bytes) -> bytes:
    """One record: its 24-byte header, with CRC, before ``body`` (headers and data)."""
    head = _RECORD_HEADER.pack(RECORD_HEADER + len(body), xid, prev_lsn, info, rmgr, 0)
    crc = crc32c(head[:20], crc32c(body))
    return head[:20] + struct.pack("<I", crc) + body


def record_body(main: bytes, block_header: bytes = b"", block_data: bytes = b"") -> bytes:
    """What follows a record's header: the header of at most one block reference, main data's
    own header, the block's data, ``main``."""
    length = len(main)
    short = length <= _SHORT_DATA
    own = bytes((_SHORT_DATA, length)) if short else struct.pack("<BI", _LONG_DATA, length)
    return block_header + own + block_data + main


def lay_out(
    start_lsn: int,
    record: bytes,
    *,
    system_id: int,
    segment_size: int = SEGMENT_SIZE,
    version: Version = OLDEST,
) -> tuple[bytes, int, int]:
    """``record`` as it stands in WAL from ``start_lsn`` (the end of the one before) on.

    Returns (bytes of [start_lsn, end_lsn), the record's own LSN, end_lsn): page headers where
    the range begins or crosses a page, zeros up to a multiple of 8 behind.
    """
    if start_lsn % 8 != 0 or start_lsn == 0:
        raise InvalidInput("INVALID_LSN", f"No record ends at {format_lsn(start_lsn)}.")
    out = bytearray()
    rest = record + bytes(align8(len(record)) - len(record))
    written = 0
    position = start_lsn
    while written < len(rest):
        if position % PAGE_SIZE == 0:
            rem_len = len(record) - written if written else 0
            header = page_header(
                position,
                system_id=system_id,
                rem_len=rem_len,
                segment_size=segment_size,
                version=version,
            )
            out += header
            position += len(header)
        piece = rest[written : written + PAGE_SIZE - position % PAGE_SIZE]
        out += piece
        written += len(piece)
        position += len(piece)
    return bytes(out), record_start(start_lsn, segment_size), position


def checkpoint_shutdown_bytes(
    start_lsn: int,
    prev_record_lsn: int,
    counters: Counters,
    *,
    timestamp: int,
    system_id: int,
    segment_size: int = SEGMENT_SIZE,
    version: Version = OLDEST,
    wal_level: int = 1,
) -> tuple[bytes, int, int]:
    """One CHECKPOINT_SHUTDOWN record behind ``start_lsn``, whose redo point is itself.

    ``timestamp`` is in Unix seconds; ``wal_level`` what the server will run with. Returns (bytes of
    [start_lsn, end_lsn), record_lsn, end_lsn); the first byte is a page header when ``start_lsn``
    begins a page.
    """
    redo = record_start(start_lsn, segment_size)
    checkpoint = CheckPoint.at_shutdown(
        counters, redo=redo, time=timestamp, version=version, wal_level=wal_level
    )
    body = record_body(checkpoint.pack(version))
    record = record_bytes(RMGR_XLOG, XLOG_CHECKPOINT_SHUTDOWN, 0, prev_record_lsn, body)
    return lay_out(
        start_lsn, record, system_id=system_id, segment_size=segment_size, version=version
    )


def read_records(
    data: bytes,
    lsn: int,
    prev_lsn: int = 0,
    *,
    segment_size: int = SEGMENT_SIZE,
    version: Version = OLDEST,
) -> Iterator[RecordHeader]:
    """The whole records of ``data``, which begins at ``lsn``: the end of a record.

    Stops where the bytes do. Lengths, CRCs, page headers and the chain of prev LSNs are
    checked (the first link only if ``prev_lsn`` is not 0).

    Raises:
        DataLoss: a check does not hold.
    """
    reader = _Reader(data, lsn, segment_size, version)
    while (record := reader.next(prev_lsn)) is not None:
        yield record
        prev_lsn = record.start_lsn


class _Reader:
    def __init__(self, data: bytes, lsn: int, segment_size: int, version: Version) -> None:
        self.data = data
        self.base = lsn
        self.lsn = lsn
        self.segment_size = segment_size
        self.version = version

    def next(self, prev_lsn: int) -> RecordHeader | None:
        start = record_start(self.lsn, self.segment_size)
        length_at = start - self.base
        if length_at + 4 > len(self.data):
            return None
        (length,) = struct.unpack_from("<I", self.data, length_at)
        if length < RECORD_HEADER:
            raise _damaged(start, f"a record cannot have {length} bytes")
        end = record_end(start, length, self.segment_size)
        if end - self.base > len(self.data):
            return None
        raw = self._gather(length)
        _, xid, prev, info, rmgr, crc = _RECORD_HEADER.unpack_from(raw)
        if crc32c(raw[:20], crc32c(raw[24:])) != crc:
            raise _damaged(start, "the record's CRC does not match")
        if prev_lsn and prev != prev_lsn:
            raise _damaged(start, f"the record names {format_lsn(prev)} as the one before it")
        self.lsn = end
        if rmgr == RMGR_XLOG and info & 0xF0 == XLOG_SWITCH:
            self.lsn = -(-end // self.segment_size) * self.segment_size
        return RecordHeader(start, end, length, xid, prev, info, rmgr, crc, raw)

    def _gather(self, length: int) -> bytes:
        out = bytearray()
        position = self.lsn
        while len(out) < length:
            if position % PAGE_SIZE == 0:
                position += self._check_page(position, length - len(out) if out else 0)
            room = min(PAGE_SIZE - position % PAGE_SIZE, length - len(out))
            out += self.data[position - self.base : position - self.base + room]
            position += room
        return bytes(out)

    def _check_page(self, page: int, rem_len: int) -> int:
        magic, info, _, address, found = _PAGE_HEADER.unpack_from(self.data, page - self.base)
        expected_length = header_length(page, self.segment_size)
        if magic != self.version.wal_magic or address != page:
            major = self.version.major
            raise _damaged(page, f"no WAL page header of Postgres {major} for this place")
        if bool(info & HAS_LONG_HEADER) != (expected_length == LONG_HEADER):
            raise _damaged(page, "a page header of the wrong length")
        if bool(info & FIRST_IS_CONTRECORD) != (rem_len > 0) or found != rem_len:
            raise _damaged(page, f"{found} bytes of a record run on here, not {rem_len}")
        return expected_length


def _damaged(lsn: int, what: str) -> DataLoss:
    return DataLoss("WAL_CORRUPT", f"WAL is damaged at {format_lsn(lsn)}: {what}.")
