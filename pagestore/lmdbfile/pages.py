"""The pages of an LMDB file (0.9, 64 bits), walked without LMDB.

Damage is what does not hold of these:

- the two meta pages are of consecutive transactions, each in the place that its number says;
- every page of the newer one's trees lies in the file, says its own number, and is reached once;
  keys ascend; nodes lie within their page; the counts in a tree's root are what was found;
- pages in use and pages on the free list are together all pages, and none is both.

Of the older meta page's trees only one entry is looked up: LMDB itself reads them no more, but
what they say of themselves tells when a flipped transaction number has exchanged the two.
What remains unseen is unused space.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # low, high, flags, key size
_META = struct.Struct("<IIQQ")  # magic, version, address, map size
_TREE = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, branch, leaf, overflow, entries, root
_TAIL = struct.Struct("<QQ")  # last page, transaction
_U64 = struct.Struct("<Q")

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF, OVERFLOW, META = 1, 2, 4, 8
BIG_DATA, SUB_TREE = 1, 2
INTEGER_KEYS = 0x0008
NO_SUBDIR = 0x4000  # the flags of the file as a whole stand in those of the free list
NO_PAGE = 2**64 - 1
MIN_PAGE, MAX_PAGE = 512, 65536


class Damaged(Exception):
    """Says where in the file what does not hold."""

    def __init__(self, offset: int | None, what: str) -> None:
        super().__init__(what if offset is None else f"offset {offset}: {what}")


class Entry(NamedTuple):
    """``table`` is empty for entries of the unnamed tree."""

    table: bytes
    key: bytes
    value: bytes


class Tree(NamedTuple):
    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class Meta(NamedTuple):
    free: Tree
    main: Tree
    last_page: int
    transaction: int


class Pages:
    """A file's bytes as LMDB sees them.

    Raises Damaged, from the constructor and any method.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.page_size = self._page_size()
        metas = [self._meta(0), self._meta(1)]
        self.newer = max(metas, key=lambda meta: meta.transaction)
        self.older = min(metas, key=lambda meta: meta.transaction)
        if self.newer.transaction not in (0, self.older.transaction + 1):
            raise Damaged(0, "the meta pages do not follow each other")

    @property
    def transaction(self) -> int:
        """The newest one's number; 0 for a file that was made and never written to."""
        return self.newer.transaction

    def tables(self) -> list[bytes]:
        """The names of those that the newest transaction has."""
        meta = self.newer
        nodes = _Walk(self, meta.main, meta.last_page, []).nodes()
        return [key for key, _, flags in nodes if flags & SUB_TREE]

    def entries(self) -> list[Entry]:
        """All of the newest transaction's, once every page of it has been checked."""
        meta = self.newer
        if meta.transaction == 0:
            return []
        used = [0, 1]
        entries: list[Entry] = []
        main = _Walk(self, meta.main, meta.last_page, used)
        for key, value, flags in main.nodes():
            if flags & SUB_TREE:
                table = _Walk(self, _sub_tree(value), meta.last_page, used)
                entries.extend(Entry(key, k, v) for k, v, _ in table.nodes())
            else:
                entries.append(Entry(b"", key, value))
        free = _Walk(self, meta.free, meta.last_page, used).nodes()
        for _, value, _ in list(free):
            used.extend(_free_list(value))
        if sorted(used) != list(range(meta.last_page + 1)):
            raise Damaged(0, "pages are lost, or used twice")
        return entries

    def in_use(self, gaps: list[tuple[int, int]]) -> set[int]:
        """The pages of both transactions' trees; where those have unused space goes to ``gaps``."""
        used = [0, 1]
        for meta in (self.newer, self.older):
            trees = [meta.free, meta.main]
            main = _Walk(self, meta.main, meta.last_page, [])
            trees += [_sub_tree(value) for _, value, flags in main.nodes() if flags & SUB_TREE]
            for tree in trees:
                # A walk takes no more pages than a file can have.
                found: list[int] = []
                walk = _Walk(self, tree, meta.last_page, found)
                walk.nodes()
                used += found
                gaps += walk.gaps
        return set(used)

    def before(self, table: bytes, key: bytes) -> tuple[int, bytes | None]:
        """The older meta page's transaction, and what its tree has under a key."""
        meta = self.older
        tree: Tree | None = meta.main
        if table:
            root = self._find(meta, meta.main, table)
            tree = _sub_tree(root) if root is not None else None
        found = self._find(meta, tree, key) if tree is not None else None
        return meta.transaction, found

    def _find(self, meta: Meta, tree: Tree, key: bytes) -> bytes | None:
        page = tree.root
        for depth in range(1, tree.depth + 1):
            nodes = _Walk(self, tree, meta.last_page, []).page(page, depth)
            if depth == tree.depth:
                return next((value for found, value, _ in nodes if found == key), None)
            fitting = [child for first, child, _ in nodes if first <= key]
            page = _U64.unpack(fitting[-1])[0]
        return None

    def _page_size(self) -> int:
        need = _PAGE.size + _META.size + _TREE.size
        if len(self.data) < need:
            raise Damaged(len(self.data), "the file ends within its first page")
        (size,) = struct.unpack_from("<I", self.data, _PAGE.size + _META.size)
        if not MIN_PAGE <= size <= MAX_PAGE or size & (size - 1):
            raise Damaged(_PAGE.size + _META.size, f"a page size of {size}")
        if len(self.data) < 2 * size:
            raise Damaged(len(self.data), "a meta page is missing")
        return int(size)

    def _meta(self, number: int) -> Meta:
        base = number * self.page_size
        page, _, flags, _, _ = _PAGE.unpack_from(self.data, base)
        magic, version, _, _ = _META.unpack_from(self.data, base + _PAGE.size)
        if page != number or flags != META:
            raise Damaged(base, "not a meta page")
        if magic != MAGIC or version != VERSION:
            raise Damaged(base, "not LMDB's magic and version")
        at = base + _PAGE.size + _META.size
        free = Tree(*_TREE.unpack_from(self.data, at))
        main = Tree(*_TREE.unpack_from(self.data, at + _TREE.size))
        last_page, transaction = _TAIL.unpack_from(self.data, at + 2 * _TREE.size)
        if free.pad != self.page_size or free.flags & ~NO_SUBDIR != INTEGER_KEYS or main.flags != 0:
            raise Damaged(at, "the trees are of another kind")
        if transaction != 0 and transaction % 2 != number:
            raise Damaged(at, "a meta page in the wrong place")
        if transaction != 0 and not 1 <= last_page < len(self.data) // self.page_size:
            raise Damaged(at + 2 * _TREE.size, f"the file ends before page {last_page}")
        return Meta(free, main, last_page, transaction)


