"""WAL of an older minor release, made from a newer one's.

Since 17.11 and 18.6 heap records name the blocks of the visibility map whose bits they clear; older
minors of the same major, under the same magic, have a flag alone. An upgrade of the package between
two starts leaves both forms in one timeline. Here the reference is taken out of a record, and its
bytes are put behind the main data, where redo does not look: so no record moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pagestore.keyspace import Fork
from pagestore.pgformat import wal
from tests.plain_postgres import VERSION

HEAP2, HEAP = 9, 10
MULTI_INSERT, LOCK_UPDATED = 0x50, 0x60
INSERT, DELETE, UPDATE, HOT_UPDATE, LOCK = 0x00, 0x10, 0x20, 0x40, 0x60
CLEAR_BITS = {
    *((HEAP, operation) for operation in (INSERT, DELETE, UPDATE, HOT_UPDATE, LOCK)),
    *((HEAP2, operation) for operation in (MULTI_INSERT, LOCK_UPDATED)),
}
OPERATION = 0x70
LAST_BLOCK_ID = 32
HAS_IMAGE, SAME_RELATION = 0x10, 0x80
HAS_HOLE, COMPRESSED = 0x01, 0x1C
BESIDES = {253: 3, 252: 5}
"""Bytes of an origin and of a transaction's id, which may stand before main data's header."""
SHORT_MAIN = 255


def block_headers(body: bytes) -> Iterator[slice]:
    """Where the header of each block reference is, in a record's body."""
    at = 0
    while body[at] <= LAST_BLOCK_ID:
        begin, flags = at, body[at + 1]
        at += 4
        if flags & HAS_IMAGE:
            # Length, hole's offset, info; and the hole's length where it is compressed and has one.
            info = body[at + 4]
            at += 7 if info & HAS_HOLE and info & COMPRESSED else 5
        at += 4 if flags & SAME_RELATION else 16
        yield slice(begin, at)


def names_map(header: bytes) -> bool:
    """Whether a reference is bare, and of a block of the map."""
    return header[1] == SAME_RELATION | Fork.VM


def without_map(body: bytes) -> bytes:
    """The body as an older minor has it, and as long as it was; as it is if it names no map."""
    headers = [body[place] for place in block_headers(body)]
    rest = body[sum(map(len, headers)) :]
    kept = b"".join(header for header in headers if not names_map(header))
    removed = len(body) - len(rest) - len(kept)
    at = 0
    while rest[at] in BESIDES:
        at += BESIDES[rest[at]]
    assert rest[at] == SHORT_MAIN
    assert rest[at + 1] + removed < 256
    longer = rest[:at] + bytes([SHORT_MAIN, rest[at + 1] + removed]) + rest[at + 2 :]
    return kept + longer + bytes(removed)


@dataclass
class TwoMinors:
    """Makes every other heap record that names the map one of an older minor."""

    named: list[tuple[int, int]] = field(default_factory=list)
    """Resource manager and operation of records that stay as they are."""
    flagged: list[tuple[int, int]] = field(default_factory=list)
    """Of those that have a flag alone now."""

    def __call__(self, written: bytes, start: int) -> bytes:
        out = bytearray()
        for record in wal.read_records(written, start, version=VERSION):
            body = record.data[wal.RECORD_HEADER :]
            kind = record.rmgr, record.info & OPERATION
            older = without_map(body) if kind in CLEAR_BITS else body
            if older != body:
                turn = self.flagged if len(self.named) > len(self.flagged) else self.named
                turn.append(kind)
                body = older if turn is self.flagged else body
            made = wal.record_bytes(record.rmgr, record.info, record.xid, record.prev_lsn, body)
            out += wal.lay_out(start + len(out), made, system_id=0, version=VERSION)[0]
        assert len(out) == len(written)
        for page in range(-(-start // wal.PAGE_SIZE), (start + len(out)) // wal.PAGE_SIZE + 1):
            at, length = page * wal.PAGE_SIZE - start, wal.header_length(page * wal.PAGE_SIZE)
            out[at : at + length] = written[at : at + length]
        return bytes(out)
