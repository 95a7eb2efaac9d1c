"""A page server's memory: shares add up, and what is not used goes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pagestore import _native, keyspace
from pagestore.keyspace import ValueKind
from pagestore.services.page_memory import DEFAULT_BYTES, LEAST_BYTES, PROGRAM_BYTES, Shares

CHUNK = 2 << 20


@pytest.fixture(autouse=True)
def default_limits() -> Iterator[None]:
    yield
    _native.set_store_limits()
    _native.trim_memory()


@pytest.mark.parametrize("bound", [LEAST_BYTES, DEFAULT_BYTES, 8 << 30])
def test_shares_add_up_to_the_bound(bound: int) -> None:
    shares = Shares.of(bound)
    shared = shares.open_layers + shares.blocks + shares.indexes
    assert shared + shares.responses + PROGRAM_BYTES == bound
    assert min(shares.open_layers, shares.blocks, shares.indexes) >= 4 << 20


def filled(chunks: int) -> _native.OpenLayer:
    layer = _native.OpenLayer()
    batch = _native.Batch()
    key = keyspace.rel_block(1, 2, 3, 0, 4).pack()
    for lsn in range(1, chunks + 1):
        batch.put(key, lsn, ValueKind.RECORD, 0, bytes(CHUNK // 4 - 128))
        batch.put(key, lsn, ValueKind.RECORD, 0, bytes(CHUNK // 4 - 127))
        batch.put(key, lsn, ValueKind.RECORD, 0, bytes(CHUNK // 4 - 126))
    layer.put(batch)
    return layer


def chunk_bytes() -> tuple[int, int]:
    stats = _native.store_stats()
    return stats["used_chunk_bytes"], stats["kept_chunk_bytes"]


def test_what_an_open_layer_held_is_kept_for_the_next_one_only_within_the_limit() -> None:
    _native.trim_memory()
    before, _ = chunk_bytes()
    _native.set_store_limits(chunk_bytes=before + 6 * CHUNK)
    layer = filled(16)
    used, kept = chunk_bytes()
    assert used - before >= 8 * CHUNK
    assert kept == 0
    del layer
    used, kept = chunk_bytes()
    assert used == before
    assert kept == 6 * CHUNK
    layer = filled(4)
    assert sum(chunk_bytes()) <= before + 6 * CHUNK
    _native.set_store_limits(chunk_bytes=0)
    assert chunk_bytes()[1] == 0
    del layer


def test_trimming_gives_the_kept_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    layer = filled(24)
    del layer
    held = chunk_bytes()[1]
    before = resident()
    assert held >= 16 * CHUNK
    _native.trim_memory()
    assert chunk_bytes()[1] == 0
    assert before - resident() > held // 2
