"""Checks a catalog file before LMDB maps it.

LMDB has no checksums: it follows a damaged page number into nothing, may take the older of its
two meta pages for the newer one, and would hand out a live page as free. The entries carry
checksums of their own (records.py); this module holds the rest of the file to its word, by
walking it as LMDB's own structure (0.9, 64 bits) prescribes:

- the two meta pages are of consecutive transactions, and each leads to a tree whose generation
  entry names that transaction (a flipped transaction number would else bring back the past);
- every page of the trees lies in the file, says its own number, and is reached once; keys
  ascend; nodes lie within their page; the counts in the meta page are what was found;
- pages in use and pages on the free list are together all pages, and none is both.

What remains unseen is unused space. The check costs some microseconds an entry, once at open.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pagestore.timeline.entries import GENERATION_KEY, corrupt, unpack_generation, unseal

_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # low, high, flags, key size
_META = struct.Struct("<IIQQ")  # magic, version, address, map size
_TREE = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, branch, leaf, overflow, entries, root
_TAIL = struct.Struct("<QQ")  # last page, transaction
_U64 = struct.Struct("<Q")

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
BIG_DATA = 1
INTEGER_KEYS = 0x0008
NO_SUBDIR = 0x4000  # the flags of the file as a whole stand in those of the free list
NO_PAGE = 2**64 - 1
MIN_PAGE, MAX_PAGE = 512, 65536


class Tree(NamedTuple):
    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


@dataclass(frozen=True)
class Meta:
    free: Tree
    main: Tree
    last_page: int
    transaction: int


def check_catalog(path: Path) -> None:
    """Raises DataLoss CATALOG_CORRUPT, naming the file and what does not hold."""
    data = path.read_bytes()
    if data:  # an empty one is what a crash leaves of a store that was never used
        _Checker(data, str(path)).check()


class _Checker:
    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.page_size = self._page_size()

    def _require(self, holds: bool, offset: int, what: str) -> None:
        if not holds:
            raise corrupt(self.where, f"offset {offset}: {what}")

    def _page_size(self) -> int:
        need = _PAGE.size + _META.size + _TREE.size
        self._require(len(self.data) >= need, len(self.data), "the file ends within its first page")
        (size,) = struct.unpack_from("<I", self.data, _PAGE.size + _META.size)
        power = MIN_PAGE <= size <= MAX_PAGE and size & (size - 1) == 0
        self._require(power, _PAGE.size + _META.size, f"a page size of {size}")
        self._require(len(self.data) >= 2 * size, len(self.data), "a meta page is missing")
        return int(size)

    def check(self) -> None:
        metas = [self._meta(0), self._meta(1)]
        newer = max(metas, key=lambda meta: meta.transaction)
        older = min(metas, key=lambda meta: meta.transaction)
        if newer.transaction == 0:
            return  # made, and never written to
        self._require(
            newer.transaction == older.transaction + 1, 0, "the meta pages do not follow each other"
        )
        main = _Walk(self, newer.main, newer.last_page).run()
        self._check_generation(newer, main)
        if older.transaction > 0:
            self._check_generation(older, _Walk(self, older.main, older.last_page).run())
        self._check_pages(newer, main)

    def _meta(self, number: int) -> Meta:
        base = number * self.page_size
        page, _, flags, _, _ = _PAGE.unpack_from(self.data, base)
        magic, version, _, _ = _META.unpack_from(self.data, base + _PAGE.size)
        self._require(page == number and flags == META, base, "not a meta page")
        self._require(magic == MAGIC and version == VERSION, base, "not LMDB's magic and version")
        at = base + _PAGE.size + _META.size
        free = Tree(*_TREE.unpack_from(self.data, at))
        main = Tree(*_TREE.unpack_from(self.data, at + _TREE.size))
        last_page, transaction = _TAIL.unpack_from(self.data, at + 2 * _TREE.size)
        self._require(
            free.pad == self.page_size
            and free.flags == INTEGER_KEYS | NO_SUBDIR
            and main.flags == 0,
            at,
            "the trees are of another kind",
        )
        self._require(
            transaction == 0 or transaction % 2 == number, at, "a meta page in the wrong place"
        )
        self._require(
            1 <= last_page < len(self.data) // self.page_size or transaction == 0,
            at + 2 * _TREE.size,
            f"the file ends before page {last_page}",
        )
        return Meta(free, main, last_page, transaction)

    def _check_generation(self, meta: Meta, walk: _Walk) -> None:
        for key, value in walk.found:
            if key != GENERATION_KEY:
                unseal(key, value, self.where)
        generations = [value for key, value in walk.found if key == GENERATION_KEY]
        self._require(
            bool(generations) and unpack_generation(generations[0], self.where) == meta.transaction,
            (meta.transaction % 2) * self.page_size,
            f"transaction {meta.transaction} leads to the tree of another one",
        )

    def _check_pages(self, meta: Meta, main: _Walk) -> None:
        lists = _Walk(self, meta.free, meta.last_page).run()
        free: list[int] = []
        for _, value in lists.found:
            (count,) = _U64.unpack_from(value)
            self._require(len(value) >= 8 * (count + 1), 0, "a free list is too short")
            free.extend(struct.unpack_from(f"<{count}Q", value, 8))
        pages = [0, 1, *main.pages, *lists.pages, *free]
        self._require(
            len(pages) == meta.last_page + 1 and sorted(pages) == list(range(meta.last_page + 1)),
            0,
            "pages are lost, or used twice",
        )


class _Walk:
    """All of one tree, in key order."""

    def __init__(self, checker: _Checker, tree: Tree, last_page: int) -> None:
        self.checker = checker
        self.tree = tree
        self.last_page = last_page
        self.found: list[tuple[bytes, bytes]] = []
        self.pages: list[int] = []
        self.counts = {BRANCH: 0, LEAF: 0, OVERFLOW: 0}

    def run(self) -> _Walk:
        tree = self.tree
        if tree.root != NO_PAGE:
            self._page(tree.root, 1)
        keys = [self._order(key) for key, _ in self.found]
        ascending = all(a < b for a, b in pairwise(keys))
        counted = (self.counts[BRANCH], self.counts[LEAF], self.counts[OVERFLOW], len(keys))
        self.checker._require(
            ascending and counted == tree[3:7],
            0,
            f"a tree of {tree[3:7]} (branch, leaf, overflow pages, entries) has {counted}",
        )
        return self

    def _page(self, number: int, depth: int) -> None:
        data, size, require = self.checker.data, self.checker.page_size, self.checker._require
        base = number * size
        require(1 < number <= self.last_page, 0, f"a tree leads to page {number}")
        said, _, flags, lower, upper = _PAGE.unpack_from(data, base)
        require(said == number, base, f"page {number} says it is {said}")
        kind = LEAF if depth == self.tree.depth else BRANCH
        require(flags == kind and depth <= self.tree.depth, base, f"page {number} is no tree page")
        require(
            _PAGE.size < lower <= upper <= size and lower % 2 == 0, base, f"page {number} overflows"
        )
        self.pages.append(number)
        self.counts[kind] += 1
        require(len(self.pages) <= self.last_page, base, "the tree runs in a circle")
        pointers = struct.unpack_from(f"<{(lower - _PAGE.size) // 2}H", data, base + _PAGE.size)
        for index, pointer in enumerate(pointers):
            inside = upper <= pointer <= size - _NODE.size
            require(inside, base, f"a node outside of page {number}")
            if kind == BRANCH:
                self._branch(base, pointer, index, depth)
            else:
                self._leaf(base, pointer)

    def _branch(self, base: int, pointer: int, index: int, depth: int) -> None:
        """A child page. All but the first have a key that parts them from what went before."""
        data, size, require = self.checker.data, self.checker.page_size, self.checker._require
        low, high, top, key_size = _NODE.unpack_from(data, base + pointer)
        start = pointer + _NODE.size
        require(start + key_size <= size, base + pointer, "a key leaves its page")
        before = len(self.found)
        self._page(low | high << 16 | top << 32, depth + 1)
        require(len(self.found) > before, base + pointer, "a page without entries")
        if index > 0:
            key = data[base + start : base + start + key_size]
            last, first = self.found[before - 1][0], self.found[before][0]
            parts = self._order(last) < self._order(key) <= self._order(first)
            require(parts, base + pointer, "a key does not part the pages it stands between")

    def _order(self, key: bytes) -> bytes:
        return key[::-1] if self.tree.flags & INTEGER_KEYS else key

    def _leaf(self, base: int, pointer: int) -> None:
        data, size, require = self.checker.data, self.checker.page_size, self.checker._require
        low, high, flags, key_size = _NODE.unpack_from(data, base + pointer)
        start = pointer + _NODE.size
        require(start + key_size <= size, base + pointer, "a key leaves its page")
        key = data[base + start : base + start + key_size]
        length = low | high << 16
        start += key_size
        require(flags & ~BIG_DATA == 0, base + pointer, "a node of another kind")
        if flags == BIG_DATA:
            require(start + 8 <= size, base + pointer, "a value leaves its page")
            (number,) = _U64.unpack_from(data, base + start)
            value = self._overflow(number, length)
        else:
            require(start + length <= size, base + pointer, "a value leaves its page")
            value = data[base + start : base + start + length]
        self.found.append((key, value))

    def _overflow(self, number: int, length: int) -> bytes:
        data, size, require = self.checker.data, self.checker.page_size, self.checker._require
        require(1 < number <= self.last_page, 0, f"a value leads to page {number}")
        base = number * size
        said, _, flags = struct.unpack_from("<QHH", data, base)
        (count,) = struct.unpack_from("<I", data, base + 12)
        fits = number + count <= self.last_page + 1 and _PAGE.size + length <= count * size
        require(said == number and flags == OVERFLOW and fits, base, "a value's pages are damaged")
        self.pages.extend(range(number, number + count))
        self.counts[OVERFLOW] += count
        return data[base + _PAGE.size : base + _PAGE.size + length]
