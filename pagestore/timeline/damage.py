"""Whether a layer file is what the catalog says, all of it read.

A disk that errs is asked again, with pauses, before it is believed. What still cannot be read then
is damaged like a file of which a checksum is wrong; not so where only this process cannot read it,
as with too many files open.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

from pagestore._native import Layer
from pagestore.errors import DataLoss, PagestoreError
from pagestore.layers.native import store_errors
from pagestore.pauses import Pauses
from pagestore.timeline.entries import LayerEntry, layer_of

ATTEMPTS = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
_READ_BYTES = 1 << 20


def failure(
    path: Path,
    key: bytes,
    entry: LayerEntry,
    sleep: Callable[[float], object] = time.sleep,
) -> PagestoreError | None:
    """What does not hold of the file at `path` as the layer of this key and entry."""
    pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
    for _ in range(ATTEMPTS - 1):
        found = _failure(path, key, entry)
        if found is None or found.reason != "IO_ERROR":
            return found
        sleep(pauses.next())
    return _failure(path, key, entry)


def is_damaged(path: Path, found: PagestoreError) -> bool:
    """Whether a whole copy may take the place of a file with this failure."""
    return isinstance(found, DataLoss) or (found.reason == "IO_ERROR" and _disk_fails(path))


def _failure(path: Path, key: bytes, entry: LayerEntry) -> PagestoreError | None:
    tenant, timeline, number = layer_of(key)
    try:
        with store_errors():
            Layer(path, tenant.raw, timeline.raw, number, entry.summary).verify()
    except PagestoreError as error:
        return error
    return None


def _disk_fails(path: Path) -> bool:
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(_READ_BYTES):
                pass
    except OSError as error:
        return error.errno == errno.EIO
    return False
