"""A compute's remote map, and the small file beside each LMDB file that says how far that was."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pagestore._native import crc32c
from pagestore.inspection.inspected import Inspected
from pagestore.inspection.keys import fork_name
from pagestore.lmdbfile import witness
from pagestore.postgres import remote_map

_CRC = slice(40, 44)
_ENTRY_BYTES = remote_map.ENTRY.itemsize
_HOT_BYTES = remote_map.HOT.itemsize


def inspect_remote_map(path: Path, raw: bytes, limit: int) -> Inspected:
    del path
    found = Inspected("remote map of a compute")
    if len(raw) < remote_map.HEADER.size:
        found.damage.append(f"{len(raw)} bytes are too few for a header")
        return found
    _, version, count, bits_at, bits, length, crc, hot, _, _ = remote_map.HEADER.unpack_from(raw)
    end = remote_map.HEADER.size + count * _ENTRY_BYTES + hot * _HOT_BYTES
    checked = raw[: _CRC.start] + bytes(4) + raw[_CRC.stop : end]
    if crc32c(checked) != crc:
        found.damage.append("offset 40: the checksum of the index is wrong")
    if length != len(raw):
        found.damage.append(f"it has {len(raw)} bytes, and says {length}")
    remote = int.from_bytes(raw[bits_at : bits_at + bits], "little").bit_count()
    found.facts = {"format": version, "forks": count, "hot_pages": hot, "remote_blocks": remote}
    found.columns = ("fork", "blocks")
    room = max(0, (len(raw) - remote_map.HEADER.size) // _ENTRY_BYTES)
    shown = min(count, limit, room)
    index = np.frombuffer(raw, remote_map.ENTRY, shown, remote_map.HEADER.size)
    found.rows = [
        (f"{spc}/{db}/{rel} {fork_name(fork)}", str(blocks))
        for spc, db, rel, fork, blocks, *_ in index.tolist()
    ]
    found.count = count
    return found


def inspect_generation(path: Path, raw: bytes, limit: int) -> Inspected:
    del path, limit
    found = Inspected("generation of an LMDB file")
    seen = witness.decode(raw)
    if seen is None:
        found.damage.append("its checksum does not hold; it is written anew at the next start")
        return found
    found.facts = {"store": seen.store_id.hex(), "transaction": seen.transaction}
    return found
