"""What it costs to find a page's values: among 10 layers and 10,000, at branch depth 0 and 500.

    bench/layer_map.py [--rounds 2000]

One run, in turns, so that what else the machine does meets all alike; medians, and the ratio to
the first row. Every layer is a flush of `--keys` pages of one relation, which all have values in
the oldest as well; the pages that are read have `VALUES` values in the newest layers. "depth" rows
have one layer a branch. What is measured is the chain's collection, without redo.
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
from pagestore.keyspace import ValueKind

TENANT, TIMELINE = bytes(16), bytes(16)
PAGES = 100_000
READ = 64
VALUES = 3
ALL_LSNS = 2**64 - 1


def key(block: int) -> bytes:
    return keyspace.rel_block(1663, 5, 16384, 0, block).pack()


def flushed(folder: Path, number: int, blocks: list[int], kind: int, value: bytes) -> _native.Layer:
    layer, batch = _native.OpenLayer(), _native.Batch()
    for block in sorted(set(blocks)):
        batch.put(key(block), 100 * number, kind, 0, value)
    layer.put(batch)
    path = folder / f"{number}"
    return _native.Layer(
        path, TENANT, TIMELINE, number, layer.flush(path, TENANT, TIMELINE, number)
    )


def make_layers(folder: Path, count: int, keys: int) -> list[_native.Layer]:
    """Oldest first. The pages below READ are in the first layer and the last VALUES of them."""
    rng = random.Random(1)
    layers = [flushed(folder, 1, list(range(READ)), ValueKind.ZERO, b"")]
    for number in range(2, count + 1):
        blocks = [rng.randrange(READ, PAGES) for _ in range(keys)]
        if number > count - VALUES:
            blocks += range(READ)
        layers.append(flushed(folder, number, blocks, ValueKind.RECORD, b"record" * 10))
    return layers


def chain_of_branches(layers: list[_native.Layer]) -> tuple[_native.Snapshot, float]:
    """One layer a branch, and what the last branch took in microseconds."""
    snapshot, seconds = _native.Snapshot(layers[:1]), 0.0
    for layer in layers[1:]:
        begin = time.perf_counter()
        snapshot = _native.Snapshot([layer]).over(snapshot, layer.summary.first_lsn - 1)
        seconds = time.perf_counter() - begin
    return snapshot, seconds * 1e6


def reader(snapshot: _native.Snapshot) -> Callable[[int], object]:
    keys = [key(block) for block in range(READ)]
    for one in keys * 4:  # all in memory, and every table filled
        assert len(snapshot.chain(one, ALL_LSNS)) == VALUES + 1
    return lambda i: snapshot.chain(keys[i % READ], ALL_LSNS)


def measure(readers: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in readers}
    for i in range(rounds):
        for name, read in readers.items():
            begin = time.perf_counter()
            read(i)
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) * 1e6 for name, taken in times.items()}


def steps(layers: list[_native.Layer]) -> str:
    """What a flush and a branch cost on top of the older half of the layers, and of more."""
    half = len(layers) // 2
    snapshot, base = _native.Snapshot(layers[:half]), _native.Snapshot()
    flush, branch = [], []
    for layer in layers[half:]:
        begin = time.perf_counter()
        snapshot = snapshot.replace((), (layer,))
        middle = time.perf_counter()
        base.over(snapshot, ALL_LSNS)
        flush.append((middle - begin) * 1e6)
        branch.append((time.perf_counter() - middle) * 1e6)
    mean = statistics.mean(flush)
    return f"a flush {mean:.1f} us (mean), a branch {statistics.median(branch):.1f} us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--keys", type=int, default=100)
    arguments = parser.parse_args()
    _native.set_store_limits(index_bytes=1 << 30, block_cache_bytes=256 << 20)
    readers: dict[str, Callable[[int], object]] = {}
    with tempfile.TemporaryDirectory() as name:
        for count in (10, 100, 1000, 10_000):
            folder = Path(name) / str(count)
            folder.mkdir()
            layers = make_layers(folder, count, arguments.keys)
            readers[f"{count} layers"] = reader(_native.Snapshot(layers))
            print(f"{count:>6} layers: {steps(layers)}")
            if count == 1000:
                deep, micros = chain_of_branches(layers[:498] + layers[-3:])
                readers["depth 500"] = reader(deep)
                print(f"depth 500: the last branch {micros:.1f} us")
        found = measure(readers, arguments.rounds)
    first = found["10 layers"]
    for label, micros in found.items():
        print(f"{label:<14} {micros:8.2f} us/key  {micros / first:5.2f}")


if __name__ == "__main__":
    main()
