"""Reading a timeline's segment files, and finding where its log ends.

What is below the flush LSN must be there: a missing or short file is damage, and is named.
What is behind it may be anything, and is only looked at by :func:`find_end`, after a crash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pagestore import _native, durable
from pagestore.consensus.acceptor import WalPosition
from pagestore.errors import DataLoss
from pagestore.ids import format_lsn
from pagestore.pgformat.wal import (
    SHORT_HEADER,
    align8,
    header_length,
    record_start,
    segment_name,
)

PAGE = 8192
SEGMENT = 16 << 20
_SECTOR = 512
_SEGMENT_NAME = re.compile("[0-9A-F]{24}")
_SEARCH = 1 << 20
"""Bytes looked at in one go."""
MAX_RECORD = 1 << 30
RECORD_HEADER = 24


def segment_path(directory: Path, lsn: int) -> Path:
    """The file that holds the byte at `lsn`, named as Postgres names it on its timeline 1."""
    return directory / segment_name(1, lsn)


def is_one(a: WalPosition, b: WalPosition) -> bool:
    """Whether two positions are in one segment."""
    return a.flush_lsn // SEGMENT == b.flush_lsn // SEGMENT


def read_end(lsn: int, limit: int) -> int:
    """So many bytes further, but within the segment."""
    return min(lsn + limit, (lsn // SEGMENT + 1) * SEGMENT)


def read_range(directory: Path, start: int, end: int) -> bytes:
    """The bytes [start, end), which must be there; none where `end` is not behind `start`.

    Raises:
        DataLoss: SEGMENT_DAMAGED, naming the file.
    """
    parts = []
    for lsn, length in _parts(start, end):
        path = segment_path(directory, lsn)
        data = _read_part(path, lsn % SEGMENT, length)
        if data is None:
            raise DataLoss(
                "SEGMENT_DAMAGED",
                f"The WAL segment {path} is missing or short; WAL at {format_lsn(lsn)} is needed.",
                "Restore the file from a copy, or branch the timeline below that LSN.",
            )
        parts.append(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def align(directory: Path, base: WalPosition, end: WalPosition, lsn: int) -> WalPosition:
    """The last record's end at or below `lsn`, which is between `base`, the first that is known,
    and `end`.

    Raises:
        DataLoss: SEGMENT_DAMAGED, also when the bytes there are not records.
    """
    if lsn >= end.flush_lsn:
        return end
    window = 2 * PAGE
    while lsn > base.flush_lsn:
        page = max(lsn - window, base.flush_lsn) // PAGE * PAGE
        known = base.flush_lsn if page <= base.flush_lsn else None
        data = read_from(directory, page, lsn, base.flush_lsn)
        found = _native.wal_align(data, page, lsn, known, base.prev_record_lsn if known else 0)
        if found is not None:
            return WalPosition(*found)
        if known is not None:
            break
        window *= 2
    return base


def first_end(directory: Path, page: int, limit: int) -> int | None:
    """The first record's end from the start of `page` on; None when it lies behind `limit`.

    Raises:
        DataLoss: SEGMENT_DAMAGED.
    """
    while page < limit:
        header = read_range(directory, page, page + SHORT_HEADER)
        rem_len = int.from_bytes(header[16:20], "little")
        end = page + header_length(page) + align8(rem_len) if rem_len else page
        if end <= page + PAGE:
            return end if end <= limit else None
        page += PAGE
    return None


def find_end(directory: Path, known: WalPosition, base_lsn: int) -> WalPosition:
    """The end of the last whole record from `known` on, made durable.

    A record counts when its length, its checksum and its xl_prev are right; the log ends before
    the first that does not. What a crash left of a record that was arriving is not counted.
    Before `base_lsn` nothing is looked at.

    Raises:
        DataLoss: SEGMENT_DAMAGED; a file is missing or short below `known`, or whole records
            follow bytes that are none, and those have been written: no crash leaves that.
    """
    end, window = known, _SEARCH
    while True:
        page = end.flush_lsn // PAGE * PAGE
        wanted = end.flush_lsn + window - page
        data = _read_available(directory, page, page + wanted, known.flush_lsn, base_lsn)
        found = _native.wal_align(data, page, page + len(data), end.flush_lsn, end.prev_record_lsn)
        if found is not None and found[0] > end.flush_lsn:
            end, window = WalPosition(*found), _SEARCH
        elif window < MAX_RECORD and len(data) == wanted and _length_at(data, page, end):
            window *= 2
        else:
            break
    if _is_damaged(data, page, end.flush_lsn):
        raise DataLoss(
            "SEGMENT_DAMAGED",
            f"The WAL at {format_lsn(end.flush_lsn)} in {segment_path(directory, end.flush_lsn)} "
            "is damaged: whole records follow it.",
            "Restore the file from a copy, or branch the timeline at that LSN.",
        )
    _sync(directory, known.flush_lsn, end.flush_lsn)
    return end


def check_record(directory: Path, end: WalPosition, base_lsn: int, crc: int) -> None:
    """Looks whether the record that was durable up to `end` is there: what stands in its place may
    be another copy of the segment. Nothing is known of one that began before `base_lsn`.

    Args:
        crc: its xl_crc; 0 unknown.

    Raises:
        DataLoss: SEGMENT_DAMAGED.
    """
    start = end.prev_record_lsn
    if end.flush_lsn > base_lsn:
        read_range(directory, end.flush_lsn - 1, end.flush_lsn)
    if not base_lsn <= start < end.flush_lsn:
        return
    page = start // PAGE * PAGE
    data = read_from(directory, page, end.flush_lsn, base_lsn)
    found = _native.wal_align(data, page, end.flush_lsn, start, 0)
    if found != (end.flush_lsn, start) or crc not in (0, record_crc(directory, end)):
        raise DataLoss(
            "SEGMENT_DAMAGED",
            f"The WAL segment {segment_path(directory, start)} does not hold the record at "
            f"{format_lsn(start)} that was made durable there: another copy of the file stands "
            "in its place, or it is damaged.",
            "Restore the newest copy of the file. Nothing was cut.",
        )


def record_crc(directory: Path, end: WalPosition) -> int:
    """xl_crc of the record that ends at `end`; 0 where it cannot be read."""
    start, header = end.prev_record_lsn, b""
    if not 0 < start < end.flush_lsn:
        return 0
    while len(header) < RECORD_HEADER:
        if start % PAGE == 0:
            start += header_length(start)
        length = min(RECORD_HEADER - len(header), PAGE - start % PAGE)
        part = _read_part(segment_path(directory, start), start % SEGMENT, length)
        if part is None:
            return 0
        header += part
        start += length
    return int.from_bytes(header[20:24], "little")


def remove_before(directory: Path, lsn: int) -> None:
    """Removes the segments that end at or before `lsn`."""
    first = segment_path(directory, lsn).name
    for path in directory.iterdir():
        if _SEGMENT_NAME.fullmatch(path.name) and path.name < first:
            path.unlink()


def remove_all(directory: Path) -> None:
    for path in directory.iterdir():
        if _SEGMENT_NAME.fullmatch(path.name):
            path.unlink()


def has_any(directory: Path) -> bool:
    return any(_SEGMENT_NAME.fullmatch(path.name) for path in directory.iterdir())


def _is_damaged(data: bytes, lsn: int, end_lsn: int) -> bool:
    """Whether the record behind `end_lsn` was written whole, and has changed since.

    A crash leaves a record without its end, or, where the disk wrote later sectors first,
    without some sectors: those are zeros. `data` begins at the page `lsn`, at or below it.
    """
    start = record_start(end_lsn)
    page = (start // PAGE + 1) * PAGE
    limit = lsn + len(data)
    for at in range(start + RECORD_HEADER, min(page, limit), 8):
        found = _native.wal_align(data[at - lsn : page - lsn], at, min(page, limit), at, start)
        if found is not None and found[0] > at:
            return _all_written(data, end_lsn - lsn, at - lsn)
    if page < limit:
        found = _native.wal_align(data[page - lsn :], page, limit, None, 0)
        return found is not None and _all_written(data, end_lsn - lsn, found[1] - lsn)
    return False


def _all_written(data: bytes, start: int, end: int) -> bool:
    first = -(-start // _SECTOR) * _SECTOR
    return all(any(data[at : at + _SECTOR]) for at in range(first, end, _SECTOR))


def _parts(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        length = min(end - start, SEGMENT - start % SEGMENT)
        yield start, length
        start += length


def _read_part(path: Path, offset: int, length: int) -> bytes | None:
    """None where the file is missing or is no whole segment."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(descriptor).st_size != SEGMENT:
            return None
        data = os.pread(descriptor, length, offset)
        return data if len(data) == length else None
    finally:
        os.close(descriptor)


