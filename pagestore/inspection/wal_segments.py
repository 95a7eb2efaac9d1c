"""Segments of WAL, as Postgres and a safekeeper name them: their records, to the last whole one."""

from __future__ import annotations

import struct
from pathlib import Path

from pagestore.errors import DataLoss
from pagestore.ids import format_lsn
from pagestore.inspection.inspected import Inspected
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


def begin_of(path: Path) -> int | None:
    """The LSN at which a segment of this name begins; None for another name."""
    name = path.name.removesuffix(".partial")
    if len(name) != _NAME_DIGITS or set(name) - set("0123456789ABCDEF"):
        return None
    return int(name[8:16], 16) << 32 | int(name[16:], 16) * wal.SEGMENT_SIZE


def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
    begin = begin_of(path)
    found = Inspected("segment of WAL")
    if begin is None:
        found.damage.append(f"the name {path.name} is none of a segment")
        return found
    first = next((at for at in range(0, len(raw), _PAGE) if any(raw[at : at + _PAGE])), None)
    found.facts = {"begins": format_lsn(begin), "bytes": len(raw)}
    if first is None:
        found.facts["content"] = "zeros"
        return found
    version = _version_of(raw, first)
    if version is None:
        found.damage.append(f"offset {first}: no WAL page of a Postgres that is known")
        return found
    found.facts |= {"postgres": version.major, "first_page": format_lsn(begin + first)}
    _read(raw, begin, first, version, found, limit)
    return found


def _version_of(raw: bytes, page: int) -> Version | None:
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
    raw: bytes, begin: int, page: int, version: Version, found: Inspected, limit: int
) -> None:
    start = _first_record(raw, begin, page)
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
