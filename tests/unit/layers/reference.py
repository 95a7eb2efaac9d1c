"""A layer file read by docs/formats/layer.md alone, in plain Python: the reference."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import zstandard

from pagestore.pgformat.crc32c import crc32c

HEADER = struct.Struct("<8sHBBI16s16sQQQ18s18sI")
FOOTER = struct.Struct("<QIIQIIQQII8s")
INDEX_ENTRY = struct.Struct("<18sHQQII")
VALUE_HEADER = struct.Struct("<18sBBQII")
SALTS = (
    0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xD3A2646D, 0xFD7046C5, 0xB55A4F09,
)  # fmt: skip


@dataclass
class ReferenceLayer:
    kind: int
    identity: tuple[bytes, bytes, int]
    lsns: tuple[int, int]
    keys: tuple[bytes, bytes]
    values: list[tuple[bytes, int, int, int, bytes]]
    blocks: list[tuple[bytes, int, int, int, int]]
    codecs: list[int]
    filter: bytes


def mix(h: int) -> int:
    mask = 2**64 - 1
    h ^= h >> 32
    h = h * 0x9E3779B97F4A7C15 & mask
    h ^= h >> 29
    h = h * 0xBF58476D1CE4E5B9 & mask
    return h ^ h >> 32


def key_hash(key: bytes) -> int:
    high, middle, low = struct.unpack(">QQH", key)
    return mix(mix(mix(high) ^ middle) ^ low)


def filter_has(bits: bytes, key: bytes) -> bool:
    hashed = key_hash(key)
    line = (hashed >> 32) * (len(bits) // 32) >> 32
    words = struct.unpack_from("<8I", bits, 32 * line)
    low = hashed & 0xFFFFFFFF
    return all(
        word >> ((low * salt & 0xFFFFFFFF) >> 27) & 1
        for word, salt in zip(words, SALTS, strict=True)
    )


def read_layer(raw: bytes) -> ReferenceLayer:
    magic, version, kind, zero, zeros, *fields, header_crc = HEADER.unpack_from(raw)
    tenant, timeline, number, first_lsn, last_lsn, min_key, max_key = fields
    assert (magic, zero, zeros) == (b"PSLAYER\n", 0, 0)
    assert version in (1, 2)
    assert header_crc == crc32c(raw[:108])
    seed = crc32c(tenant + timeline + struct.pack("<Q", number))

    end = len(raw) - FOOTER.size
    (
        index_at,
        count,
        index_crc,
        filter_at,
        filter_size,
        filter_crc,
        entries,
        keys,
        again,
        crc,
        tail,
    ) = FOOTER.unpack_from(raw, end)
    assert tail == b"PSLAYEND"
    assert crc == crc32c(raw[end : end + 52] + tail, seed)
    assert again == crc32c(raw[:112])
    assert (filter_at, filter_at + filter_size) == (index_at + 44 * count, end)
    assert index_crc == crc32c(raw[index_at:filter_at], seed)
    assert filter_crc == crc32c(raw[filter_at:end], seed)

    values, blocks, codecs, expected = [], [], [], HEADER.size
    for i in range(count):
        key, codec, lsn, offset, stored, size = INDEX_ENTRY.unpack_from(raw, index_at + 44 * i)
        if version == 1:
            assert codec == 0
            codec = int(stored < size)
        assert offset == expected
        block = raw[offset : offset + stored]
        (block_crc,) = struct.unpack_from("<I", raw, offset + stored)
        assert block_crc == crc32c(block, crc32c(struct.pack("<Q", offset), seed))
        expected = offset + stored + 4
        assert (codec == 0) == (stored == size)
        if codec == 1:
            block = zstandard.ZstdDecompressor().decompress(block, size)
        elif codec == 2:
            block = lz4_block(block)
        assert len(block) == size
        codecs.append(codec)
        values += read_block(block)
        blocks.append((key, lsn, offset, stored, size))
        assert (key, lsn) == values[-1][:2]
    assert expected == index_at
    assert (entries, keys) == (len(values), len({value[0] for value in values}))
    return ReferenceLayer(
        kind, (tenant, timeline, number), (first_lsn, last_lsn), (min_key, max_key), values, blocks,
        codecs, raw[filter_at:end],
    )  # fmt: skip


def lz4_block(stored: bytes) -> bytes:
    """An LZ4 block decompressed. Source: LZ4 Block Format Description, lz4.org."""
    made = bytearray()
    at = 0

    def length(nibble: int) -> int:
        nonlocal at
        total = nibble
        if nibble == 15:
            while True:
                at += 1
                total += stored[at - 1]
                if stored[at - 1] != 255:
                    break
        return total

    while True:
        token = stored[at]
        at += 1
        literals = length(token >> 4)
        made += stored[at : at + literals]
        at += literals
        if at == len(stored):
            return bytes(made)
        distance = int.from_bytes(stored[at : at + 2], "little")
        at += 2
        for _ in range(length(token & 15) + 4):
            made.append(made[-distance])


def read_block(block: bytes) -> list[tuple[bytes, int, int, int, bytes]]:
    (count,) = struct.unpack_from("<I", block)
    values = []
    for i in range(count):
        key, kind, flags, lsn, offset, length = VALUE_HEADER.unpack_from(block, 4 + 36 * i)
        values.append((key, lsn, kind, flags, block[offset : offset + length]))
    return values
