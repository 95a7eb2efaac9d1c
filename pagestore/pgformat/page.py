"""Data page headers and checksums, many pages at a time.

A page's checksum (when the cluster has them) is 16 bits at offset 8: 32 interleaved FNV-1a
sums over the page as little-endian words, with that field as zero, folded together with
the block number. Source: ``storage/checksum_impl.h``. A page of zeros has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pagestore.pgformat.layout import PAGE_SIZE

CHECKSUM_OFFSET = 8
_VALID_FLAGS = 0x0007
_PRIME = np.uint32(16777619)
_SHIFT = np.uint32(17)
_LANES = 32
_BASES = np.array(
    [
        *(0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2),
        *(0x83E13D2C, 0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C),
        *(0xF718902A, 0x0B1C9CDB, 0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979),
        *(0xCCA6C0B2, 0x304A0979, 0x85AA43D4, 0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E),
        *(0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756),
    ],
    dtype=np.uint32,
)

Pages = npt.NDArray[np.uint8]


def as_pages(data: bytes | bytearray | memoryview) -> Pages:
    """A view of shape (n, 8192); writable if ``data`` is."""
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, PAGE_SIZE)


def checksums(pages: Pages, blocks: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """What the checksum field of each page should hold, by block number in the relation.

    Neither the current field nor whether the page is new plays a part.
    """
    words = pages.view("<u4").reshape(len(pages), -1, _LANES)
    sums = np.broadcast_to(_BASES, (len(pages), _LANES)).copy()
    for row in range(words.shape[1]):
        value = words[:, row, :]
        if row == 0:
            value = value.copy()
            value[:, CHECKSUM_OFFSET // 4] &= np.uint32(0xFFFF0000)
        _round(sums, value)
    zero = np.uint32(0)
    _round(sums, zero)
    _round(sums, zero)
    # Dimensions are kept for the types: those of numpy 2.5 know no other form with an axis.
    folded = np.bitwise_xor.reduce(sums, axis=1, keepdims=True)[:, 0] ^ blocks.astype(np.uint32)
    result: npt.NDArray[np.uint16] = (folded % np.uint32(65535) + np.uint32(1)).astype(np.uint16)
    return result


def _round(sums: npt.NDArray[np.uint32], value: npt.NDArray[np.uint32] | np.uint32) -> None:
    mixed = sums ^ value
    np.multiply(mixed, _PRIME, out=sums)
    sums ^= mixed >> _SHIFT


def stored_checksums(pages: Pages) -> npt.NDArray[np.uint16]:
    field = np.ascontiguousarray(pages[:, CHECKSUM_OFFSET : CHECKSUM_OFFSET + 2])
    stored: npt.NDArray[np.uint16] = field.view("<u2")[:, 0]
    return stored


def new_pages(pages: Pages) -> npt.NDArray[np.bool_]:
    """Which pages were never initialised (pd_upper is zero); these carry no checksum."""
    result: npt.NDArray[np.bool_] = pages[:, 14:16].max(axis=1, initial=0) == 0
    return result


def bad_checksums(pages: Pages, first_block: int) -> list[int]:
    """Block numbers, of consecutive blocks, whose checksum does not hold.

    As the server does, an uninitialised page passes only if it is all zeros.
    """
    blocks = np.arange(first_block, first_block + len(pages), dtype=np.uint32)
    new = new_pages(pages)
    bad = checksums(pages, blocks) != stored_checksums(pages)
    bad[new] = pages[new].any(axis=1)
    return [int(block) for block in blocks[bad]]


def with_checksums(pages: Sequence[bytes], blocks: Sequence[int]) -> list[bytes]:
    """The pages with their checksum fields set, as a cluster with checksums writes them."""
    if not pages:
        return []
    array = as_pages(bytearray(b"".join(pages)))
    fresh = ~new_pages(array)
    values = checksums(array, np.array(blocks, dtype=np.uint32))
    field = array[:, CHECKSUM_OFFSET : CHECKSUM_OFFSET + 2]
    field[fresh] = values[fresh].astype("<u2").view(np.uint8).reshape(-1, 2)
    return [row.tobytes() for row in array]


def page_lsns(pages: Pages) -> npt.NDArray[np.uint64]:
    """The LSN in each page's header: two 32-bit halves, the high one first."""
    halves = np.ascontiguousarray(pages[:, :8]).view("<u4").astype(np.uint64)
    return halves[:, 0] << np.uint64(32) | halves[:, 1]


def impossible_headers(pages: Pages) -> list[int]:
    """Which pages the server would refuse: neither all zeros, nor with a header that holds
    together. Source: ``PageIsVerifiedExtended`` in ``storage/page/bufpage.c``."""
    fields = np.ascontiguousarray(pages[:, 10:18]).view("<u2").astype(np.int64)
    flags, lower, upper, special = fields.T
    sane = (
        ((flags & ~_VALID_FLAGS) == 0)
        & (lower <= upper)
        & (upper <= special)
        & (special <= PAGE_SIZE)
        & (special % 8 == 0)
    )
    new = new_pages(pages)
    sane[new] = ~pages[new].any(axis=1)
    return [int(row) for row in np.flatnonzero(~sane)]
