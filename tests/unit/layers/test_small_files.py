"""A small file is held whole with its index; what holds it counts, and lets it go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore import _native, keyspace
from pagestore.keyspace import ValueKind

from .model import ALL_LSNS, TENANT, TIMELINE, batch_of, page

KEYS = [keyspace.rel_block(1663, 5, 7, 0, block).pack() for block in range(100)]


def flushed(path: Path, number: int, kind: int, payload: bytes) -> _native.Layer:
    layer = _native.OpenLayer()
    layer.put(batch_of([(key, 10 + i, kind, 0, payload) for i, key in enumerate(KEYS)]))
    summary = layer.flush(path, TENANT, TIMELINE, number)
    return _native.Layer(path, TENANT, TIMELINE, number, summary)


@pytest.fixture(autouse=True)
def no_cached_blocks() -> Iterator[None]:
    _native.set_store_limits(block_cache_bytes=0)
    yield
    _native.set_store_limits()


def read_all(snapshot: _native.Snapshot) -> list[bytes]:
    return [snapshot.chain(key, ALL_LSNS)[0][3] for key in KEYS]


def spoil(path: Path) -> None:
    """All blocks; a file that nobody holds is then refused."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(112)
        file.write(os.urandom(size // 2))


def test_a_small_file_is_read_once(tmp_path: Path) -> None:
    snapshot = _native.Snapshot([flushed(tmp_path / "1", 1, ValueKind.RECORD, b"r" * 100)])
    before = _native.store_stats()["index_bytes"]
    values = read_all(snapshot)
    # What it holds is no secret: a hundred values of 136 bytes, at least.
    assert _native.store_stats()["index_bytes"] - before > 13_600
    spoil(tmp_path / "1")
    assert read_all(snapshot) == values
    del snapshot
    assert _native.store_stats()["index_bytes"] == before


def test_it_is_let_go_for_others_and_checked_when_it_is_read_again(tmp_path: Path) -> None:
    layer = flushed(tmp_path / "1", 1, ValueKind.RECORD, b"r" * 100)
    snapshot = _native.Snapshot([layer])
    read_all(snapshot)
    spoil(tmp_path / "1")
    with pytest.raises(_native.NativeError, match="checksum"):
        layer.verify()
    _native.set_store_limits(block_cache_bytes=0, index_bytes=0)
    with pytest.raises(_native.NativeError, match="checksum"):
        read_all(snapshot)


def test_no_more_is_held_than_half_of_what_indexes_may_take(tmp_path: Path) -> None:
    limit = 256 << 10
    _native.set_store_limits(block_cache_bytes=0, index_bytes=limit)
    for number in range(1, 41):
        layer = flushed(tmp_path / f"{number}", number, ValueKind.RECORD, b"r" * 100)
        read_all(_native.Snapshot([layer]))
    layers = [flushed(tmp_path / f"{n}", n, ValueKind.RECORD, b"r" * 100) for n in range(50, 90)]
    snapshot = _native.Snapshot(layers)
    for _ in range(2):
        assert len(snapshot.chain(KEYS[0], ALL_LSNS)) == 40
        assert _native.store_stats()["index_bytes"] < 3 * limit // 4


def test_a_larger_file_is_read_block_by_block(tmp_path: Path) -> None:
    large = flushed(tmp_path / "1", 1, ValueKind.IMAGE, os.urandom(8192))
    snapshot = _native.Snapshot([large])
    before = _native.store_stats()["index_bytes"]
    snapshot.chain(KEYS[0], ALL_LSNS)
    assert _native.store_stats()["index_bytes"] - before < 16_000
    # A thousand times the same compresses to little, and would take much memory.
    del snapshot, large
    dense = flushed(tmp_path / "2", 2, ValueKind.IMAGE, page(7))
    assert dense.summary.bytes < 32 << 10
    snapshot = _native.Snapshot([dense])
    snapshot.chain(KEYS[0], ALL_LSNS)
    assert _native.store_stats()["index_bytes"] - before < 16_000
