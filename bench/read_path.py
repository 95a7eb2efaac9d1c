"""The read path by itself: what a page costs before any transport.

Prints a table of medians. Pages compress about 3:1, as heap pages do. "cold" reads blocks that
are in no block cache (but in the page cache of the system); "warm" reads the same ones again.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pagestore import _native, keyspace
from pagestore.keyspace import PAGE_SIZE, ValueKind

TENANT, TIMELINE = bytes(16), bytes(16)
ALL_LSNS = 2**64 - 1
BLOCKS = 16384  # 128 MiB
PATCH = b"\x10\x00\x01\x00\x03\x01"


def page(seed: int) -> bytes:
    """Rows of random and repeated bytes: zstd level 1 makes a third of it."""
    rng = random.Random(seed)
    rows = [rng.randbytes(24) + b"a row of some text, the same in most rows." for _ in range(124)]
    return b"".join(rows)[:PAGE_SIZE].ljust(PAGE_SIZE, b"\0")


def key(block: int) -> bytes:
    return keyspace.rel_block(1663, 5, 16384, 0, block).pack()


def image_layer(folder: Path) -> tuple[_native.Layer, float]:
    writer = _native.LayerWriter(folder / "image", TENANT, TIMELINE, 1, 2)
    pages = [page(seed) for seed in range(512)]
    seconds = 0.0
    for first in range(0, BLOCKS, 512):
        batch = _native.Batch()
        for i in range(512):
            batch.put(key(first + i), 100, ValueKind.IMAGE, 0, pages[i])
        begin = time.perf_counter()
        writer.put(batch)
        seconds += time.perf_counter() - begin
    begin = time.perf_counter()
    summary = writer.finish()
    seconds += time.perf_counter() - begin
    return _native.Layer(folder / "image", TENANT, TIMELINE, 1, summary), BLOCKS / seconds


def delta_layers(folder: Path, count: int, deep: int) -> list[_native.Layer]:
    """Newest first; `deep` blocks have a patch in each of them."""
    layers = []
    for number in range(2, count + 2):
        layer, batch = _native.OpenLayer(), _native.Batch()
        for block in range(deep):
            batch.put(key(block), 100 * number, ValueKind.PATCH, 0, PATCH)
        layer.put(batch)
        path = folder / f"delta-{number}"
        summary = layer.flush(path, TENANT, TIMELINE, number)
        layers.insert(0, _native.Layer(path, TENANT, TIMELINE, number, summary))
    return layers


def median_micros(call: Callable[[int], object], rounds: int) -> float:
    times = []
    for i in range(rounds):
        begin = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def reader(
    snapshot: _native.Snapshot, batch: int, span: int, scatter: bool
) -> Callable[[int], object]:
    rng = random.Random(1)
    requests = []
    for _ in range(256):
        if scatter:
            blocks = [rng.randrange(span) for _ in range(batch)]
        else:
            first = rng.randrange(span - batch + 1)
            blocks = list(range(first, first + batch))
        requests.append(b"".join(key(block) for block in blocks))
    return lambda i: snapshot.read_pages(requests[i % 256], ALL_LSNS)


def report(name: str, call: Callable[[int], object], batch: int, rounds: int) -> None:
    micros = median_micros(call, rounds)
    print(f"{name:<52} {micros:9.1f} {micros / batch:9.2f} {batch / micros * 1e6:11,.0f}")


def measure(folder: Path, rounds: int) -> None:
    image, written = image_layer(folder)
    plain = _native.Snapshot([image])
    deltas = delta_layers(folder, 20, 1024)
    deep = _native.Snapshot([*deltas, image])
    size = image.summary.bytes / BLOCKS
    print(f"image layer: {size:.0f} bytes a page, written at {written:,.0f} pages/s\n")
    print(f"{'reads':<52} {'us/call':>9} {'us/page':>9} {'pages/s':>11}")
    for batch in (1, 32, 128):
        for scatter in (False, True):
            how = "scattered" if scatter else "in a row"
            _native.set_store_limits(block_cache_bytes=0)
            cold = reader(plain, batch, BLOCKS, scatter)
            report(f"images, {batch} {how}, cold", cold, batch, rounds)
            _native.set_store_limits(block_cache_bytes=256 << 20)
            warm = reader(plain, batch, BLOCKS, scatter)
            median_micros(warm, 256)
            report(f"images, {batch} {how}, warm", warm, batch, rounds)
    for batch in (1, 32):
        call = reader(deep, batch, 1024, True)
        median_micros(call, 256)
        report(f"image + 20 patches in 20 layers, {batch} scattered, warm", call, batch, rounds)
        miss = reader(deep, batch, BLOCKS, True)
        median_micros(miss, 256)
        report(f"20 layers without the page over an image, {batch}, warm", miss, batch, rounds)


def ingest_rates() -> None:
    layer, batch, count = _native.OpenLayer(), _native.Batch(), 200_000
    rng = random.Random(2)
    for i in range(count):
        batch.put(key(rng.randrange(40_000)), i + 1, ValueKind.RECORD, 0, rng.randbytes(100))
    begin = time.perf_counter()
    layer.put(batch)
    put = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        summary = layer.flush(Path(folder) / "delta", TENANT, TIMELINE, 1)
        flush = time.perf_counter() - begin
    print(
        f"\nopen layer: {count / put:,.0f} records of 100 bytes/s put; {layer.nbytes / count:.0f} "
        f"bytes of memory each; flushed at {count / flush:,.0f}/s into "
        f"{summary.bytes / count:.0f} bytes each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), rounds)
    ingest_rates()


if __name__ == "__main__":
    main()
