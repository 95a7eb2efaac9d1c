"""Layer files (docs/formats/layer.md): their frame, checked piece by piece, and their values.

The core refuses a file whole at the first thing that does not hold. Here each block is looked at by
itself, so that it can be said which keys a damaged one has: those from the one before it on, up to
the index's last key of it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pagestore._native import Layer, LayerSummary, crc32c
from pagestore.errors import PagestoreError
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.inspection.inspected import Inspected
from pagestore.inspection.keys import kind_of_value, named
from pagestore.layers.native import LayerKind, store_errors

MAGIC = b"PSLAYER\n"
_HEADER = struct.Struct("<8sHBBI16s16sQQQ18s18sI")
_FOOTER = struct.Struct("<QIIQIIQQII8s")
_BLOCK = struct.Struct("<18sHQQII")
_CRC = struct.Struct("<I")
_CODECS = {0: "raw", 1: "zstd", 2: "LZ4"}


class Block(NamedTuple):
    """One of an index. The key and LSN are those of its last value."""

    last_key: bytes
    codec: int
    last_lsn: int
    offset: int
    stored: int
    raw: int


class Frame(NamedTuple):
    """What stands around the values of a file."""

    summary: LayerSummary
    tenant: TenantId
    timeline: TimelineId
    number: int
    blocks: list[Block]


def inspect(path: Path, raw: bytes, limit: int) -> Inspected:
    found = Inspected("layer file")
    frame = _frame(raw, found)
    if frame is None:
        return found
    _check_blocks(raw, frame, found)
    if not found.damage:
        found.columns = ("key", "LSN", "value", "bytes")
        found.count = frame.summary.entries
        try:
            found.rows = list(_values(path, frame, limit))
        except PagestoreError as error:
            found.damage.append(error.message)
    return found


def _frame(raw: bytes, found: Inspected) -> Frame | None:
    if len(raw) < _HEADER.size + _FOOTER.size:
        found.damage.append(f"{len(raw)} bytes are too few for a header and a footer")
        return None
    _, version, kind, _, _, tenant, timeline, number, first, last, least, greatest, crc = (
        _HEADER.unpack_from(raw)
    )
    if crc != crc32c(raw[: _HEADER.size - _CRC.size]):
        found.damage.append("offset 0: the header's checksum is wrong")
    found.facts |= {
        "layer_kind": LayerKind(kind).name.lower() if kind in list(LayerKind) else kind,
        "format": version,
        "tenant": tenant.hex(),
        "timeline": timeline.hex(),
        "number": number,
        "first_lsn": format_lsn(first),
        "last_lsn": format_lsn(last),
        "least_key": named(least),
        "greatest_key": named(greatest),
        "bytes": len(raw),
    }
    seed = crc32c(tenant + timeline + struct.pack("<Q", number))
    index = _index(raw, seed, found)
    if index is None:
        return None
    blocks, values, keys = index
    summary = LayerSummary((kind, least, greatest, first, last, values, keys, len(raw)))
    return Frame(summary, TenantId(tenant), TimelineId(timeline), number, blocks)


def _index(raw: bytes, seed: int, found: Inspected) -> tuple[list[Block], int, int] | None:
    at = len(raw) - _FOOTER.size
    index_at, count, index_crc, filter_at, filter_size, filter_crc, values, keys, _, crc, end = (
        _FOOTER.unpack_from(raw, at)
    )
    footer = raw[at:]
    if end != b"PSLAYEND" or crc != crc32c(footer[56:], crc32c(footer[:52], seed)):
        found.damage.append(f"offset {at}: the footer's checksum is wrong; the file may be cut off")
        return None
    index = raw[index_at : index_at + count * _BLOCK.size]
    if len(index) != count * _BLOCK.size or index_crc != crc32c(index, seed):
        found.damage.append(f"offset {index_at}: the index's checksum is wrong")
        return None
    if filter_crc != crc32c(raw[filter_at : filter_at + filter_size], seed):
        found.damage.append(f"offset {filter_at}: the filter's checksum is wrong")
    blocks = [Block(*fields) for fields in _BLOCK.iter_unpack(index)]
    codecs = Counter(_CODECS.get(block.codec, str(block.codec)) for block in blocks)
    found.facts |= {
        "values": values,
        "keys": keys,
        "blocks": count,
        "codecs": ", ".join(f"{many} {codec}" for codec, many in sorted(codecs.items())),
        "raw_bytes": sum(block.raw for block in blocks),
        "filter_bytes": filter_size,
    }
    return blocks, values, keys


def _check_blocks(raw: bytes, frame: Frame, found: Inspected) -> None:
    seed = crc32c(frame.tenant.raw + frame.timeline.raw + struct.pack("<Q", frame.number))
    after = frame.summary.min_key
    for block in frame.blocks:
        stored = raw[block.offset : block.offset + block.stored]
        end = block.offset + block.stored
        of_block = crc32c(struct.pack("<Q", block.offset), seed)
        if raw[end : end + _CRC.size] != _CRC.pack(crc32c(stored, of_block)):
            found.damage.append(
                f"offset {block.offset}: the checksum of a block is wrong, which has "
                f"{named(after)} to {named(block.last_key)}"
            )
        after = block.last_key


def _values(path: Path, frame: Frame, limit: int) -> Iterator[tuple[str, ...]]:
    """The first of a file's, by key, then newest first."""
    with store_errors():
        layer = Layer(path, frame.tenant.raw, frame.timeline.raw, frame.number, frame.summary)
        for key, lsn, kind, _, length in layer.heads(limit):
            yield named(key), format_lsn(lsn), kind_of_value(kind), str(length)