def read_from(directory: Path, page: int, end: int, base_lsn: int) -> bytes:
    """[page, end), where what lies before `base_lsn` is taken as zeros."""
    first = min(max(page, base_lsn), end)
    return bytes(first - page) + read_range(directory, first, end)


def _read_available(directory: Path, page: int, end: int, known: int, base_lsn: int) -> bytes:
    """[page, end) or less: as far as there are files. What is between `base_lsn` and `known`
    must be there."""
    parts = [read_from(directory, page, known, base_lsn)] if page < known else []
    for lsn, length in _parts(max(page, known), end):
        data = _read_part(segment_path(directory, lsn), lsn % SEGMENT, length)
        if data is None:
            break
        parts.append(data)
    return b"".join(parts)


def _length_at(data: bytes, lsn: int, end: WalPosition) -> int:
    """xl_tot_len of what follows `end`, behind a page header if there is one; 0: nothing."""
    offset = end.flush_lsn - lsn
    if offset % PAGE == 0:
        offset += 40 if int.from_bytes(data[offset + 2 : offset + 4], "little") & 2 else 24
    return int.from_bytes(data[offset : offset + 4], "little")


def _sync(directory: Path, start: int, end: int) -> None:
    """Writes [start, end) again before it is synced: an earlier sync may have failed and left
    in the page cache what the disk does not have."""
    for lsn, length in _parts(start, end):
        descriptor = os.open(segment_path(directory, lsn), os.O_RDWR | os.O_CLOEXEC)
        try:
            written = os.pread(descriptor, length, lsn % SEGMENT)
            durable.write_at(descriptor, written, lsn % SEGMENT)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    durable.sync_directory(directory)
