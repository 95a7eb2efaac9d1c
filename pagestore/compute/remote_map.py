"""The remote map: which blocks of a laid data directory are still on the page server.

One file that the shim maps into memory; docs/formats/remote-map.md has its layout. Every
relation fork with at least one block gets a run of bits that begins on a byte. Written
once, before the server starts; from then on the shim only clears bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import numpy as np

from pagestore._native import crc32c

FILE_NAME = "pagestore.map"
MAGIC = b"PSMAP001"
VERSION = 1
HEADER = struct.Struct("<8sIIQQQI20x")
_CRC_OFFSET = 40
ENTRY = np.dtype(
    [
        ("spc", "<u4"),
        ("db", "<u4"),
        ("rel", "<u4"),
        ("fork", "<u4"),
        ("nblocks", "<u4"),
        ("zero", "<u4"),
        ("first_bit", "<u8"),
    ]
)
_ALIGNMENT = 4096

Fork = tuple[int, int, int, int]
"""(spc, db, rel, fork)."""


def build(lengths: Mapping[Fork, int], local: Mapping[Fork, Iterable[int]]) -> bytes:
    """The file's bytes.

    Args:
        lengths: blocks of every relation fork whose content is remote.
        local: blocks, of those, that were already written to the local files.
    """
    forks = sorted(fork for fork, length in lengths.items() if length)
    index = np.zeros(len(forks), dtype=ENTRY)
    if forks:
        columns = np.array(forks, dtype=np.uint32)
        for position, name in enumerate(("spc", "db", "rel", "fork")):
            index[name] = columns[:, position]
        index["nblocks"] = [lengths[fork] for fork in forks]
    nblocks = index["nblocks"].astype(np.uint64)
    nbytes = (nblocks + np.uint64(7)) // np.uint64(8)
    starts = np.zeros(len(forks), dtype=np.uint64)
    np.cumsum(nbytes[:-1], out=starts[1:])
    index["first_bit"] = starts * np.uint64(8)
    bits = np.full(int(nbytes.sum()), 0xFF, dtype=np.uint8)
    tail = nblocks % np.uint64(8)
    ragged = tail != 0
    last = (starts + nbytes - np.uint64(1))[ragged]
    bits[last] = (np.uint64(1) << tail[ragged]) - np.uint64(1)
    first_byte = dict(zip(forks, starts.tolist(), strict=True))
    for fork, blocks in local.items():
        start = first_byte.get(fork)
        if start is not None:
            for block in blocks:
                bits[start + block // 8] &= ~(1 << block % 8) & 0xFF
    return _assemble(index.tobytes(), len(forks), bits.tobytes())


def _assemble(index: bytes, count: int, bits: bytes) -> bytes:
    bits_offset = -(-(HEADER.size + len(index)) // _ALIGNMENT) * _ALIGNMENT
    file_length = -(-(bits_offset + len(bits)) // _ALIGNMENT) * _ALIGNMENT
    header = HEADER.pack(MAGIC, VERSION, count, bits_offset, len(bits), file_length, 0)
    head = bytearray(header + index)
    struct.pack_into("<I", head, _CRC_OFFSET, crc32c(bytes(head)))
    return bytes(head).ljust(bits_offset, b"\0") + bits.ljust(file_length - bits_offset, b"\0")
