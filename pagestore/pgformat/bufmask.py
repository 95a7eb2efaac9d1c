"""What may differ between two right copies of a page: masked, so that the rest can be compared.

Postgres changes some bytes without logging them: hint bits, killed index items, command ids,
the space between line pointers and tuples. A page rebuilt from WAL therefore equals the one on
a server's disk only after both were masked. Each access method has its own rules; they are
those of the ``*_mask`` functions which Postgres runs for ``wal_consistency_checking``, with one
difference: visibility map pages are compared whole, since Postgres's own rule for them (that
of the heap) would blank the map.

All functions work on many pages at once: an array (n, 8192) of bytes. A page whose header does
not hold together is left alone but for LSN and checksum, so that it equals only itself.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

PAGE_SIZE = 8192
HEADER_SIZE = 24
LINE_POINTER_SIZE = 4

Pages = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

_LSN = slice(0, 8)
_CHECKSUM = slice(8, 10)
_FLAGS = 10
_LOWER, _UPPER, _SPECIAL = 12, 14, 16
_PRUNE_XID = slice(20, 24)

_HINT_FLAGS = 0x0001 | 0x0002 | 0x0004  # HAS_FREE_LINES, PAGE_FULL, ALL_VISIBLE
_NORMAL = 1

_TUPLE_HEADER = 23
_T_CID, _T_CTID, _T_INFOMASK = 8, 12, 20
_SPECULATIVE = 0xFFFE
_XACT_MASK = 0xFFF0
_XMIN_FROZEN = 0x0300
_XMAX_HINTS = 0x0C00

_BT_FLAGS, _BT_CYCLE = 12, 14
_BTP_LEAF, _BTP_SPLIT_END, _BTP_HAS_GARBAGE = 0x01, 0x20, 0x40

_HASH_FLAGS = 12
_LH_PAGE_TYPE, _LH_UNUSED, _LH_OVERFLOW, _LH_BUCKET = 0x0F, 0, 1, 2
_LH_HAS_DEAD_TUPLES = 0x80

_GIN_FLAGS = 6
_GIN_DELETED = 0x04

_GIST_NSN, _GIST_FLAGS = slice(0, 8), 12
_F_LEAF, _F_FOLLOW_RIGHT, _F_HAS_GARBAGE = 0x01, 0x08, 0x10
F_TUPLES_DELETED = 0x04
GIST_FLAGS_AT = PAGE_SIZE - 16 + _GIST_FLAGS
"""Where the byte with a GiST page's flags is, in the page: its special space has 16 bytes."""

_BRIN_FLAGS, _BRIN_TYPE = 4, 6
_BRIN_META, _BRIN_REGULAR = 0xF091, 0xF093
_BRIN_EVACUATE = 0x01


class PageKind(enum.StrEnum):
    """How a page's content is to be understood; values of index kinds are ``pg_am.amname``."""

    HEAP = "heap"
    BTREE = "btree"
    HASH = "hash"
    GIN = "gin"
    GIST = "gist"
    SPGIST = "spgist"
    BRIN = "brin"
    SEQUENCE = "sequence"
    GENERIC = "generic"
    """Pages of generic WAL: the bloom access method."""
    MAP = "map"
    """Visibility map and free space map: only the header is masked."""


def mask_page(page: bytes, kind: PageKind, block: int) -> bytes:
    """One page of 8192 bytes, masked. ``block`` is its number within the relation."""
    pages = np.frombuffer(page, np.uint8).reshape(1, PAGE_SIZE)
    return mask_pages(pages, kind, np.array([block])).tobytes()


def mask_pages(pages: Pages, kind: PageKind, blocks: npt.NDArray[np.integer]) -> Pages:
    """A masked copy of ``pages``, an array (n, 8192); ``blocks`` has their n block numbers."""
    masked = np.array(pages, np.uint8, order="C")
    view = _View(masked, np.asarray(blocks, np.int64))
    masked[:, _LSN] = 0
    masked[:, _CHECKSUM] = 0
    _MASKS[kind](view)
    return masked


