"""The file `<name>-generation` beside an LMDB file: which store it is, and its newest transaction.

::

    offset 0                 8              24                32
           ┌─────────────────┬──────────────┬─────────────────┬─────────────┐
           │ "PSGENER\\0"     │ store id, 16 │ u64 transaction │ u32 CRC-32C │
           └─────────────────┴──────────────┴─────────────────┴─────────────┘

A transaction is noted here after it is durable, by one write that nothing waits for. So the
file never says more than has been durable; after a power cut it may say less, and then tells
less. An LMDB file with fewer transactions is an older copy, one with another id a stranger's.

This file decides nothing by itself: where it is missing or damaged while the store is whole, it
is written anew. Whoever wants to go on with an older copy says so in a file
`<name>-accept-older`, which counts once.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from pagestore import durable
from pagestore._native import crc32c
from pagestore.lmdbfile.whole import Whole

MAGIC = b"PSGENER\0"
_BODY = struct.Struct("<8s16sQ")
_CRC = struct.Struct("<I")


class Seen(NamedTuple):
    store_id: bytes
    transaction: int

    def pack(self) -> bytes:
        body = _BODY.pack(MAGIC, self.store_id, self.transaction)
        return body + _CRC.pack(crc32c(body))


class Fault(Enum):
    GONE = "gone"
    OLDER = "older"
    FOREIGN = "foreign"


class Complaint(NamedTuple):
    fault: Fault
    words: str


def generation_file(path: Path) -> Path:
    return path.with_name(f"{path.name}-generation")


def acceptance_file(path: Path) -> Path:
    return path.with_name(f"{path.name}-accept-older")


def read(path: Path) -> Seen | None:
    """What is known of the LMDB file at ``path``; None where that is missing or damaged."""
    try:
        return decode(generation_file(path).read_bytes())
    except FileNotFoundError:
        return None


def decode(raw: bytes) -> Seen | None:
    """What a generation file says; None where it is damaged."""
    body = raw[: _BODY.size]
    if len(raw) != _BODY.size + _CRC.size or raw[_BODY.size :] != _CRC.pack(crc32c(body)):
        return None
    magic, store_id, transaction = _BODY.unpack(body)
    return Seen(store_id, transaction) if magic == MAGIC else None


def complaint(path: Path, whole: Whole | None, *, identified: bool = True) -> Complaint | None:
    """Why the LMDB file at ``path`` is not the one that was written last, if it is not.

    Args:
        whole: what its newest transaction says; None where there is no file, or nothing in it.
        identified: whether it says so itself, and is not of a time before stores had an id.
    """
    seen = read(path)
    if seen is None:
        return None
    if whole is None:
        words = f"{path} is missing or empty, but {seen.transaction} transactions were durable"
        return Complaint(Fault.GONE, words)
    if identified and whole.store_id != seen.store_id:
        return Complaint(Fault.FOREIGN, f"{path} is of another store than {generation_file(path)}")
    if not identified or whole.transaction < seen.transaction:
        words = f"{path} is an older copy: {whole.transaction} of {seen.transaction} transactions"
        return Complaint(Fault.OLDER, words)
    return None


class Witness:
    """The file, open for noting. Thread-safe."""

    def __init__(self, path: Path, whole: Whole) -> None:
        durable.sync_directory(path.parent)  # the store's own name, before what speaks of it
        self._seen = Seen(whole.store_id, whole.transaction)
        durable.replace(generation_file(path), self._seen.pack())
        self._descriptor = os.open(generation_file(path), os.O_WRONLY | os.O_CLOEXEC)
        self._noting = threading.Lock()

    def note(self, transaction: int) -> None:
        """A transaction has become durable."""
        with self._noting:
            if self._descriptor >= 0 and transaction > self._seen.transaction:
                self._seen = self._seen._replace(transaction=transaction)
                # The transaction stands, whatever becomes of this.
                with contextlib.suppress(OSError):
                    os.pwrite(self._descriptor, self._seen.pack(), 0)

    def close(self) -> None:
        with self._noting:
            if self._descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.fsync(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = -1
