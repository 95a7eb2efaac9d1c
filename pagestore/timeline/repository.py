"""All timelines of one page server: made, branched, found, deleted.

``root/catalog.lmdb`` says what there is; ``root/<tenant>/<timeline>/`` holds a timeline's layer
files, and exists only once it has one. A branch is one catalog transaction, whatever the size
of its parent. Timelines are loaded when asked for; of those that hold nothing in memory only
the recently used stay loaded.

Deleting a timeline that has children hides it: it cannot be found or written any more, its
layers stay as long as a child reads through them, and go with the last one.

Locks, in the order in which they are taken: a timeline's ``_flushing``; ``_changing`` (which
timelines there are: one change at a time, held over the catalog's sync); ``_loading`` (which are
loaded; held over reads of the catalog at most); the leases' own (held over a lease's sync). Finding
a timeline needs ``_loading`` alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pagestore import locks
from pagestore._native import Layer
from pagestore.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutOfRange,
    PagestoreError,
    Unavailable,
)
from pagestore.ids import Lsn, TenantId, TimelineId, format_lsn
from pagestore.layers.files import Files
from pagestore.lmdbfile import witness
from pagestore.timeline.catalog import Catalog, CatalogWriter
from pagestore.timeline.elsewhere import UNBOUNDED, Elsewhere
from pagestore.timeline.entries import LayerEntry, TimelineEntry, physical_bytes
from pagestore.timeline.horizons import nothing_but_points
from pagestore.timeline.leases import Leases
from pagestore.timeline.retained import ALL
from pagestore.timeline.retention import Retention
from pagestore.timeline.rootimport import RootImport
from pagestore.timeline.scrub import Scrub, Scrubbed
from pagestore.timeline.store import Store
from pagestore.timeline.sweep import Sweep
from pagestore.timeline.timeline import Timeline

if TYPE_CHECKING:
    from pagestore.objects.store import ObjectStore

Key = tuple[TenantId, TimelineId]


@dataclass(frozen=True, slots=True)
class TimelineSummary:
    """What `list` says of a timeline, with the names that Timeline has."""

    tenant_id: TenantId
    timeline_id: TimelineId
    parent: TimelineId | None
    branch_lsn: Lsn
    last_record_lsn: Lsn
    prev_record_lsn: Lsn
    disk_consistent_lsn: Lsn
    physical_bytes: int
    layer_count: int
    created: int


Summaries = list[TimelineSummary]


class Repository:
    """Thread-safe. Methods block on files; call them beside the event loop."""

    def __init__(
        self, store: Store, lock_file: int, max_idle: int, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self.leases = Leases(store, clock)
        self._lock_file = lock_file
        self._max_idle = max_idle
        self._loaded: weakref.WeakValueDictionary[Key, Timeline] = weakref.WeakValueDictionary()
        # By their bytes, whose hashing runs no Python code: so each step on it is atomic, and a
        # hit takes no lock.
        self._recent: OrderedDict[bytes, Timeline] = OrderedDict()
        self._importing: set[Key] = set()
        self._changing = threading.RLock()
        self.retention = Retention(store, self.leases, self._changing, clock)
        self._loading = threading.RLock()

    @classmethod
    def open(
        cls,
        root: Path | str,
        *,
        open_layer_bytes: int = 64 << 20,
        max_idle: int = 256,
        files: Files | None = None,
        objects: ObjectStore | None = None,
        cached_bytes: int = UNBOUNDED,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Opens or begins a store. Files that the catalog does not name are moved aside: here, or
        by `sweep`.

        Args:
            objects: has the layer files that are not here.
            cached_bytes: of those, that are kept once they were read.
            clock: Unix seconds, by which leases end.

        Raises:
            FailedPrecondition: STORE_IN_USE, CATALOG_VERSION. DataLoss: CATALOG_CORRUPT,
                CATALOG_OLDER, CATALOG_FOREIGN.
        """
        root = Path(root)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_file = _lock(root)
        try:
            catalog_path = root / "catalog.lmdb"
            _check_not_lost(root, catalog_path)
            catalog = Catalog(catalog_path)
            try:
                sweep = Sweep(root, catalog, clock)
                sweep.unknown()
                store = Store(root, catalog, files or Files(), open_layer_bytes, sweep)
                if objects is not None:
                    store.elsewhere = Elsewhere(root, catalog, store.files, objects, cached_bytes)
                return cls(store, lock_file, max_idle, clock)
            except BaseException:
                catalog.close()
                raise
        except BaseException:
            os.close(lock_file)
            raise

    def close(self) -> None:
        """Closes as a crash would: what is not flushed is gone, and is ingested again."""
        with self._changing, self._loading:
            self._recent.clear()
            self._loaded.clear()
            self._store.close()
            if self._lock_file >= 0:
                os.close(self._lock_file)
                self._lock_file = -1

    def sweep(self) -> None:
        """Looks at all directories for what the catalog does not name. Takes seconds for ten
        thousand: to be run once, beside everything else.
        """
        self._store.sweep.run()

    def scrub(
        self,
        tenant: TenantId | None,
        bytes_per_second: int = 0,
        *,
        objects: bool = False,
        repair: bool = True,
    ) -> Iterator[Scrubbed]:
        """See pagestore/timeline/scrub.py."""
        return Scrub(self._store, tenant, bytes_per_second, objects, repair).run()

    @property
    def store(self) -> Store:
        """For those who see to its files."""
        return self._store

    def get(self, tenant: TenantId, timeline: TimelineId) -> Timeline:
        """Raises NotFound TIMELINE_NOT_FOUND."""
        name = tenant.raw + timeline.raw
        found = self._recent.get(name)
        if found is None or found._gone:
            with self._loading:
                found = self._load((tenant, timeline))
                if found is None or found._gone:
                    raise _not_found(tenant, timeline)
                self._recent[name] = found
                while len(self._recent) > self._max_idle:
                    self._recent.popitem(last=False)
        with contextlib.suppress(KeyError):  # another thread has dropped it meanwhile
            self._recent.move_to_end(name)
        return found

    def reached(self, tenant: TenantId, timeline: TimelineId) -> Lsn:
        """Where one stands, without loading it. Raises NotFound TIMELINE_NOT_FOUND."""
        found = self._loaded.get((tenant, timeline))
        if found is not None and not found._gone:
            return found.last_record_lsn
        record = self._store.catalog.timeline(tenant, timeline)
        if record is None or record.deleted:
            raise _not_found(tenant, timeline)
        return record.disk_consistent_lsn

    def kept(self, tenant: TenantId, timeline: TimelineId) -> Timeline:
        """As `get`; also one that was deleted, but has children."""
        with self._loading:
            found = self._load((tenant, timeline))
        if found is None:
            raise _not_found(tenant, timeline)
        return found

    def with_layers(self) -> list[Key]:
        """The timelines that have files, hidden ones too."""
        return [
            (tenant, timeline)
            for tenant, timeline, record in self._store.catalog.timelines()
            if record.layer_count > 0
        ]

    def _load(self, key: Key) -> Timeline | None:
        """The one object of a timeline, hidden or not, with its ancestors; with ``_loading``."""
        missing: list[tuple[Key, TimelineEntry]] = []
        found: Timeline | None = None
        next_key: Key | None = key
        while next_key is not None:
            found = self._loaded.get(next_key)
            if found is not None:
                break
            record = self._store.catalog.timeline(*next_key)
            if record is None:
                if not missing:
                    return None
                raise PagestoreError(
                    "ANCESTOR_MISSING", f"Timeline {next_key[1]} is gone, but has children."
                )
            missing.append((next_key, record))
            next_key = None if record.parent is None else (key[0], record.parent)
        for missing_key, record in reversed(missing):
            kept = self._store.catalog.horizon(*missing_key)
            found = Timeline(self._store, *missing_key, record, found, kept.lsn if kept else ALL)
            self._loaded[missing_key] = found
        return found

    def list(self, tenant: TenantId | None) -> Summaries:
        """Of a tenant, or of all; without loading any."""
        summaries = []
        for owner, timeline, record in self._store.catalog.timelines(tenant):
            if record.deleted:
                continue
            loaded = self._loaded.get((owner, timeline))
            summaries.append(
                TimelineSummary(
                    owner,
                    timeline,
                    record.parent,
                    record.branch_lsn,
                    loaded.last_record_lsn if loaded else record.disk_consistent_lsn,
                    loaded.prev_record_lsn if loaded else record.prev_record_lsn,
                    record.disk_consistent_lsn,
                    physical_bytes(record),
                    record.layer_count,
                    record.created,
                )
            )
        return summaries

    def loaded(self) -> Sequence[Timeline]:
        """Those that are in use or were lately."""
        with self._loading:
            return list(self._loaded.values())

    def create_root(
        self, tenant: TenantId, timeline: TimelineId, lsn: int, prev_record_lsn: int
    ) -> RootImport:
        """A builder; the timeline exists once it is committed.

        Raises:
            AlreadyExists: TIMELINE_EXISTS, or its import is under way.
        """
        key = tenant, timeline
        _check_id(timeline)
        if lsn <= 0:
            raise InvalidInput("INVALID_LSN", f"A timeline cannot begin at LSN {lsn}.")
        with self._changing:
            if key in self._importing or self._store.catalog.timeline(*key) is not None:
                raise AlreadyExists("TIMELINE_EXISTS", f"Timeline {timeline} exists already.")
            self._importing.add(key)

        def done(record: TimelineEntry | None) -> Timeline | None:
            with self._changing:
                self._importing.discard(key)
            return self.get(*key) if record is not None else None

        return RootImport(self._store, tenant, timeline, Lsn(lsn), Lsn(prev_record_lsn), done)

    def branch(
        self,
        tenant: TenantId,
        parent: TimelineId,
        child: TimelineId,
        branch_lsn: int,
        prev_record_lsn: int = 0,
    ) -> Timeline:
        """Makes a timeline that reads its parent up to ``branch_lsn``. One transaction.

        An LSN before the parent's own branch makes it a branch of the ancestor that has it. The
        same arguments again give the same timeline.

        Raises:
            NotFound: TIMELINE_NOT_FOUND: the parent. AlreadyExists: TIMELINE_EXISTS.
            OutOfRange: LSN_NOT_REACHED, LSN_TOO_OLD.
        """
        _check_id(child)
        with self._changing:
            existing = self._store.catalog.timeline(tenant, child)
            if existing is not None or (tenant, child) in self._importing:
                return self._same_branch(tenant, parent, child, branch_lsn, existing)
            source = self.get(tenant, parent).owner(branch_lsn)
            parent = source.timeline_id
            _check_branch_lsn(source, branch_lsn)
            self.retention.check(source, branch_lsn)
            record = TimelineEntry(
                parent=parent,
                branch_lsn=Lsn(branch_lsn),
                disk_consistent_lsn=Lsn(branch_lsn),
                prev_record_lsn=Lsn(prev_record_lsn),
                created=time.time_ns() // 1000,
            )
            self._store.commit(lambda txn: txn.put_branch(tenant, parent, child, record))
            return self.get(tenant, child)

    def _same_branch(
        self,
        tenant: TenantId,
        parent: TimelineId,
        child: TimelineId,
        branch_lsn: int,
        existing: TimelineEntry | None,
    ) -> Timeline:
        same = (
            existing is not None
            and not existing.deleted
            and existing.branch_lsn == branch_lsn
            and existing.parent in (parent, self._owner(tenant, parent, branch_lsn))
        )
        if not same:
            raise AlreadyExists(
                "TIMELINE_EXISTS",
                f"Timeline {child} exists already, with another parent or branch LSN.",
            )
        return self.get(tenant, child)

    def _owner(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> TimelineId | None:
        with contextlib.suppress(NotFound):
            return self.get(tenant, timeline).owner(lsn).timeline_id
        return None

    def delete(self, tenant: TenantId, timeline: TimelineId) -> None:
        """Deletes a timeline; with children it is hidden until the last of them goes.

        Raises:
            NotFound: TIMELINE_NOT_FOUND.
            Unavailable: ANCESTOR_BEHIND: children need WAL of it that is not ingested again
                yet. ResourceExhausted: STORE_FULL: and what they need cannot be flushed.
        """
        while True:
            found = self.get(tenant, timeline)
            self._flush_for_children(found)
            with found.unflushed(), self._changing:
                if found._gone:  # deleted by another call
                    continue
                if self._children_need(found) <= found.disk_consistent_lsn:
                    self._delete(found)
                    return

    def _delete(self, found: Timeline) -> None:
        tenant, timeline = found.tenant_id, found.timeline_id
        self._check_directories(tenant, timeline)
        layers = found.retire()
        self._store.keep_for_readers(layers)
        try:
            removed = self._store.commit(lambda txn: _remove(txn, tenant, timeline))
        except BaseException:
            # Nothing was removed: forget the retired object, so that the next get reads
            # the timeline as it is on disk.
            self._forget(tenant, timeline)
            raise
        self.leases.forget((tenant, timeline))
        self._recent.pop(tenant.raw + timeline.raw, None)  # hidden, if not gone altogether
        if timeline not in removed:
            found._record = replace(found._record, deleted=True)
            self.retention.ended(found)
            return
        self._forget(tenant, timeline)
        self._remove_files(tenant, timeline, layers)
        del layers
        self._remove_all(tenant, removed[1:])

    def _remove_all(self, tenant: TenantId, gone: Sequence[TimelineId]) -> None:
        """Ancestors that were hidden, and that nobody reads any more."""
        for timeline in gone:
            ancestor = self._forget(tenant, timeline)
            layers = ancestor.retire() if ancestor is not None else []
            self._store.keep_for_readers(layers)
            self._remove_files(tenant, timeline, layers)

    def detach(self, timeline: Timeline, layers: Sequence[tuple[int, LayerEntry]]) -> None:
        """Takes its parent from a timeline: what it read there is in these layers, whose files are
        durable under their names. One transaction; without effect where it has no parent.

        Raises:
            NotFound: TIMELINE_NOT_FOUND. ResourceExhausted: STORE_FULL.
        """
        tenant, name = timeline.tenant_id, timeline.timeline_id
        timeline.own_files()  # known before the transaction, as in `Timeline.replace_layers`
        with timeline.unflushed(), self._changing:
            if timeline._gone:
                raise NotFound("TIMELINE_NOT_FOUND", f"Timeline {name} was deleted.")
            parent = timeline.parent
            if parent is None:
                return
            record = replace(timeline._record, parent=None)
            for number, entry in layers:
                record = record.with_layer(number, entry.summary.bytes)

            def change(txn: CatalogWriter) -> list[TimelineId]:
                txn.put_timeline(tenant, name, record, layers)
                txn.remove_child(tenant, parent, name)
                above = txn.timeline(tenant, parent)
                hidden = above is not None and above.deleted
                return _remove(txn, tenant, parent) if hidden else []

            try:
                removed = self._store.commit(change)
            except Exception:
                # A transaction that seemed to fail may have been made, as in a flush.
                known = self._store.catalog.timeline(tenant, name)
                if known is None or known.parent is not None:
                    raise
                removed = []
            timeline.stand_alone(record, [timeline.make_layer(n, e.summary) for n, e in layers])
            self._remove_all(tenant, removed)

    def _check_directories(self, tenant: TenantId, timeline: TimelineId) -> None:
        """While it is known which of their files are named: of what may go with a timeline."""
        record = self._store.catalog.timeline(tenant, timeline)
        while record is not None:
            self._store.sweep.check(tenant, timeline)
            if record.parent is None:
                return
            timeline = record.parent
            record = self._store.catalog.timeline(tenant, timeline)
            if record is not None and not record.deleted:
                return

    def _forget(self, tenant: TenantId, timeline: TimelineId) -> Timeline | None:
        with self._loading:
            self._recent.pop(tenant.raw + timeline.raw, None)
            return self._loaded.pop((tenant, timeline), None)

    def _children_need(self, timeline: Timeline) -> Lsn:
        """Up to where they read it; 0 when there are none."""
        children = self._store.catalog.children(timeline.tenant_id, timeline.timeline_id)
        return max((branch_lsn for _, branch_lsn in children), default=Lsn(0))

    def _flush_for_children(self, timeline: Timeline) -> None:
        needed = self._children_need(timeline)
        if timeline.disk_consistent_lsn >= needed:
            return
        if timeline.last_record_lsn < needed:
            raise Unavailable(
                "ANCESTOR_BEHIND",
                f"Timeline {timeline.timeline_id} has a branch at {format_lsn(needed)} but "
                f"is ingested only up to {format_lsn(timeline.last_record_lsn)}.",
                "Try again when the page server has caught up with the WAL service.",
            )
        timeline.freeze()
        timeline.flush()

    def _remove_files(
        self, tenant: TenantId, timeline: TimelineId, layers: Sequence[Layer]
    ) -> None:
        """Each file goes when the last snapshot that reads it does."""
        directory = self._store.root / str(tenant) / str(timeline)
        if not directory.is_dir():
            return
        used = set()
        for layer in layers:
            path = Path(layer.path)
            used.add(path)
            layer.discard()
        for path in directory.iterdir():
            if path not in used:
                path.unlink(missing_ok=True)
        _remove_if_empty(directory)

    def pressure(self) -> Timeline | None:
        """Whom to freeze and flush next, while open layers exceed their bound; else None."""
        return self._store.pressure()

    @property
    def memory_bytes(self) -> int:
        """Of all open and frozen layers."""
        return self._store.memory_bytes

    def in_memory(self) -> Sequence[Timeline]:
        """The timelines that hold something in memory, the largest first."""
        return self._store.in_memory()


def _lock(root: Path) -> int:
    """Held as long as the store is open; goes with the process."""
    descriptor = locks.take(root / "lock")
    if descriptor is None:
        raise FailedPrecondition(
            "STORE_IN_USE", f"{root} is in use by another page server.", "Stop that one first."
        )
    return descriptor


def _not_found(tenant: TenantId, timeline: TimelineId) -> NotFound:
    return NotFound("TIMELINE_NOT_FOUND", f"There is no timeline {timeline} of tenant {tenant}.")


def _check_id(timeline: TimelineId) -> None:
    if timeline.raw == bytes(16):
        raise InvalidInput("INVALID_ID", "A timeline id of zeros means no timeline.")


def _check_branch_lsn(source: Timeline, branch_lsn: int) -> None:
    where = f"Timeline {source.timeline_id}"
    if branch_lsn > source.last_record_lsn:
        raise OutOfRange(
            "LSN_NOT_REACHED",
            f"{where} is ingested up to {format_lsn(source.last_record_lsn)}, not to "
            f"{format_lsn(branch_lsn)}.",
            "Wait until it is.",
        )


def _remove(txn: CatalogWriter, tenant: TenantId, timeline: TimelineId) -> list[TimelineId]:
    """Hides or removes a timeline; which ones are gone altogether, hidden ancestors too."""
    removed: list[TimelineId] = []
    record = txn.timeline(tenant, timeline)
    while record is not None:
        if txn.has_children(tenant, timeline):
            if not removed:
                txn.put_timeline(tenant, timeline, replace(record, deleted=True))
                txn.put_horizon(tenant, timeline, nothing_but_points(time.time()))
                txn.remove_leases(tenant, timeline)
            break
        txn.remove_timeline(tenant, timeline)
        removed.append(timeline)
        if record.parent is None:
            break
        timeline = record.parent
        record = txn.timeline(tenant, timeline)
        if record is not None and not record.deleted:
            break
    return removed


def _remove_if_empty(directory: Path) -> None:
    for path in (directory, directory.parent):
        try:
            path.rmdir()
        except OSError:
            return


def _check_not_lost(root: Path, catalog: Path) -> None:
    """Without a catalog nobody names the layers; but the catalog is made before any."""
    if catalog.exists() and catalog.stat().st_size > 0:
        return
    there = any(path.is_file() for path in root.glob("*/*/*"))
    if there and not witness.acceptance_file(catalog).exists():
        raise DataLoss(
            "CATALOG_CORRUPT",
            f"{catalog} is missing or empty, but there are layer files under {root}.",
            "Restore the catalog; no layer file was touched.",
        )
