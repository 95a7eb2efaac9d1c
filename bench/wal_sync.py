"""What it costs to make a small piece of WAL durable, by the way it is written.

    python -m bench.wal_sync [--directory DIR] [--bytes 300] [--commits 2000]

Each way appends to a file of 16 MiB; "ahead" is over zeros that were written and synced before,
as the safekeeper keeps them. Median and 99th percentile of one write made durable, in µs; the
ways take turns in each round, so that all see the same machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SEGMENT = 16 << 20
WAYS = {
    "hole, fdatasync": (False, 0),
    "ahead, fdatasync": (True, 0),
    "hole, O_DSYNC": (False, os.O_DSYNC),
    "ahead, O_DSYNC": (True, os.O_DSYNC),
}


def prepare(path: Path, ahead: bool) -> None:
    with path.open("wb") as file:
        if ahead:
            file.write(bytes(SEGMENT))
        file.truncate(SEGMENT)
        os.fsync(file.fileno())


def appender(path: Path, flags: int, size: int) -> Callable[[], None]:
    descriptor = os.open(path, os.O_WRONLY | flags)
    data, at = b"w" * size, 0

    def append() -> None:
        nonlocal at
        os.pwrite(descriptor, data, at)
        if not flags:
            os.fdatasync(descriptor)
        at += size

    return append


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--bytes", type=int, default=300)
    parser.add_argument("--commits", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        ways: dict[str, Callable[[], None]] = {}
        for number, (way, (ahead, flags)) in enumerate(WAYS.items()):
            prepare(Path(name) / str(number), ahead)
            ways[way] = appender(Path(name) / str(number), flags, options.bytes)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.commits):
            for way, append in ways.items():
                start = time.perf_counter()
                append()
                taken[way].append((time.perf_counter() - start) * 1e6)
    for way, times in taken.items():
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"{way:18} p50 {statistics.median(times):6.0f}  p99 {p99:6.0f}")


if __name__ == "__main__":
    main()
