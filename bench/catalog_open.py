"""How long a page server's catalog takes to open, and in how much memory.

    python bench/catalog_open.py [--timelines 10000] [--layers 98] [--files] [--cold]
                                 [--turns 3] [--directory DIR]

Makes a catalog with that many timelines, a root and its branches, with that many layers each (so
that there are a million entries: each branch has two more); with `--files` their files too, empty.
Then it is opened by a process of its own, several times. Seconds (and of them, the processor's)
until `Catalog` is there, until `Repository` is, and of its sweep; and the most memory that the
process had come to by then, less what it had before. The file is in the page cache; `--cold` asks
the kernel to drop it before each turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pagestore._native import LayerSummary
from pagestore.ids import DEFAULT_TENANT, Lsn, TimelineId
from pagestore.layers.files import layer_name
from pagestore.timeline import Repository
from pagestore.timeline.catalog import Catalog, CatalogWriter
from pagestore.timeline.entries import LayerEntry, TimelineEntry

T = TypeVar("T")
AT_ONCE = 100
"""Timelines a transaction, so that making them takes seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--timelines", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=98)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="kept, and used as it is if it exists")
    parser.add_argument("--files", action="store_true", help="of the layers, empty")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open is not None:
        print(json.dumps(opened(arguments.open)))
        return
    with tempfile.TemporaryDirectory(prefix="pagestore-catalog-") as scratch:
        root = arguments.directory or Path(scratch)
        catalog = root / "catalog.lmdb"
        if not catalog.exists():
            make(catalog, arguments.timelines, arguments.layers)
            if arguments.files:
                make_files(root)
        print(f"{catalog.stat().st_size / 1e6:.0f} MB")
        for _ in range(arguments.turns):
            if arguments.cold:
                forget(catalog)
            command = [sys.executable, __file__, "--open", str(root)]
            print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def make(path: Path, timelines: int, layers: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    catalog = Catalog(path)
    names = [TimelineId(os.urandom(16)) for _ in range(timelines)]
    for begin in range(0, timelines, AT_ONCE):
        batch = names[begin : begin + AT_ONCE]
        catalog.update(lambda txn, batch=batch: put(txn, names[0], batch, layers))
    catalog.close()


def put(txn: CatalogWriter, root: TimelineId, batch: list[TimelineId], layers: int) -> None:
    for name in batch:
        record = TimelineEntry(
            None if name == root else root, Lsn(1000), Lsn(2000), Lsn(1990), created=1
        )
        if name != root:
            txn.put_branch(DEFAULT_TENANT, root, name, record)
        files = []
        for number in range(1, layers + 1):
            summary = LayerSummary(
                (1, bytes(18), b"\xff" * 18, number * 10, number * 10 + 9, 3000, 100, 100_000)
            )
            files.append((number, LayerEntry.fresh(summary)))
            record = record.with_layer(number, 100_000)
        txn.put_timeline(DEFAULT_TENANT, name, record, files)


def forget(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_files(root: Path) -> None:
    catalog = Catalog(root / "catalog.lmdb")
    for tenant, timeline, _ in catalog.timelines():
        directory = root / str(tenant) / str(timeline)
        directory.mkdir(parents=True)
        for number, layer in catalog.layers(tenant, timeline):
            (directory / layer_name(number, layer.summary.kind)).touch()
    catalog.close()


class Steps:
    """What each step took, and how much memory there had been by its end."""

    def __init__(self) -> None:
        self.begun_with = peak()
        self.taken: dict[str, float] = {}

    def note(self, name: str, step: Callable[[], T]) -> T:
        begun, processor = time.perf_counter(), time.process_time()
        result = step()
        self.taken[f"{name}_s"] = round(time.perf_counter() - begun, 3)
        self.taken[f"{name}_cpu_s"] = round(time.process_time() - processor, 3)
        self.taken[f"{name}_mb"] = round((peak() - self.begun_with) / 1e6, 1)
        return result


def opened(root: Path) -> dict[str, float]:
    steps = Steps()
    steps.note("catalog", lambda: Catalog(root / "catalog.lmdb")).close()
    repository = steps.note("repository", lambda: Repository.open(root))
    steps.note("list", lambda: len(repository.list(None)))
    steps.note("sweep", repository.sweep)
    repository.close()
    return steps.taken


def peak() -> int:
    """Bytes. Of this program alone, where getrusage counts what it was before `exec` too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
