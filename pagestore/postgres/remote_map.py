"""The remote map: what of a laid data directory is still on the page server, or not even a file.

One file that the shim maps into memory; docs/formats/remote-map.md has its layout. Every
relation fork gets a run of bits, one a block, that begins on a byte, and a bit that says
whether its file is made. Hot pages travel in the map itself. Written once, before the server
starts; from then on the shim only clears bits.

A *relation table* is an array of RELATION, a row a relation fork, as a base backup lists them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagestore._native import crc32c
from pagestore.pgformat.layout import PAGE_SIZE

FILE_NAME = "pagestore.map"
MAGIC = b"PSMAP002"
VERSION = 2
HEADER = struct.Struct("<8sIIQQQIIQQ")
_CRC_OFFSET = 40
RELATION = np.dtype(
    [("spc", "<u4"), ("db", "<u4"), ("rel", "<u4"), ("fork", "<u4"), ("nblocks", "<u4")]
)
ENTRY = np.dtype([*RELATION.descr, ("zero", "<u4"), ("first_bit", "<u8")])
HOT = np.dtype([("entry", "<u4"), ("block", "<u4")])
_NAME = ("spc", "db", "rel", "fork")
_ALIGNMENT = 4096

Fork = tuple[int, int, int, int]
"""(spc, db, rel, fork)."""
Table = NDArray[Any]


class HotPage(NamedTuple):
    fork: Fork
    block: int
    page: bytes


def table_of(lengths: dict[Fork, int]) -> Table:
    """The relation table, in order, of so many blocks a fork."""
    rows = [(*fork, lengths[fork]) for fork in sorted(lengths)]
    return np.array(rows, dtype=RELATION)


def names(table: Table) -> NDArray[np.bytes_]:
    """A row's (spc, db, rel, fork) as 16 bytes that sort as it does."""
    columns = np.empty((len(table), len(_NAME)), dtype=">u4")
    for position, name in enumerate(_NAME):
        columns[:, position] = table[name]
    return columns.reshape(-1).view("S16")


def find(ordered: NDArray[np.bytes_], fork: Fork) -> int | None:
    """The row of a fork among the names of a table."""
    wanted = struct.pack(">4I", *fork).rstrip(b"\0")
    row = int(np.searchsorted(ordered, np.bytes_(wanted)))
    return row if row < len(ordered) and ordered[row] == wanted else None


def build(table: Table, hot: Sequence[HotPage] = (), *, laid: bool = False) -> bytes:
    """The file's bytes.

    Args:
        table: every relation fork whose content is remote, ascending.
        hot: pages of blocks of them.
        laid: whether the files are there.
    """
    count = len(table)
    index = np.zeros(count, dtype=ENTRY)
    for name in RELATION.names or ():
        index[name] = table[name]
    nblocks = table["nblocks"].astype(np.uint64)
    nbytes = (nblocks + np.uint64(7)) // np.uint64(8)
    starts = np.zeros(count, dtype=np.uint64)
    np.cumsum(nbytes[:-1], out=starts[1:])
    index["first_bit"] = starts * np.uint64(8)
    bits = np.full(int(nbytes.sum()), 0xFF, dtype=np.uint8)
    tail = nblocks % np.uint64(8)
    ragged = tail != 0
    last = (starts + nbytes - np.uint64(1))[ragged]
    bits[last] = (np.uint64(1) << tail[ragged]) - np.uint64(1)
    missing = (
        bytes(-(-count // 8)) if laid else np.packbits(np.ones(count, bool), bitorder="little")
    )
    hot_index, hot_pages = _hot(table, hot)
    return _assemble(index.tobytes(), hot_index, bytes(missing), bits.tobytes(), hot_pages)


def _hot(table: Table, hot: Sequence[HotPage]) -> tuple[bytes, list[bytes]]:
    ordered = names(table) if hot else np.array([], dtype="S16")
    rows: dict[Fork, int] = {}
    for fork in {item.fork for item in hot}:
        row = find(ordered, fork)
        assert row is not None, "hot pages are of listed relations"
        rows[fork] = row
    placed = sorted((rows[item.fork], item.block, item.page) for item in hot)
    index = np.array([(row, block) for row, block, _ in placed], dtype=HOT)
    return index.tobytes(), [page for _, _, page in placed]


def _assemble(
    index: bytes, hot_index: bytes, missing: bytes, bits: bytes, hot_pages: list[bytes]
) -> bytes:
    missing_offset = HEADER.size + len(index) + len(hot_index)
    bits_offset = _aligned(missing_offset + len(missing))
    hot_offset = _aligned(bits_offset + len(bits))
    file_length = hot_offset + len(hot_pages) * PAGE_SIZE
    header = HEADER.pack(
        *(MAGIC, VERSION, len(index) // ENTRY.itemsize),
        *(bits_offset, len(bits), file_length, 0),
        *(len(hot_pages), hot_offset, missing_offset),
    )
    head = bytearray(header + index + hot_index)
    struct.pack_into("<I", head, _CRC_OFFSET, crc32c(bytes(head)))
    parts = [(bytes(head) + missing).ljust(bits_offset, b"\0")]
    return b"".join([*parts, bits.ljust(hot_offset - bits_offset, b"\0"), *hot_pages])


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
