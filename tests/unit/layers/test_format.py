"""Layer files against their description: docs/formats/layer.md and a reader made from it."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from pagestore import _native, keyspace
from pagestore.keyspace import PAGE_SIZE, ValueKind

from .model import ALL_LSNS, TENANT, TIMELINE, Entry, batch_of
from .reference import filter_has, read_layer

DOCUMENT = Path(__file__).parents[3] / "docs" / "formats" / "layer.md"
VERSION_1 = Path(__file__).parent / "version_1.delta"
EXAMPLE_KEY = keyspace.Key(0x20, 0x10111213, 0x14151617, 0x18191A1B, 0x1C, 0x1D1E1F21)


def example(path: Path) -> bytes:
    """The file that the document shows: one record, too short to be compressed."""
    layer = _native.OpenLayer()
    payload = bytes.fromhex("a1b2c3d4e5f60718293a4b5c6d7e8f90")
    layer.put(batch_of([(EXAMPLE_KEY.pack(), 0x1020304, ValueKind.RECORD, 1, payload)]))
    layer.flush(path, TENANT, TIMELINE, 7)
    return path.read_bytes()


def test_the_document_shows_what_is_written(tmp_path: Path) -> None:
    shown = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ?)+)", DOCUMENT.read_text(), re.MULTILINE)
    assert [int(offset, 16) for offset, _ in shown] == list(range(0, 16 * len(shown), 16))
    assert bytes.fromhex("".join(text for _, text in shown)) == example(tmp_path / "example")


def test_the_reference_reads_the_example(tmp_path: Path) -> None:
    layer = read_layer(example(tmp_path / "example"))
    assert layer.kind == 1
    assert layer.identity == (TENANT, TIMELINE, 7)
    assert layer.lsns == (0x1020304, 0x1020304)
    assert layer.keys == (EXAMPLE_KEY.pack(), EXAMPLE_KEY.pack())
    (_, _, offset, stored, raw) = layer.blocks[0]
    assert (offset, stored, raw) == (112, 56, 56)


def many_entries() -> list[Entry]:
    rng = random.Random(3)
    entries: list[Entry] = []
    for lsn in range(1, 400):
        key = keyspace.rel_block(1663, 5, rng.randrange(3), 0, rng.randrange(20)).pack()
        if rng.random() < 0.2:
            page = (rng.randbytes(64) * 128)[:PAGE_SIZE]
            entries.append((key, lsn, ValueKind.IMAGE, 0, page))
        else:
            payload = rng.randbytes(rng.choice([0, 30, 400, 20000]))
            entries.append((key, lsn, ValueKind.RECORD, rng.randrange(2), payload))
    return entries


@pytest.mark.parametrize(("level", "codec"), [(0, 2), (1, 1), (-3, 1)])
def test_the_reference_reads_what_is_written(tmp_path: Path, level: int, codec: int) -> None:
    layer = _native.OpenLayer()
    entries = many_entries()
    layer.put(batch_of(entries))
    summary = layer.flush(tmp_path / "file", TENANT, TIMELINE, 9, level=level)
    found = read_layer((tmp_path / "file").read_bytes())
    assert set(found.codecs) == {0, codec}
    assert found.values == sorted(entries, key=lambda entry: (entry[0], -entry[1]))
    assert summary.entries == len(entries)
    assert summary.bytes == (tmp_path / "file").stat().st_size
    assert any(stored < raw for *_, stored, raw in found.blocks)
    assert any(stored == raw for *_, stored, raw in found.blocks)
    assert all(filter_has(found.filter, key) for key, *_ in entries)
    absent = [keyspace.rel_block(1663, 6, 1, 0, i).pack() for i in range(2000)]
    assert sum(filter_has(found.filter, key) for key in absent) < 60


def snapshot_of(path: Path, raw: bytes, entries: int) -> _native.Snapshot:
    """The file with these bytes, under the name, place and LSN of the example."""
    path.write_bytes(raw)
    key = EXAMPLE_KEY.pack()
    summary = _native.LayerSummary((1, key, key, 0x1020304, 0x1020304, entries, 1, len(raw)))
    return _native.Snapshot([_native.Layer(path, TENANT, TIMELINE, 7, summary)])


def test_a_layer_of_format_version_1_is_read(tmp_path: Path) -> None:
    """Written before there were codecs: a block that is raw, and one that zstd made smaller."""
    raw = VERSION_1.read_bytes()
    reference = read_layer(raw)
    assert raw[8] == 1
    assert reference.codecs == [0, 1]
    chain = snapshot_of(tmp_path / "old", raw, 2).chain(EXAMPLE_KEY.pack(), ALL_LSNS)
    assert [payload for *_, payload in chain] == [random.Random(1).randbytes(8192), b"zeros" * 2000]


def with_crc(header: bytes) -> bytes:
    return header[:108] + _native.crc32c(header[:108]).to_bytes(4, "little") + header[112:]


def test_a_later_format_version_is_refused(tmp_path: Path) -> None:
    raw = bytearray(example(tmp_path / "example"))
    raw[8] = 3
    snapshot = snapshot_of(tmp_path / "later", with_crc(bytes(raw)), 1)
    with pytest.raises(_native.NativeError, match="format version 3, not 1 to 2"):
        snapshot.chain(EXAMPLE_KEY.pack(), ALL_LSNS)


@pytest.mark.parametrize("codec", [1, 2, 3, 255])
def test_a_codec_that_cannot_be_is_refused(tmp_path: Path, codec: int) -> None:
    """Of a block stored as it is; with all checksums right."""
    raw = bytearray(example(tmp_path / "example"))
    end = len(raw) - 64
    index_at = int.from_bytes(raw[end : end + 8], "little")
    raw[index_at + 18 : index_at + 20] = codec.to_bytes(2, "little")
    seed = _native.crc32c(TENANT + TIMELINE + (7).to_bytes(8, "little"))
    index_crc = _native.crc32c(bytes(raw[index_at : index_at + 44]), seed)
    raw[end + 12 : end + 16] = index_crc.to_bytes(4, "little")
    footer_crc = _native.crc32c(bytes(raw[end : end + 52]) + b"PSLAYEND", seed)
    raw[end + 52 : end + 56] = footer_crc.to_bytes(4, "little")
    snapshot = snapshot_of(tmp_path / "strange", bytes(raw), 1)
    with pytest.raises(_native.NativeError, match="index entry 0 is impossible"):
        snapshot.chain(EXAMPLE_KEY.pack(), ALL_LSNS)


def test_open_files_and_indexes_stay_within_their_limits(tmp_path: Path) -> None:
    layers = []
    for number in range(1, 41):
        layer = _native.OpenLayer()
        key = keyspace.rel_size(1, 2, number, 0).pack()
        layer.put(batch_of([(key, number, ValueKind.IMAGE, 0, b"size")]))
        path = tmp_path / str(number)
        summary = layer.flush(path, TENANT, TIMELINE, number)
        layers.insert(0, _native.Layer(path, TENANT, TIMELINE, number, summary))
    snapshot = _native.Snapshot(layers)
    try:
        _native.set_store_limits(open_files=5, block_cache_bytes=4096, index_bytes=1000)
        for _ in range(2):
            for number in range(1, 41):
                assert snapshot.get(keyspace.rel_size(1, 2, number, 0).pack(), ALL_LSNS) == b"size"
            stats = _native.store_stats()
            assert stats["open_files"] <= 5
            assert stats["block_bytes"] <= 4096
            assert stats["index_bytes"] <= 1000
        assert len(snapshot.scan(bytes(18), b"\xff" * 18, ALL_LSNS)) == 40  # all at once
        assert _native.store_stats()["index_bytes"] <= 1000
    finally:
        _native.set_store_limits()
