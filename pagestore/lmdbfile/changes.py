"""What an LMDB file's transactions change, for whoever keeps a copy of its entries elsewhere.

``Tally`` notes each entry that a transaction puts or deletes; once it is durable, its changes are
handed over here, in the order of transactions, and wait until they are taken. They never hold
up a transaction: what waits is bounded, and beyond that all of it is dropped. The copy is then made
anew, from the entries themselves.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pagestore.lmdbfile.whole import Change, Whole

GREATEST_BYTES = 32 << 20


class Batch(NamedTuple):
    """One transaction: what the file says of the whole after it, and what it changed."""

    whole: Whole
    changes: Sequence[Change]

    @property
    def size(self) -> int:
        return sum(map(change_size, self.changes))


def change_size(change: Change) -> int:
    """Bytes, about, that it takes."""
    return len(change.table) + len(change.key) + len(change.value or b"") + 8


class Changes:
    """Thread-safe.

    Args:
        wake: called, on the transaction's thread, when there is something to take.
    """

    def __init__(
        self, wake: Callable[[], object] = lambda: None, greatest: int = GREATEST_BYTES
    ) -> None:
        self._wake = wake
        self._greatest = greatest
        self._lock = threading.Lock()
        self._waiting: deque[Batch] = deque()
        self._bytes = 0
        self._dropped = False

    @property
    def bytes(self) -> int:
        """That wait."""
        return self._bytes

    @property
    def pending(self) -> bool:
        """Whether there is something to take, or was."""
        return self._dropped or bool(self._waiting)

    def note(self, whole: Whole, changes: Sequence[Change]) -> None:
        """A transaction is durable; its caller sees to their order."""
        batch = Batch(whole, changes)
        with self._lock:
            if not self._dropped:
                self._waiting.append(batch)
                self._bytes += batch.size
                if self._bytes > self._greatest:
                    self._drop()
        self._wake()

    def take(self, greatest: int) -> list[Batch] | None:
        """The oldest, up to about so many bytes, in order; None: some were dropped, and the
        copy must be made anew from entries that are read behind this call."""
        with self._lock:
            if self._dropped:
                self._dropped = False
                return None
            taken: list[Batch] = []
            size = 0
            while self._waiting and size < greatest:
                taken.append(self._waiting.popleft())
                size += taken[-1].size
            self._bytes -= size
            return taken

    def drop(self) -> None:
        """Forgets what waits: the next who takes is told so."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._waiting.clear()
        self._bytes = 0
        self._dropped = True
