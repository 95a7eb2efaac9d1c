"""What is not in the object store yet: layers to be put there, and transactions to be journaled.

A transaction may be journaled once every layer that is named behind it is there: else a recovery
would miss one. Transactions go in their order, and some may go together as one: then it is enough
that what is named behind the last of them is there. So a layer that is replaced before its turn
came never needs to be put there.

Pure: knows neither files nor the object store, and no clock but the one it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pagestore.lmdbfile.changes import Batch
from pagestore.timeline.entries import LAYER, LayerEntry, Place

GREATEST_BYTES = 64 << 20
"""Of transactions; beyond it the journal is begun anew by a snapshot."""


@dataclass(slots=True)
class Waiting:
    """A layer that is only here. ``since``: of the clock."""

    bytes: int
    since: float
    taken: bool = False
    """Somebody is putting it there."""


class Backlog:
    """For one thread at a time; but `ready` only for the one that notes transactions."""

    def __init__(self, where: str, clock: Callable[[], float]) -> None:
        self._where = where
        self._clock = clock
        self.waiting: dict[bytes, Waiting] = {}
        """In the order in which they came."""
        self._absent: set[bytes] = set()
        """Not there; some of them are not wanted any more, but the journal does not know."""
        self._batches: deque[Batch] = deque()
        self._bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """Of the layers that wait."""
        return sum(waiting.bytes for waiting in self.waiting.values())

    @property
    def age(self) -> float:
        """Seconds for which the oldest layer has waited."""
        now = self._clock()
        return now - min((waiting.since for waiting in self.waiting.values()), default=now)

    @property
    def is_empty(self) -> bool:
        return not self.waiting and not self._batches

    @property
    def is_too_long(self) -> bool:
        return self._bytes > GREATEST_BYTES

    def layer(self, key: bytes, value: bytes) -> None:
        """There is a layer, or it lies elsewhere now."""
        entry = LayerEntry.unpack(key, value, self._where)
        if entry.place & Place.REMOTE:
            self.waiting.pop(key, None)
            self._absent.discard(key)
        elif key not in self.waiting:
            self.waiting[key] = Waiting(entry.summary.bytes, self._clock())
            self._absent.add(key)

    def note(self, batch: Batch) -> None:
        """A transaction, the next one."""
        for _, key, value in batch.changes:
            if not key.startswith(LAYER):
                continue
            if value is None:
                self.waiting.pop(key, None)
            else:
                self.layer(key, value)
        self._batches.append(batch)
        self._bytes += batch.size

    def take(self) -> bytes | None:
        """The layer that is to be put there next; None: none, or somebody does it already."""
        for key, waiting in self.waiting.items():
            if not waiting.taken:
                waiting.taken = True
                return key
        return None

    def failed(self, key: bytes) -> None:
        """It is still to be put there, after the others."""
        waiting = self.waiting.pop(key, None)
        if waiting is not None:
            self.waiting[key] = Waiting(waiting.bytes, waiting.since)

    def ready(self) -> list[Batch]:
        """The transactions that may be journaled now, as one."""
        missing: set[bytes] = set()
        length = 0
        for position, batch in enumerate(self._batches):
            for key, is_there in self._layers_of(batch):
                (missing.discard if is_there else missing.add)(key)
            if not missing:
                length = position + 1
        return [self._batches[position] for position in range(length)]

    def journaled(self, transaction: int) -> None:
        """So are all up to it."""
        while self._batches and self._batches[0].whole.transaction <= transaction:
            batch = self._batches.popleft()
            self._bytes -= batch.size
            self._absent -= {
                key for _, key, value in batch.changes if key.startswith(LAYER) and value is None
            }

    def forget_transactions(self) -> None:
        """A snapshot is made instead."""
        self._batches.clear()
        self._bytes = 0
        self._absent = set(self.waiting)

    def _layers_of(self, batch: Batch) -> Iterator[tuple[bytes, bool]]:
        for _, key, value in batch.changes:
            if key.startswith(LAYER):
                yield key, value is None or key not in self._absent
