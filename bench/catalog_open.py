"""How long a page server's catalog takes to open, and in how much memory.

    python bench/catalog_open.py [--timelines 10000] [--layers 98] [--turns 3] [--directory DIR]

Makes a catalog with that many timelines, a root and its branches, with that many layers each (so
that there are a million entries: each branch has two more), and no layer files. Then it is opened
by a process of its own, several times: seconds until `Catalog` is there, the same for what comes
after it (`Repository.open` as a whole), and the most memory that the process had, with what it had
before. The file is in the page cache; `--cold` asks the kernel to drop it before each turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pagestore._native import LayerSummary
from pagestore.ids import DEFAULT_TENANT, Lsn, TimelineId
from pagestore.timeline import Repository
from pagestore.timeline.catalog import Catalog, CatalogWriter
from pagestore.timeline.entries import LayerEntry, TimelineEntry

AT_ONCE = 100
"""Timelines a transaction, so that making them takes seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--timelines", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=98)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="kept, and used as it is if it exists")
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


def opened(root: Path) -> dict[str, float]:
    before = peak()
    begun = time.perf_counter()
    Catalog(root / "catalog.lmdb").close()
    catalog = time.perf_counter() - begun
    after = peak()
    begun = time.perf_counter()
    repository = Repository.open(root)
    whole = time.perf_counter() - begun
    repository.list(None)
    repository.close()
    return {
        "catalog_seconds": round(catalog, 3),
        "catalog_mb": round((after - before) / 1e6, 1),
        "repository_seconds": round(whole, 3),
        "listed_mb": round((peak() - before) / 1e6, 1),
        "process_mb": round(peak() / 1e6, 1),
    }


def peak() -> int:
    """Bytes. Of this program alone, where getrusage counts what it was before `exec` too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
