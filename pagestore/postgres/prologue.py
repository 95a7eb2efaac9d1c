"""What the first start on a timeline writes, before its checkpoint record.

Problem: a new timeline has, at its first LSN, all that its parent had. Two things of it must not
go on by themselves. A *replication slot* promises a consumer every change of one database: on
another database's branch nobody has been promised anything, and a consumer that came there would
leave its own slot behind. An enabled *subscription* would pull from its publisher beside the one
that it was copied from, through the same slot, and each would miss what the other took.

So the first start decides by the *owner* that the last compute of this history wrote down, which
timeline it was on and of which database. Another timeline: subscriptions are disabled. Another
database too: its slots are gone. That is real WAL of the timeline, in front of the checkpoint
record that the server starts from, so that it holds before there is a server, happens once, and is
seen at every later LSN:

- a dropped slot, as the shim logs one (native/postgres/shim/slots.c);
- for each row of pg_subscription that is enabled, an in-place change of one byte, as Postgres logs
  those that it makes itself;
- the owner, a logical message of no database as well.

A timeline that computes have written already, but none that said whose it is, is of an older
version: it only gets an owner.

Sources: ``replication/message.h``, ``access/heapam_xlog.h``, ``catalog/pg_subscription.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pagestore.errors import DataLoss
from pagestore.ids import TimelineId
from pagestore.pgformat import versions, wal
from pagestore.postgres.remote_map import Fork
from pagestore.v1 import page_pb2 as pb

_RMGR_HEAP, _HEAP_INPLACE = 10, 0x70
_RMGR_LOGICAL_MESSAGE, _LOGICAL_MESSAGE = 21, 0x00
_MESSAGE = struct.Struct("<I?3xQQ")
_SLOT = struct.Struct("<64sII")
_BLOCK = struct.Struct("<BBHIIII")
_INPLACE = struct.Struct("<H2xII?3xI")
"""The row, its database and tablespace, and no cache that must forget anything."""
_BLOCK_HAS_DATA = 0x20
_LINE_POINTERS_AT, _NORMAL = 24, 1
_NAME_AT, _ENABLED_AT, _FIXED_BYTES = 16, 84, 89
"""In a row of pg_subscription: subname, subenabled, and the columns of fixed width."""


@dataclass(frozen=True, slots=True)
class Prologue:
    """``data`` is the WAL of [start_lsn, end_lsn), ``last_record_lsn`` the start of its last
    record; nothing, where the timeline is not new.

    Args:
        fork: pg_subscription's, where it has pages.
        pages: those of it that changed, as they are at end_lsn.
        dropped_slots: another database's, which are gone.
        is_new: nobody has written the timeline yet.
    """

    start_lsn: int
    end_lsn: int
    last_record_lsn: int
    data: bytes = b""
    fork: Fork = (0, 0, 0, 0)
    pages: Mapping[int, bytes] = field(default_factory=dict)
    dropped_slots: tuple[str, ...] = ()
    is_new: bool = False


class _Writer:
    """WAL from the end of a record on."""

    def __init__(self, start_lsn: int, prev_record_lsn: int, settings: pb.ControlSettings) -> None:
        self.end_lsn, self.last_record_lsn = start_lsn, prev_record_lsn
        self.data = bytearray()
        self.version = versions.of_catalog(settings.catalog_version)
        self._system_id = settings.system_id

    def add(self, rmgr: int, info: int, body: bytes) -> None:
        record = wal.record_bytes(rmgr, info, 0, self.last_record_lsn, body)
        data, self.last_record_lsn, self.end_lsn = wal.lay_out(
            self.end_lsn, record, system_id=self._system_id, version=self.version
        )
        self.data += data

    def message(self, prefix: str, content: bytes) -> None:
        """A logical message of no database, which no decoding sees."""
        name = prefix.encode() + b"\0"
        head = _MESSAGE.pack(0, False, len(name), len(content))
        body = wal.record_body(head + name + content)
        self.add(_RMGR_LOGICAL_MESSAGE, _LOGICAL_MESSAGE, body)


def write_prologue(
    header: pb.BackupHeader,
    timeline: TimelineId,
    owner: str,
    end_lsn: int,
    prev_record_lsn: int,
) -> Prologue:
    """For a start of `timeline` as `owner`'s.

    Args:
        end_lsn: where its log ends, with the record that begins at prev_record_lsn.
        owner: whatever tells databases apart; the same over restore and undo.

    Raises:
        DataLoss: MALFORMED_BACKUP.
    """
    known_timeline, _, known_owner = header.owner.decode(errors="replace").partition(" ")
    if known_timeline == str(timeline):
        return Prologue(end_lsn, end_lsn, prev_record_lsn)
    is_new = bool(known_timeline) or end_lsn == header.branch_lsn
    writer = _Writer(end_lsn, prev_record_lsn, header.settings)
    dropped = tuple(header.slots) if is_new and known_owner != owner else ()
    for name in dropped:
        writer.message("pagestore.slot", _SLOT.pack(name.encode(), 0, 0))
    rel = header.subscriptions.rel
    fork = (rel.spc_oid, rel.db_oid, rel.rel_number, rel.fork)
    pages = _disable(writer, fork, header.subscriptions) if is_new else {}
    writer.message("pagestore.owner", f"{timeline} {owner}".encode())
    return Prologue(
        end_lsn,
        writer.end_lsn,
        writer.last_record_lsn,
        bytes(writer.data),
        fork,
        pages,
        dropped,
        is_new,
    )


def enabled_subscriptions(rows: Iterable[bytes]) -> list[str]:
    """Names, from rows of pg_subscription."""
    names = [
        row[_NAME_AT:].partition(b"\0")[0].decode(errors="replace")
        for row in rows
        if len(row) >= _FIXED_BYTES and row[_ENABLED_AT]
    ]
    return sorted(names)


def _disable(writer: _Writer, fork: Fork, sent: pb.BackupPages) -> dict[int, bytes]:
    """The pages that change, behind the change."""
    changed = {}
    for block, content in zip(sent.blocks, sent.pages, strict=True):
        page = bytearray(content)
        for number, offset, length in list(_tuples(page)):
            body_at = offset + page[offset + 22]
            enabled_at = body_at + _ENABLED_AT
            if body_at + _FIXED_BYTES > offset + length or not page[enabled_at]:
                continue
            page[enabled_at] = 0
            data = bytes(page[body_at : offset + length])
            flags = fork[3] | _BLOCK_HAS_DATA
            head = _BLOCK.pack(0, flags, len(data), fork[0], fork[1], fork[2], block)
            main = struct.pack("<H", number)
            if writer.version.inplace_names_database:
                main = _INPLACE.pack(number, fork[1], fork[0], False, 0)
            body = wal.record_body(main, head, data)
            writer.add(_RMGR_HEAP, _HEAP_INPLACE, body)
            lsn = writer.end_lsn
            struct.pack_into("<II", page, 0, lsn >> 32, lsn & 0xFFFFFFFF)
            changed[block] = bytes(page)
    return changed


def _tuples(page: bytearray) -> Iterator[tuple[int, int, int]]:
    """(offset number, where it lies, its length) of every row version of a heap page."""
    (lower,) = struct.unpack_from("<H", page, 12)
    for at in range(_LINE_POINTERS_AT, min(lower, len(page)), 4):
        (pointer,) = struct.unpack_from("<I", page, at)
        offset, state, length = pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17
        if offset + length > len(page):
            raise DataLoss("MALFORMED_BACKUP", "The base backup has a broken pg_subscription.")
        if state == _NORMAL and length > 23:
            yield (at - _LINE_POINTERS_AT) // 4 + 1, offset, length
