"""A small WAL decoder for tests: which records touch which blocks, as chains to be redone.

It is made for trusted WAL of plain Postgres and checks nothing. The real decoder is
native/core/wal; this one is independent of it, so that each can be held against the other.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pagestore.pgformat.wal import LONG_HEADER, PAGE_SIZE, SEGMENT_SIZE, SHORT_HEADER, segment_name

RECORD, PATCH = 2, 3
WILL_INIT = 1
RM_XLOG, RM_SMGR, RM_HEAP2, RM_HEAP = 0, 2, 9, 10
MAIN, VM = 0, 2
HEAP_BLOCKS_PER_VM_PAGE = (PAGE_SIZE - 24) * 4

Block = tuple[int, int, int, int, int]
"""(tablespace, database, relation, fork, block)"""


@dataclass
class Reference:
    block: Block
    will_init: bool
    image: bytes | None
    apply: bool


@dataclass
class Record:
    end_lsn: int
    raw: bytes
    rmgr: int
    info: int
    references: list[Reference]
    data: bytes


@dataclass
class Chain:
    """What follows the last whole page: the items since ``base``."""

    base: bytes | None
    items: list[tuple[int, int, int, bytes]] = field(default_factory=list)


def read_wal(directory: Path, start: int, end: int) -> Iterator[Record]:
    """The records from the one that starts at ``start`` on, until ``end``."""
    first = start - start % SEGMENT_SIZE
    data = b"".join(
        (directory / segment_name(1, lsn)).read_bytes() for lsn in range(first, end, SEGMENT_SIZE)
    )
    stream = _without_page_headers(data)
    at = _offset(start - first)
    while _lsn(at) + first < end:
        (length,) = struct.unpack_from("<I", stream, at)
        if length == 0:
            return
        after = at + (length + 7) // 8 * 8
        record = _record(stream[at : at + length], first + _end_lsn(after))
        if record.rmgr == RM_XLOG and record.info & 0xF0 == 0x40:
            after = _offset(-(-_end_lsn(after) // SEGMENT_SIZE) * SEGMENT_SIZE + LONG_HEADER)
        yield record
        at = after


def _without_page_headers(data: bytes) -> bytes:
    pages = np.frombuffer(data, np.uint8).reshape(-1, PAGE_SIZE)
    keep = np.ones(pages.shape, np.bool_)
    keep[:, :SHORT_HEADER] = False
    keep[:: SEGMENT_SIZE // PAGE_SIZE, :LONG_HEADER] = False
    return pages[keep].tobytes()


_ROOM = PAGE_SIZE - SHORT_HEADER
_EXTRA = LONG_HEADER - SHORT_HEADER
_SEGMENT_ROOM = SEGMENT_SIZE // PAGE_SIZE * _ROOM - _EXTRA


def _offset(position: int) -> int:
    """Of a position in WAL (past a page's header), in the stream without headers."""
    segment, within = divmod(position, SEGMENT_SIZE)
    page, byte = divmod(within, PAGE_SIZE)
    header = LONG_HEADER if page == 0 else SHORT_HEADER
    before = page * _ROOM - (_EXTRA if page > 0 else 0)
    return segment * _SEGMENT_ROOM + before + byte - header


def _lsn(offset: int) -> int:
    segment, within = divmod(offset, _SEGMENT_ROOM)
    page, byte = divmod(within + _EXTRA, _ROOM)
    header = LONG_HEADER - _EXTRA if page == 0 else SHORT_HEADER
    return segment * SEGMENT_SIZE + page * PAGE_SIZE + header + byte


def _end_lsn(offset: int) -> int:
    """Of the byte after a record's last: the page boundary rather than past its header."""
    return _lsn(offset - 1) + 1


def _record(raw: bytes, end_lsn: int) -> Record:
    info, rmgr = raw[16], raw[17]
    at, left = 24, len(raw) - 24
    blocks: list[tuple[int, Block, int, tuple[int, int, int] | None]] = []
    relation = (0, 0, 0)
    data_length = 0
    while left > data_length:
        tag = raw[at]
        if tag in (255, 254):
            width = 1 if tag == 255 else 4
            main = int.from_bytes(raw[at + 1 : at + 1 + width], "little")
            at, left, data_length = at + 1 + width, left - 1 - width, data_length + main
            break
        if tag in (253, 252):
            size = 3 if tag == 253 else 5
            at, left = at + size, left - size
            continue
        begin = at
        flags, length = struct.unpack_from("<BH", raw, at + 1)
        at += 4
        image = None
        if flags & 0x10:
            image = struct.unpack_from("<HHB", raw, at)
            at += 5
            assert not image[2] & 0x1C, "compressed images are not for this decoder"
            data_length += image[0]
        if not flags & 0x80:
            relation = struct.unpack_from("<III", raw, at)
            at += 12
        (number,) = struct.unpack_from("<I", raw, at)
        at += 4
        left -= at - begin
        data_length += length
        blocks.append((flags, (*relation, flags & 0x0F, number), length, image))
    references = []
    for flags, block, length, image in blocks:
        page = None
        if image is not None:
            page = _restore(raw[at : at + image[0]], image[1])
            at += image[0]
        apply = image is not None and bool(image[2] & 0x02)
        references.append(Reference(block, bool(flags & 0x40), page, apply))
        at += length
    return Record(end_lsn, raw, rmgr, info, references, raw[at:])


def _restore(image: bytes, hole: int) -> bytes:
    return image[:hole] + bytes(PAGE_SIZE - len(image)) + image[hole:]


def _clears_visibility(record: Record) -> list[Block]:
    """Heap blocks whose bits in the visibility map the record clears (by its flags)."""
    kind = record.info & 0x70
    blocks = {i: r.block for i, r in enumerate(record.references)}
    if record.rmgr == RM_HEAP:
        offset = {0x00: 2, 0x10: 7, 0x20: 7, 0x40: 7, 0x60: 7}.get(kind)
    elif record.rmgr == RM_HEAP2:
        offset = {0x50: 0, 0x60: 7}.get(kind)
    else:
        offset = None
    if offset is None:
        return []
    flags = record.data[offset]
    if record.rmgr == RM_HEAP and kind in (0x20, 0x40):  # UPDATE, HOT_UPDATE: 0 new, 1 old
        old = blocks.get(1, blocks[0])
        return [block for block, bit in ((old, 1), (blocks[0], 2)) if flags & bit]
    return [blocks[0]] if flags & 1 else []


class Chains:
    """The newest chain of each block, by replaying the outline of WAL.

    ``base`` gives a block's page before the first record, or None when there was none.
    """

    def __init__(self, base: Callable[[Block], bytes | None]) -> None:
        self.base = base
        self.chains: dict[Block, Chain] = {}
        self.by_relation: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self.fresh: set[tuple[int, ...]] = set()
        self.records = 0

    def _chain(self, block: Block) -> Chain:
        chain = self.chains.get(block)
        if chain is None:
            known = None if block[:4] in self.fresh else self.base(block)
            chain = self.chains[block] = Chain(known)
            self.by_relation[block[:4]].add(block[4])
        return chain

    def feed(self, record: Record) -> None:
        self.records += 1
        if record.rmgr == RM_SMGR:
            self._storage(record)
        for reference in record.references:
            chain = self._chain(reference.block)
            if reference.apply and reference.image is not None:
                page = reference.image
                if page[14:16] != b"\0\0":
                    page = struct.pack("<II", record.end_lsn >> 32, record.end_lsn & 0xFFFFFFFF)
                    page += reference.image[8:]
                chain.base, chain.items = page, []
                continue
            if reference.will_init:
                chain.base, chain.items = None, []
            flags = WILL_INIT if reference.will_init else 0
            chain.items.append((record.end_lsn, RECORD, flags, record.raw))
        for block in _clears_visibility(record):
            target = (*block[:3], VM, block[4] // HEAP_BLOCKS_PER_VM_PAGE)
            chain = self._chain(target)
            if chain.base is not None or chain.items:
                chain.items.append((record.end_lsn, RECORD, 0, record.raw))

    def _storage(self, record: Record) -> None:
        if record.info & 0xF0 == 0x10:  # CREATE
            *relation, fork = struct.unpack("<IIII", record.data[:16])
            self._cut((*relation, fork), 0)
            self.fresh.add((*relation, fork))
        else:  # TRUNCATE
            first, *relation, flags = struct.unpack("<IIIII", record.data[:20])
            if flags & 1:
                self._cut((*relation, MAIN), first)
            if flags & 2:
                self._cut_map((*relation, VM), first, record.end_lsn)

    def _cut_map(self, relation: tuple[int, int, int, int], heap_first: int, lsn: int) -> None:
        """Cuts a visibility map, and clears the tail of its last page: logged nowhere else."""
        page, within = divmod(heap_first, HEAP_BLOCKS_PER_VM_PAGE)
        self._cut(relation, page + (within > 0))
        if within > 0:
            byte, bits = divmod(within, 4)
            ops = struct.pack("<HHBB", 24 + byte, 1, 0xFF << 2 * bits & 0xFF, 0)
            ops += struct.pack("<HHBB", 25 + byte, PAGE_SIZE - 25 - byte, 0xFF, 0)
            chain = self._chain((*relation, page))
            if chain.base is not None or chain.items:
                chain.items.append((lsn, PATCH, 0, ops))

    def _cut(self, relation: tuple[int, ...], first: int) -> None:
        for number in [n for n in self.by_relation[relation] if n >= first]:
            self.by_relation[relation].discard(number)
            del self.chains[(*relation, number)]  # type: ignore[arg-type]
        if first == 0:
            self.fresh.add(relation)