class _View:
    """Pages under work; ``sane`` says whose header holds together."""

    def __init__(self, pages: Pages, blocks: Numbers) -> None:
        self.pages = pages
        self.flat = pages.reshape(-1)
        self.blocks = blocks
        self.start = np.arange(len(pages), dtype=np.int64) * PAGE_SIZE
        self.lower = self._header(_LOWER)
        self.upper = self._header(_UPPER)
        self.special = self._header(_SPECIAL)
        self.sane: Rows = (
            (self.lower >= HEADER_SIZE)
            & (self.lower <= self.upper)
            & (self.upper <= self.special)
            & (self.special <= PAGE_SIZE)
        )

    def _header(self, offset: int) -> Numbers:
        return self.u16(self.start + offset)

    def u16(self, at: Numbers) -> Numbers:
        return self.flat[at].astype(np.int64) | self.flat[at + 1].astype(np.int64) << 8

    def put_u16(self, at: Numbers, value: Numbers) -> None:
        self.flat[at] = value & 0xFF
        self.flat[at + 1] = value >> 8

    def has_special(self, size: int) -> Rows:
        return self.sane & (self.special + size <= PAGE_SIZE)

    def special_u16(self, offset: int) -> Numbers:
        """A field of the special space, for all pages; -1 where there is no room for it."""
        inside = self.special + offset + 2 <= PAGE_SIZE
        at = self.start + np.where(inside, self.special + offset, 0)
        return np.where(inside, self.u16(at), -1)

    def clear_special(self, rows: Rows, offset: int, bits: int) -> None:
        at = (self.start + self.special + offset)[rows]
        self.put_u16(at, self.u16(at) & ~bits)


def _hint_bits(view: _View) -> None:
    view.pages[:, _PRUNE_XID] = 0
    view.pages[:, _FLAGS] &= ~_HINT_FLAGS & 0xFF


def _unused_space(view: _View, rows: Rows) -> None:
    column = np.arange(PAGE_SIZE)
    chosen = np.flatnonzero(rows & view.sane)
    hole = (column >= view.lower[chosen, None]) & (column < view.upper[chosen, None])
    view.pages[chosen] = np.where(hole, 0, view.pages[chosen])


def _content(view: _View, rows: Rows) -> None:
    chosen = np.flatnonzero(rows)
    view.pages[chosen, HEADER_SIZE:] = 0
    view.pages[chosen, _LOWER : _UPPER + 2] = 0


