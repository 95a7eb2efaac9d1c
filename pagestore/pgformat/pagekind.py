"""Which access method a page belongs to, told from the page itself.

Every index method ends its pages with a special space of its own, and most put a page id into
its last two bytes so that tools can tell them apart; those are the marks read here. So pages
can be masked (:mod:`pagestore.pgformat.bufmask`) without asking a catalog, at an LSN where the
relation's own row may not be visible yet. Postgres checks none of this: a damaged page may look
like one of another kind, and is then compared under that kind's mask, which hides no more than
hint bits and unused space either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pagestore.pgformat.bufmask import PAGE_SIZE, PageKind, Pages, mask_pages

_FSM, VISIBILITY_MAP = 1, 2
_SPECIAL = 16
_SEQUENCE_MAGIC = 0x1717
_HASH_ID, _GIST_ID, _SPGIST_ID, _BLOOM_ID = 0xFF80, 0xFF81, 0xFF82, 0xFF83
_BRIN_TYPES = (0xF091, 0xF092, 0xF093)
_LSN_BYTES = 8


def kind_of(page: bytes, fork: int, block: int) -> PageKind:
    """How a page is to be masked."""
    if fork in (_FSM, VISIBILITY_MAP):
        return PageKind.MAP
    special = int.from_bytes(page[_SPECIAL : _SPECIAL + 2], "little")
    size = PAGE_SIZE - special
    mark = int.from_bytes(page[-2:], "little")
    if size == 16:
        return {_HASH_ID: PageKind.HASH, _GIST_ID: PageKind.GIST}.get(mark, PageKind.BTREE)
    if size == 8:
        return _small_special(page, mark, block)
    return PageKind.HEAP


def _small_special(page: bytes, mark: int, block: int) -> PageKind:
    if mark in _BRIN_TYPES:
        return PageKind.BRIN
    if mark in (_SPGIST_ID, _BLOOM_ID):
        return PageKind.SPGIST if mark == _SPGIST_ID else PageKind.GENERIC
    # A sequence is one page; block 0 of a GIN index is its metapage, without a right link.
    if block == 0 and int.from_bytes(page[-8:-4], "little") == _SEQUENCE_MAGIC:
        return PageKind.SEQUENCE
    return PageKind.GIN


def differing(
    ours: bytes, theirs: bytes, fork: int, blocks: npt.NDArray[np.int64], *, lsns: bool = True
) -> list[tuple[int, str]]:
    """The blocks that differ after masking, each with the first offsets that do.

    Args:
        lsns: whether page LSNs must be equal too.
    """
    forks = [fork] * len(blocks)
    rows = differing_rows(ours, theirs, forks, blocks, lsns=lsns)
    return [(int(blocks[row]), what) for row, what in rows]


def differing_rows(
    ours: bytes,
    theirs: bytes,
    forks: Sequence[int],
    blocks: npt.NDArray[np.int64],
    *,
    lsns: bool = True,
) -> list[tuple[int, str]]:
    """As :func:`differing`, of pages each with its own fork and block; by place in the arrays."""
    mine, other = _pages(ours), _pages(theirs)
    # Of each side by its own mark: where these are not the same, the marks differ.
    groups: dict[tuple[PageKind, PageKind], list[int]] = {}
    for row in np.flatnonzero((mine != other).any(axis=1)).tolist():
        block = int(blocks[row])
        kinds = [kind_of(side[row].tobytes(), forks[row], block) for side in (mine, other)]
        groups.setdefault((kinds[0], kinds[1]), []).append(row)
    found = []
    for (kind, other_kind), rows in groups.items():
        one = mask_pages(mine[rows], kind, blocks[rows])
        two = mask_pages(other[rows], other_kind, blocks[rows])
        unequal = one != two
        for index in np.flatnonzero(unequal.any(axis=1)).tolist():
            offsets = np.flatnonzero(unequal[index])
            listed = ", ".join(map(str, offsets[:6].tolist()))
            found.append((rows[index], f"{other_kind} page, {len(offsets)} bytes from {listed}"))
        moved = (mine[rows, :_LSN_BYTES] != other[rows, :_LSN_BYTES]).any(axis=1)
        for index in np.flatnonzero(moved & ~unequal.any(axis=1)).tolist() if lsns else ():
            row = rows[index]
            what = f"{other_kind} page, LSN {_lsn(mine[row])} for {_lsn(other[row])}"
            found.append((row, what))
    return sorted(found)


def _pages(side: bytes) -> Pages:
    return np.frombuffer(side, np.uint8).reshape(-1, PAGE_SIZE)


def _lsn(page: npt.NDArray[np.uint8]) -> str:
    high, low = page[:_LSN_BYTES].copy().view("<u4")
    return f"{high:X}/{low:X}"
