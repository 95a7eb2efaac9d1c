"""Keeps a store in the object store: its layers, and its catalog as a journal (objects/journal.py).

Each step is whole by itself and may be cut off anywhere: what was created, but not yet noted, is
found by who creates it again. The order of things is what protects:

- a layer is put there, and then the catalog says so;
- a transaction is journaled when the layers that it leaves named are there (backlog.py);
- only what is journaled may be forgotten elsewhere: WAL by safekeepers, objects by `clean`.

A writer that was superseded learns of it when it journals, and then does nothing more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog

from pagestore._native import Layer
from pagestore.errors import AlreadyExists, DataLoss, PagestoreError
from pagestore.ids import Lsn
from pagestore.ingest.waiters import TimelineKey
from pagestore.layers.native import store_errors
from pagestore.lmdbfile.changes import Batch, Changes
from pagestore.lmdbfile.whole import Change, Whole
from pagestore.maintenance.backlog import Backlog
from pagestore.objects.claims import RECORD, Claim, claim, reach, read_owner
from pagestore.objects.journal import Journal
from pagestore.objects.race import prove_conditional
from pagestore.timeline import Repository
from pagestore.timeline.elsewhere import Elsewhere, object_name
from pagestore.timeline.entries import (
    LAYER,
    TIMELINE,
    LayerEntry,
    Place,
    TimelineEntry,
    layer_of,
)

TAKEN_BYTES = 4 << 20
PART, JOURNAL = "pageserver", "catalog"
ABANDONED_SECONDS = 7 * 86400.0
"""An object that no record names stays for so long, as what is in lost+found does."""
_log = structlog.get_logger(__name__)


class Behind(NamedTuple):
    """Of layers that are only here: bytes, how many, and the age of the oldest in seconds."""

    bytes: int
    layers: int
    age: float


@dataclass(slots=True)
class Totals:
    """Since the process began."""

    layers: int = 0
    bytes: int = 0
    journaled: int = 0
    deleted: int = 0


class _NotYetThere(Exception):
    """A layer came while the snapshot was being made."""


def _check_not_older(journal: Journal, there: Whole, here: Whole) -> None:
    if there.store_id == here.store_id and there.transaction > here.transaction:
        raise DataLoss(
            "OBJECT_STORE_AHEAD",
            f"The catalog here has {here.transaction} transactions, and the object store "
            f"{there.transaction} of the same store ({journal.prefix}): this is an older copy.",
            "Put the newest copy back, or recover from the object store into another directory.",
        )


class Offsite:
    """Uploads may run on several threads; the rest on one at a time.

    Args:
        wake: called, on any thread, when there is something to do.
    """

    def __init__(
        self,
        repository: Repository,
        directory: Path,
        wake: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        store = repository.store
        assert store.elsewhere is not None
        self._store = store
        self._directory = directory
        self._elsewhere: Elsewhere = store.elsewhere
        self._objects = store.elsewhere.objects
        self._lock = threading.Lock()
        self._backlog = Backlog(store.catalog.where, clock)
        self._changes = Changes(wake)
        self._claim: Claim | None = None
        self._journal: Journal | None = None
        self._in_step = False
        """All that is not in the backlog is in the journal."""
        self._durable: dict[TimelineKey, Lsn] = {}
        self.here: dict[bytes, int] = {}
        """Keys of layers that are here and there, with their bytes."""
        self._here_bytes = 0
        self.totals = Totals()
        self.on_durable: Callable[[TimelineKey], object] = lambda key: None
        owner = read_owner(directory / RECORD)
        # Until there is a claim, as of the last one: nobody else has written under that.
        store.catalog.generation = owner.generation if owner is not None else 0

    @property
    def generation(self) -> int:
        """That was claimed; 0 before."""
        return 0 if self._claim is None else self._claim.generation

    @property
    def store_id(self) -> bytes:
        """The object store's, once there is a claim."""
        assert self._claim is not None
        return self._claim.store_id

    @property
    def is_whole(self) -> bool:
        """Whether all that was written is there."""
        with self._lock:
            return self._in_step and self._backlog.is_empty and self._changes.bytes == 0

    def start(self) -> None:
        """Claims, and learns how far the journal leads and what is only here. Before all else;
        again if it failed.

        Raises:
            FailedPrecondition: GENERATION_SUPERSEDED and others as of `claim`;
                OBJECT_STORE_UNCONDITIONAL. Unavailable: OBJECT_STORE_UNAVAILABLE.
            DataLoss: OBJECT_STORE_AHEAD: there is a newer state of this very catalog.
        """
        catalog = self._store.catalog
        if self._claim is None:
            reach(self._objects, self._directory)
            prove_conditional(self._objects)
            self._claim = claim(self._objects, PART, self._directory)
            catalog.generation = self._claim.generation
        journal = Journal(self._claim, JOURNAL)
        catalog.follow(self._changes)
        positions: dict[TimelineKey, Lsn] = {}
        with catalog.whole() as (whole, found):
            if journal.whole is not None and not catalog.accepted:
                _check_not_older(journal, journal.whole, whole)
            for _, key, value in found:
                self._look_at(key, value)
                self._position(key, value, positions)
        # Transactions since `follow` may be in both; to note one twice is no harm.
        self._in_step = whole == journal.whole
        if self._in_step:
            self._durable = positions
        self._journal = journal

    def take(self) -> bool:
        """Takes over what transactions have changed; whether there was anything."""
        self._elsewhere.let_go()  # however long the object store is away
        batches = self._changes.take(TAKEN_BYTES)
        if batches is None or self._backlog.is_too_long:
            self._in_step = False
            with self._lock:
                self._backlog.forget_transactions()
        for batch in batches or ():
            with self._lock:  # for moments: the event loop asks how far it is
                self._backlog.note(batch)
                for _, key, value in batch.changes:
                    self._place(key, value)
        if batches is None:
            self._look_at_all()
        return batches is None or bool(batches)

    def behind(self) -> Behind:
        with self._lock:
            return Behind(
                self._backlog.waiting_bytes, len(self._backlog.waiting), self._backlog.age
            )

    @property
    def here_bytes(self) -> int:
        """Of all layer files that are here."""
        with self._lock:
            return self._here_bytes + self._backlog.waiting_bytes

    def durable_lsn(self, key: TimelineKey) -> Lsn:
        """Up to where the object store has a timeline; 0: nothing of it."""
        return self._durable.get(key, Lsn(0))

    # Layers

    def next_layer(self) -> bytes | None:
        """One to be given to `upload`, or back to `give_back`."""
        with self._lock:
            return self._backlog.take()

    def give_back(self, key: bytes) -> None:
        with self._lock:
            self._backlog.failed(key)

    def upload(self, key: bytes) -> None:
        """Puts a layer's file there, once it was found to be whole, and says so in the catalog.

        Raises:
            DataLoss: LAYER_CORRUPT: it is not whole. Unavailable: OBJECT_STORE_UNAVAILABLE.
            AlreadyExists: OBJECT_EXISTS: there is another file under its name.
            ResourceExhausted: STORE_FULL: the catalog cannot say so.
        """
        entry = self._store.catalog.layer(*layer_of(key))
        if entry is None or entry.place & Place.REMOTE:
            return
        path, name = self._elsewhere.path(key, entry), object_name(key, entry)
        tenant, timeline, number = layer_of(key)
        try:
            with store_errors():
                Layer(path, tenant.raw, timeline.raw, number, entry.summary).verify()
            self._objects.create_file(name, path)
            self.check_store()
        except (PagestoreError, OSError) as error:
            gone = self._store.catalog.layer(*layer_of(key)) is None
            if gone and not isinstance(error, AlreadyExists):
                return  # it was replaced meanwhile, and its file with it
            raise
        place = Place.LOCAL | Place.REMOTE
        if not self._store.commit(lambda txn: txn.move_layer(key, place)):
            self._objects.delete([name])  # replaced meanwhile: nobody will ever want it
            return
        self.totals.layers += 1
        self.totals.bytes += entry.summary.bytes

    # The journal

    def journal(self) -> bool:
        """Journals what may be; whether there was anything.

        Raises:
            FailedPrecondition: GENERATION_SUPERSEDED. Unavailable: OBJECT_STORE_UNAVAILABLE.
        """
        assert self._journal is not None
        if not self._in_step:
            return self._snapshot(self._journal)
        ready = self._backlog.ready()
        if ready:
            self._journal.append(ready)
            self._journaled(ready)
        if self._journal.due and self._snapshot(self._journal):
            self._journal.prune()
        return bool(ready)

    def check(self) -> None:
        """Whether it is still the one who writes there; raises as `journal`."""
        assert self._claim is not None
        self._claim.check()

    def check_store(self) -> None:
        """Whether what was just put there, or deleted, was so in the store that was claimed; raises
        as `journal`."""
        assert self._claim is not None
        self._claim.check_store()

    def clean(self) -> None:
        """Deletes the objects of layers that nobody can want any more."""
        assert self._journal is not None
        whole = self._journal.whole
        if whole is None or not self._in_step:
            return
        gone = self._elsewhere.deletable(whole.transaction)
        if gone:
            self._objects.delete([object_name(key, entry) for key, entry in gone])
            self.check_store()
            self._elsewhere.deleted([key for key, _ in gone])
            self.totals.deleted += len(gone)

    def mend(self) -> None:
        """Fetches anew what is here, does not hold, and is there; tried again where it failed, but
        not where the object is damaged as well.

        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE. ResourceExhausted: STORE_FULL.
        """
        for key, what in self._elsewhere.damaged().items():
            entry = self._store.catalog.layer(*layer_of(key))
            if entry is not None and entry.place == Place.LOCAL | Place.REMOTE:
                try:
                    aside = self._elsewhere.restore(key, entry)
                except DataLoss as error:
                    _log.error("a damaged layer file cannot be fetched anew", error=error.message)
                else:
                    _log.warning(
                        "a damaged layer file was fetched anew", what=what, aside=str(aside or "")
                    )
            self._elsewhere.seen_to(key)

    def sweep(self, now: float) -> int:
        """Deletes objects of layers that no record names, a week after they were made, and what was
        never made whole; how many.

        Args:
            now: Unix seconds.
        """
        generation, unfinished = self.generation, self._objects.sweep(now)
        old = [
            found.name
            for found in self._objects.list("pageserver/layers/")
            if now - found.modified > ABANDONED_SECONDS
            and int(found.name.rpartition("-")[2].partition(".")[0], 16) <= generation
        ]
        if not old:
            return unfinished
        named = set(self._named())
        abandoned = [name for name in old if name not in named]
        self.check()
        self._objects.delete(abandoned)
        return unfinished + len(abandoned)

    def _named(self) -> Iterator[str]:
        with self._store.catalog.whole() as (_, found):
            for _, key, value in found:
                if key.startswith(LAYER) and value is not None:
                    yield object_name(key, LayerEntry.unpack(key, value, self._store.catalog.where))
        yield from (object_name(key, entry) for key, entry in self._elsewhere.going())

    def _snapshot(self, journal: Journal) -> bool:
        """Where every layer is there: else it is tried again when that may be."""
        with self._lock:
            if self._backlog.waiting:
                return False
        positions: dict[TimelineKey, Lsn] = {}

        def checked(found: Iterator[Change]) -> Iterator[Change]:
            for change in found:
                _, key, value = change
                if key.startswith(LAYER) and value is not None:
                    entry = LayerEntry.unpack(key, value, self._store.catalog.where)
                    if not entry.place & Place.REMOTE:
                        raise _NotYetThere
                self._position(key, value, positions)
                yield change

        with self._store.catalog.whole() as (whole, found):
            try:
                journal.snapshot(whole, checked(found))
            except _NotYetThere:
                return False
        with self._lock:
            self._backlog.journaled(whole.transaction)
            self._in_step = True
        moved = {key for key, lsn in positions.items() if lsn != self._durable.get(key)}
        self._durable = positions
        self._tell(moved)
        return True

    def _journaled(self, batches: list[Batch]) -> None:
        moved: dict[TimelineKey, Lsn] = {}
        for batch in batches:
            for _, key, value in batch.changes:
                self._position(key, value, moved)
        self._durable |= moved
        for name in [name for name, lsn in moved.items() if not lsn]:
            del self._durable[name]
        with self._lock:
            self._backlog.journaled(batches[-1].whole.transaction)
        self.totals.journaled += len(batches)
        self._tell(moved)

    def _tell(self, moved: dict[TimelineKey, Lsn] | set[TimelineKey]) -> None:
        for key in moved:
            self.on_durable(key)

    def _position(self, key: bytes, value: bytes | None, to: dict[TimelineKey, Lsn]) -> None:
        if not key.startswith(TIMELINE):
            return
        tenant, timeline, _ = layer_of(key)
        lsn = Lsn(0)
        if value is not None:
            lsn = TimelineEntry.unpack(key, value, self._store.catalog.where).disk_consistent_lsn
        to[tenant, timeline] = lsn

    def _place(self, key: bytes, value: bytes | None) -> None:
        if not key.startswith(LAYER):
            return
        entry = None if value is None else LayerEntry.unpack(key, value, self._store.catalog.where)
        self._here_bytes -= self.here.pop(key, 0)
        if entry is not None and entry.place == Place.LOCAL | Place.REMOTE:
            self.here[key] = entry.summary.bytes
            self._here_bytes += entry.summary.bytes

    def _look_at_all(self) -> None:
        with self._store.catalog.whole() as (_, found):
            for _, key, value in found:
                self._look_at(key, value)

    def _look_at(self, key: bytes, value: bytes | None) -> None:
        if key.startswith(LAYER) and value is not None:
            with self._lock:
                self._backlog.layer(key, value)
                self._place(key, value)