def unused(data: bytes) -> list[tuple[int, int]]:
    """Where in a file (begin, end; bytes) nothing lies that one of the latest two transactions
    holds: pages on the free list, space within pages, and what follows the last page.

    Raises:
        Damaged
    """
    pages = Pages(data)
    size, found = pages.page_size, list[tuple[int, int]]()
    used = pages.in_use(found)
    last = max(pages.newer.last_page, pages.older.last_page)
    found += [(page * size, (page + 1) * size) for page in range(last + 1) if page not in used]
    return [*found, ((last + 1) * size, len(data))]


Node = tuple[bytes, bytes, int]
"""Key, value (of a branch page: the child's page number) and flags."""


class _Walk:
    """One tree, in key order; the pages that it has are added to ``used``."""

    def __init__(self, pages: Pages, tree: Tree, last_page: int, used: list[int]) -> None:
        self.data = pages.data
        self.page_size = pages.page_size
        self.tree = tree
        self.last_page = last_page
        self.used = used
        self.counts = {BRANCH: 0, LEAF: 0, OVERFLOW: 0}
        self.gaps: list[tuple[int, int]] = []

    def nodes(self) -> list[Node]:
        """The nodes of all leaf pages."""
        tree = self.tree
        found: list[Node] = []
        if tree.root != NO_PAGE:
            self._descend(tree.root, 1, found)
        keys = self._ordered(found)
        if not all(a < b for a, b in pairwise(keys)):
            raise Damaged(0, "a tree's keys do not ascend")
        counted = (self.counts[BRANCH], self.counts[LEAF], self.counts[OVERFLOW], len(keys))
        if counted != tree[3:7]:
            raise Damaged(
                0, f"a tree of {tree[3:7]} (branch, leaf, overflow pages, entries) has {counted}"
            )
        return found

    def _ordered(self, nodes: list[Node]) -> list[bytes]:
        """Keys as they are compared: of the free list, little-endian numbers."""
        if self.tree.flags & INTEGER_KEYS:
            return [key[::-1] for key, _, _ in nodes]
        return [key for key, _, _ in nodes]

    def _descend(self, number: int, depth: int, found: list[Node]) -> None:
        nodes = self.page(number, depth)
        self.used.append(number)
        if len(self.used) > self.last_page + 1:
            raise Damaged(number * self.page_size, "the tree runs in a circle")
        if depth == self.tree.depth:
            self.counts[LEAF] += 1
            found.extend(nodes)
            return
        self.counts[BRANCH] += 1
        for index, (key, child, _) in enumerate(nodes):
            before = len(found)
            self._descend(_U64.unpack(child)[0], depth + 1, found)
            if len(found) == before:
                raise Damaged(number * self.page_size, "a page without entries")
            if index > 0:
                # All but the first key part the pages they stand between.
                parts = self._ordered([found[before - 1], (key, b"", 0), found[before]])
                if not parts[0] < parts[1] <= parts[2]:
                    raise Damaged(
                        number * self.page_size, "a key does not part the pages beside it"
                    )

    def page(self, number: int, depth: int) -> list[Node]:
        """The nodes of one page of the tree."""
        data, size, tree = self.data, self.page_size, self.tree
        base = number * size
        if not 1 < number <= self.last_page:
            raise Damaged(0, f"a tree leads to page {number}")
        said, _, flags, lower, upper = _PAGE.unpack_from(data, base)
        leaf = depth == tree.depth
        if said != number:
            raise Damaged(base, f"page {number} says it is {said}")
        if flags != (LEAF if leaf else BRANCH) or depth > tree.depth:
            raise Damaged(base, f"page {number} is no such page of a tree")
        if not _PAGE.size < lower <= upper <= size or lower % 2:
            raise Damaged(base, f"page {number} overflows")
        self.gaps.append((base + lower, base + upper))
        count = (lower - _PAGE.size) // 2
        pointers = struct.unpack_from(f"<{count}H", data, base + _PAGE.size)
        if min(pointers) < upper or max(pointers) > size - _NODE.size:
            raise Damaged(base, f"a node outside of page {number}")
        starts = [base + pointer for pointer in pointers]
        return list(self._leaf(base, starts) if leaf else self._branch(base, starts))

    def _branch(self, base: int, starts: list[int]) -> Iterator[Node]:
        data, end = self.data, base + self.page_size
        for start in starts:
            low, high, top, key_size = _NODE.unpack_from(data, start)
            key = start + _NODE.size
            if key + key_size > end:
                raise Damaged(start, "a key leaves its page")
            # The first key of a page is below all others, whatever it says.
            name = data[key : key + key_size] if start != starts[0] else b""
            yield name, _U64.pack(low | high << 16 | top << 32), 0

    def _leaf(self, base: int, starts: list[int]) -> Iterator[Node]:
        data, end, node, node_size = self.data, base + self.page_size, _NODE, _NODE.size
        for start in starts:
            low, high, flags, key_size = node.unpack_from(data, start)
            value = start + node_size + key_size
            length = low | high << 16
            if value + (8 if flags == BIG_DATA else length) > end:
                raise Damaged(start, "a key or value leaves its page")
            key = data[start + node_size : value]
            if flags == BIG_DATA:
                (number,) = _U64.unpack_from(data, value)
                yield key, self._overflow(number, length), flags
            elif flags in (0, SUB_TREE):
                yield key, data[value : value + length], flags
            else:
                raise Damaged(start, "a node of another kind")

    def _overflow(self, number: int, length: int) -> bytes:
        data, size = self.data, self.page_size
        if not 1 < number <= self.last_page:
            raise Damaged(0, f"a value leads to page {number}")
        base = number * size
        said, _, flags = struct.unpack_from("<QHH", data, base)
        (count,) = struct.unpack_from("<I", data, base + 12)
        fits = number + count <= self.last_page + 1 and _PAGE.size + length <= count * size
        if said != number or flags != OVERFLOW or not fits:
            raise Damaged(base, "a value's pages are damaged")
        self.used.extend(range(number, number + count))
        self.counts[OVERFLOW] += count
        self.gaps.append((base + _PAGE.size + length, base + count * size))
        return data[base + _PAGE.size : base + _PAGE.size + length]


def _sub_tree(value: bytes) -> Tree:
    """A named table's tree, as it stands in the unnamed one."""
    if len(value) != _TREE.size:
        raise Damaged(0, "a table's root is damaged")
    tree = Tree(*_TREE.unpack(value))
    if tree.flags != 0:
        raise Damaged(0, "a table of another kind")
    return tree


def _free_list(value: bytes) -> tuple[int, ...]:
    count = int.from_bytes(value[:8], "little")
    if len(value) < 8 * (count + 1):
        raise Damaged(0, "a free list is too short")
    return struct.unpack_from(f"<{count}Q", value, 8)
