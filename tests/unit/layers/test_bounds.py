"""What a read sees follows from the bounds of sources alone, never from how they are listed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from pagestore import _native, keyspace
from pagestore.keyspace import ValueKind
from pagestore.layers.native import LayerKind

from .model import TENANT, TIMELINE, Entry, batch_of, page

BLOCK = keyspace.rel_block(1663, 5, 1, 0, 0).pack()
OTHER = keyspace.rel_block(1663, 5, 1, 0, 1).pack()
SIZE = keyspace.rel_size(1663, 5, 1, 0).pack()
LOW, HIGH = keyspace.Key(0).pack(), keyspace.Key(0x40).pack()


def record(key: bytes, lsn: int) -> Entry:
    return key, lsn, ValueKind.RECORD, 0, b"record %d" % lsn


def image_layer(folder: Path, number: int, lsn: int, keys: Iterable[bytes]) -> _native.Layer:
    """An image of a page of its LSN's low byte; of a size, of its LSN."""
    path = folder / f"{number}.image"
    writer = _native.LayerWriter(path, TENANT, TIMELINE, number, LayerKind.IMAGE)
    values = {
        key: page(lsn % 256) if key[0] == keyspace.Kind.REL_BLOCK else lsn.to_bytes(4, "little")
        for key in sorted(keys)
    }
    batch = batch_of([(key, lsn, ValueKind.IMAGE, 0, value) for key, value in values.items()])
    assert writer.put(batch) == len(batch)
    return _native.Layer(path, TENANT, TIMELINE, number, writer.finish())


def delta_layer(folder: Path, number: int, entries: list[Entry]) -> _native.Layer:
    layer, path = _native.OpenLayer(), folder / f"{number}.delta"
    layer.put(batch_of(entries))
    summary = layer.flush(path, TENANT, TIMELINE, number)
    return _native.Layer(path, TENANT, TIMELINE, number, summary)


def lsns(snapshot: _native.Snapshot, key: bytes, lsn: int) -> list[int]:
    return [value[0] for value in snapshot.chain(key, lsn)]


@pytest.mark.parametrize("image_first", [True, False])
@pytest.mark.parametrize("delta_in_memory", [True, False])
def test_an_image_beside_a_delta_that_spans_its_lsn_is_read_rightly(
    tmp_path: Path, image_first: bool, delta_in_memory: bool
) -> None:
    """An image at 200, a delta of 100 to 250: whichever was added first."""
    changes = [record(BLOCK, lsn) for lsn in (100, 150, 200, 210, 250)]
    size = (SIZE, 230, ValueKind.IMAGE, 0, b"\xe6\0\0\0")
    entries = sorted([*changes, size], key=lambda entry: entry[1])
    delta: _native.OpenLayer | _native.Layer
    if delta_in_memory:
        delta = _native.OpenLayer()
        delta.put(batch_of(entries))
    else:
        delta = delta_layer(tmp_path, 1, entries)
    image = image_layer(tmp_path, 2, 200, [BLOCK, SIZE])
    layers = [image, delta] if image_first else [delta, image]
    snapshot = _native.Snapshot(layers)
    assert lsns(snapshot, BLOCK, 300) == [250, 210, 200]
    assert snapshot.chain(BLOCK, 300)[-1][1] == ValueKind.IMAGE
    assert lsns(snapshot, BLOCK, 220) == [210, 200]
    assert snapshot.chain(BLOCK, 200) == [(200, ValueKind.IMAGE, 0, page(200))]
    assert lsns(snapshot, BLOCK, 199) == [150, 100]
    assert [snapshot.get(SIZE, lsn) for lsn in (300, 229, 199)] == [
        b"\xe6\0\0\0",
        b"\xc8\0\0\0",
        None,
    ]
    assert snapshot.scan(LOW, HIGH, 300)[0] == (SIZE, b"\xe6\0\0\0")
    assert snapshot.scan(LOW, HIGH, 229)[0] == (SIZE, b"\xc8\0\0\0")


def test_absence_in_an_image_layer_means_nothing(tmp_path: Path) -> None:
    """An image layer covers a range of keys; what it has not is looked for below it."""
    below = delta_layer(tmp_path, 1, [record(OTHER, 100)])
    ends = [BLOCK, keyspace.rel_block(1663, 5, 1, 0, 9).pack()]
    image = image_layer(tmp_path, 2, 200, ends)
    for layers in itertools.permutations([below, image]):
        snapshot = _native.Snapshot(layers)
        assert lsns(snapshot, OTHER, 300) == [100]


def test_a_tombstone_deletes_whatever_lies_below_it(tmp_path: Path) -> None:
    image = image_layer(tmp_path, 1, 100, [SIZE])
    gone = delta_layer(tmp_path, 2, [(SIZE, 150, ValueKind.TOMBSTONE, 0, b"")])
    again = image_layer(tmp_path, 3, 200, [SIZE])
    for layers in itertools.permutations([image, gone, again]):
        snapshot = _native.Snapshot(layers)
        assert [snapshot.get(SIZE, lsn) for lsn in (149, 150, 199)] == [
            b"\x64\0\0\0",
            None,
            None,
        ]
        assert snapshot.get(SIZE, 200) == b"\xc8\0\0\0"
        assert snapshot.scan(LOW, HIGH, 160) == []
        assert snapshot.last_before(LOW, HIGH, 160) is None