def _line_pointers(view: _View, rows: Rows) -> tuple[Numbers, Numbers, Numbers]:
    """All line pointers of the chosen pages: (page, offset number from 1, the 32 bits)."""
    chosen = np.flatnonzero(rows & view.sane)
    counts = (view.lower[chosen] - HEADER_SIZE) // LINE_POINTER_SIZE
    page = np.repeat(chosen, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    number = np.arange(len(page), dtype=np.int64) - first + 1
    at = page * PAGE_SIZE + HEADER_SIZE + (number - 1) * LINE_POINTER_SIZE
    value = view.u16(at) | view.u16(at + 2) << 16
    return page, number, value


def _line_pointer_flags(view: _View, rows: Rows) -> None:
    page, number, value = _line_pointers(view, rows)
    at = page * PAGE_SIZE + HEADER_SIZE + (number - 1) * LINE_POINTER_SIZE
    cleared = value & ~(3 << 15)
    view.put_u16(at, cleared & 0xFFFF)
    view.put_u16(at + 2, cleared >> 16)


def _all(view: _View) -> Rows:
    return np.ones(len(view.pages), np.bool_)


def _heap(view: _View) -> None:
    _hint_bits(view)
    _unused_space(view, _all(view))
    page, number, value = _line_pointers(view, _all(view))
    offset, flags, length = value & 0x7FFF, value >> 15 & 3, value >> 17 & 0x7FFF
    is_tuple = (flags == _NORMAL) & (offset + _TUPLE_HEADER <= PAGE_SIZE)
    _heap_tuples(view, page[is_tuple], number[is_tuple], offset[is_tuple])
    for pad in range(7):
        inside = (length % 8 != 0) & (pad < 8 - length % 8) & (offset + length + pad < PAGE_SIZE)
        view.flat[(page * PAGE_SIZE + offset + length + pad)[inside]] = 0


def _heap_tuples(view: _View, page: Numbers, number: Numbers, offset: Numbers) -> None:
    at = page * PAGE_SIZE + offset
    info = view.u16(at + _T_INFOMASK)
    frozen = info & _XMIN_FROZEN == _XMIN_FROZEN
    view.put_u16(at + _T_INFOMASK, np.where(frozen, info & ~_XMAX_HINTS, info & ~_XACT_MASK))
    for byte in range(4):
        view.flat[at + _T_CID + byte] = 0
    speculative = view.u16(at + _T_CTID + 4) == _SPECULATIVE
    at, block = at[speculative] + _T_CTID, view.blocks[page[speculative]]
    view.put_u16(at, block >> 16)
    view.put_u16(at + 2, block & 0xFFFF)
    view.put_u16(at + 4, number[speculative])


def _btree(view: _View) -> None:
    _hint_bits(view)
    _unused_space(view, _all(view))
    rows = view.has_special(16)
    flags = view.special_u16(_BT_FLAGS)
    _line_pointer_flags(view, rows & (flags & _BTP_LEAF != 0))
    view.clear_special(rows, _BT_FLAGS, _BTP_HAS_GARBAGE | _BTP_SPLIT_END)
    view.clear_special(rows, _BT_CYCLE, 0xFFFF)


def _hash(view: _View) -> None:
    _hint_bits(view)
    _unused_space(view, _all(view))
    rows = view.has_special(16)
    kind = view.special_u16(_HASH_FLAGS) & _LH_PAGE_TYPE
    _line_pointer_flags(view, rows & ((kind == _LH_BUCKET) | (kind == _LH_OVERFLOW)))
    view.clear_special(rows, _HASH_FLAGS, _LH_HAS_DEAD_TUPLES)
    _content(view, rows & (kind == _LH_UNUSED))


def _gin(view: _View) -> None:
    _hint_bits(view)
    rows = view.has_special(8)
    deleted = rows & (view.special_u16(_GIN_FLAGS) & _GIN_DELETED != 0)
    _unused_space(view, ~deleted & (view.lower > HEADER_SIZE))
    _content(view, deleted)


def _gist(view: _View) -> None:
    _hint_bits(view)
    _unused_space(view, _all(view))
    rows = view.has_special(16)
    flags = view.special_u16(_GIST_FLAGS)
    _line_pointer_flags(view, rows & (flags & _F_LEAF != 0))
    for byte in range(8):
        view.flat[(view.start + view.special + _GIST_NSN.start + byte)[rows]] = 0
    view.clear_special(rows, _GIST_FLAGS, _F_FOLLOW_RIGHT | _F_HAS_GARBAGE)


def _spgist(view: _View) -> None:
    _hint_bits(view)
    _unused_space(view, _all(view))


def _brin(view: _View) -> None:
    _hint_bits(view)
    rows = view.has_special(8)
    kind = view.special_u16(_BRIN_TYPE)
    meta = (kind == _BRIN_META) & (view.lower > HEADER_SIZE)
    _unused_space(view, rows & ((kind == _BRIN_REGULAR) | meta))
    view.clear_special(rows, _BRIN_FLAGS, _BRIN_EVACUATE)


def _generic(view: _View) -> None:
    _unused_space(view, _all(view))


_MASKS: dict[PageKind, Callable[[_View], None]] = {
    PageKind.HEAP: _heap,
    PageKind.BTREE: _btree,
    PageKind.HASH: _hash,
    PageKind.GIN: _gin,
    PageKind.GIST: _gist,
    PageKind.SPGIST: _spgist,
    PageKind.BRIN: _brin,
    PageKind.SEQUENCE: _generic,
    PageKind.GENERIC: _generic,
    PageKind.MAP: _hint_bits,
}
