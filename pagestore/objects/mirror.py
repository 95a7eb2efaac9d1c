"""Keeping an LMDB file in a journal, behind its transactions and never in their way.

At its beginning the journal is where an earlier process left it. When it leads to exactly what the
file has (`Whole`: transaction, and a sum over all entries), it goes on from there. When the
file has more, it is written anew; when it has less, the file is an older copy, and whoever
says nothing about that is refused.

``step`` does what there is to do, and blocks; it belongs on a thread, again and again. What went
wrong is raised, and the same is tried at the next step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from pagestore.errors import DataLoss
from pagestore.lmdbfile.changes import Batch, Changes
from pagestore.lmdbfile.whole import Change, Whole
from pagestore.objects.claims import Claim
from pagestore.objects.journal import Journal

OBJECT_BYTES = 4 << 20
"""Of changes in one object, about."""


class Source(Protocol):
    """An LMDB file; pagestore.timeline.Catalog and pagestore.control's Storage are."""

    def follow(self, changes: Changes) -> None:
        """Hands over what each transaction changes from now on."""

    def whole(self) -> AbstractContextManager[tuple[Whole, Iterator[Change]]]:
        """What the file says of the whole, with all entries: as of one transaction."""


class Ready(Protocol):
    """Decides what may go up."""

    def batches(self, batches: list[Batch]) -> int:
        """How many of the oldest may; blocks for them if it likes."""

    def entries(self, entries: Iterable[Change]) -> Iterator[Change]:
        """The same entries, each once it may."""


class Always:
    """Everything may, at once."""

    def batches(self, batches: list[Batch]) -> int:
        return len(batches)

    def entries(self, entries: Iterable[Change]) -> Iterator[Change]:
        return iter(entries)


class Mirror:
    """
    Args:
        wake: called on a transaction's thread when there is something to do.
        ready: what may go up.
    """

    def __init__(
        self,
        source: Source,
        wake: Callable[[], object] = lambda: None,
        ready: Ready | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.journal: Journal | None = None
        self._source = source
        self._ready = ready or Always()
        self._clock = clock
        self._wake = wake
        self._changes = Changes(self._noted)
        self._taken: list[Batch] = []
        self._whole_due = False
        self._since: float | None = None

    @property
    def behind(self) -> int:
        """Bytes of changes that are to go up."""
        return self._changes.bytes + sum(batch.size for batch in self._taken)

    @property
    def behind_seconds(self) -> float:
        """Since the oldest of them has waited; 0 when nothing waits."""
        since = self._since
        return 0.0 if since is None else self._clock() - since

    def begin(self, claim: Claim, name: str, *, accept_older: bool = False) -> None:
        """Goes on from what there is.

        Raises:
            DataLoss: OBJECT_STORE_AHEAD: the file is an older copy. OBJECT_CORRUPT.
            FailedPrecondition: GENERATION_SUPERSEDED. Unavailable: OBJECT_STORE_UNAVAILABLE.
        """
        journal = Journal(claim, name)
        self._source.follow(self._changes)
        with self._source.whole() as (whole, _):
            said = journal.whole
        if said is not None and said.store_id == whole.store_id and not accept_older:
            _check_not_older(journal, whole)
        self._whole_due = said != whole
        if self._whole_due:
            self._noted()
        self.journal = journal

    def step(self) -> bool:
        """Whether there may be more to do at once.

        Raises:
            FailedPrecondition: GENERATION_SUPERSEDED: it must not be called again.
            Unavailable: OBJECT_STORE_UNAVAILABLE
        """
        assert self.journal is not None, "it has begun"
        if not self._taken:
            self._take()
        if self._whole_due or self.journal.due:
            self._write_whole(self.journal)
        ready = self._ready.batches(self._taken) if self._taken else 0
        if ready:
            self.journal.append(self._taken[:ready])
            del self._taken[:ready]
        return self._is_even(ready)

    def _noted(self) -> None:
        if self._since is None:
            self._since = self._clock()
        self._wake()

    def _take(self) -> None:
        taken = self._changes.take(OBJECT_BYTES)
        if taken is None:
            self._whole_due = True
        else:
            self._taken = taken

    def _write_whole(self, journal: Journal) -> None:
        with self._source.whole() as (whole, entries):
            journal.snapshot(whole, self._ready.entries(entries))
        self._whole_due = False
        journal.prune()

    def _is_even(self, done: int) -> bool:
        if self._taken or self._changes.pending:
            # What is taken next has waited for less long.
            self._since = self._clock() if done else self._since
            return bool(done)
        self._since = None
        return False


def _check_not_older(journal: Journal, whole: Whole) -> None:
    said = journal.whole
    assert said is not None
    if said.transaction > whole.transaction or (
        said.transaction == whole.transaction and said.total != whole.total
    ):
        raise DataLoss(
            "OBJECT_STORE_AHEAD",
            f"What is here has {whole.transaction} transactions, and the object store "
            f"{said.transaction} of the same store ({journal.prefix}): this is an older copy.",
            "Put the newest copy back, or recover from the object store into another directory.",
        )
