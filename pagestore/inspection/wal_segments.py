"""Segments of WAL, as Postgres and a safekeeper name them: their records, to the last whole one."""

from __future__ import annotations

import struct
from pathlib import Path

from pagestore.errors import DataLoss
from pagestore.ids import format_lsn
from pagestore.inspection.inspected import Inspected, called
from pagestore.pgformat import versions, wal
from pagestore.pgformat.versions import Version

_MAGIC = struct.Struct("<H")
_NAME_DIGITS = 24
_PAGE = wal.PAGE_SIZE
_REMAINDER_AT = 16
"""In a page's header: how many bytes of a record of the page before it follow."""
_MANAGERS = (
    "XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap",
    "Standby", "Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN",
    "CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage",
)  # fmt: skip
"""Resource managers by number; all majors that are known have these."""


def begin_of(name: str) -> int | None:
    """The LSN at which a segment of this name begins; None for another name."""
    name = name.removesuffix(".partial")
    if len(name) != _NAME_DIGITS or set(name) - set("0123456789ABCDEF"):
        return None
    return int(name[8:16], 16) << 32 | int(name[16:], 16) * wal.SEGMENT_SIZE


def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
    begin = begin_of(called(path))
    assert begin is not None, "it was told by its name"
    found = Inspected("segment of WAL")
    first = next((at for at in range(0, len(raw), _PAGE) if any(raw[at : at + _PAGE])), None)
    found.facts = {"begins": format_lsn(begin), "bytes": len(raw)}
    if first is None:
        found.facts["content"] = "zeros"
        return found
    start = _begins_within(raw, first)
    # Such a page has no header: the next one says whose they are, if there is one.
    version = _version_of(raw, first if start is None else first + _PAGE)
    if version is None and (start is None or any(raw[first + _PAGE :])):
        found.damage.append(f"offset {first}: no WAL page of a Postgres that is known")
        return found
    major = None if version is None else version.major
    found.facts |= {"postgres": major, "first_page": format_lsn(begin + first)}
    if start is None:
        start = _first_record(raw, begin, first)
    _read(raw, begin, start, version or versions.OLDEST, found, limit)
    return found


def _begins_within(raw: bytes, page: int) -> int | None:
    """The offset at which a log begins in a page, where it does behind the page's header: what a
    branch inherits of the page is in another log. None: the page has a header."""
    content = raw[page : page + _PAGE]
    written = len(content) - len(content.lstrip(b"\0"))
    # A record begins with its length, at a multiple of 8.
    start = written - written % 8
    return page + start if start > wal.LONG_HEADER else None


def _version_of(raw: bytes, page: int) -> Version | None:
    if page >= len(raw):
        return None
    (magic,) = _MAGIC.unpack_from(raw, page)
    return next((each for each in versions.ALL if each.wal_magic == magic), None)


def _first_record(raw: bytes, begin: int, page: int) -> int:
    """The offset of the first one that begins here: behind the rest of one from before."""
    (rest,) = struct.unpack_from("<I", raw, page + _REMAINDER_AT)
    at = page + wal.header_length(begin + page)
    while rest > (room := _PAGE - at % _PAGE):
        rest -= room
        at += room
        at += wal.header_length(begin + at)
    return wal.align8(at + rest)


def _read(
    raw: bytes, begin: int, start: int, version: Version, found: Inspected, limit: int
) -> None:
    found.columns = ("LSN", "manager", "info", "transaction", "bytes")
    count, end = 0, begin + start
    rows: list[tuple[str, ...]] = []
    try:
        for record in wal.read_records(raw[start:], begin + start, version=version):
            count, end = count + 1, record.end_lsn
            if count <= limit:
                rows.append(
                    (
                        format_lsn(record.start_lsn),
                        _manager(record.rmgr),
                        f"{record.info:02X}",
                        str(record.xid),
                        str(record.total_length),
                    )
                )
    except DataLoss as error:
        if any(raw[end - begin : end - begin + wal.RECORD_HEADER]):
            found.damage.append(error.message)
    found.rows, found.count = rows, count
    found.facts |= {"first_record": format_lsn(begin + start), "last_record_ends": format_lsn(end)}


def _manager(number: int) -> str:
    return _MANAGERS[number] if number < len(_MANAGERS) else str(number)
