"""One timeline: its position, its layers in memory and in files, and what readers see of it.

A value is put into the open layer; the open layer is frozen, then flushed to a file; the
catalog's transaction that names the file moves ``disk_consistent_lsn``. After a crash the
timeline is as of that LSN, and ingest begins again there.

Readers work on snapshots: immutable lists of layers, ancestors included. A snapshot taken
after an LSN was read from ``last_record_lsn`` has everything up to that LSN. The list changes
when an open layer is begun or a frozen one has become a file; then the cached snapshots of the
timeline and of all loaded descendants are dropped, so that none keeps old memory alive.

Locks, in the order in which they are taken: ``_flushing`` (one flush at a time, held over its
syncs), the repository's, ``_writing`` (append and freeze), the store's ``structure`` (lists of
layers; held for microseconds). Reads need the last two at most, and they are never held over a
sync: a disk that is slow to sync delays what is written to it and nothing else.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pagestore import keyspace
from pagestore._native import Batch, Layer, LayerSummary, OpenLayer, Snapshot
from pagestore.errors import InvalidInput, NotFound, Unavailable
from pagestore.ids import MAX_LSN, Lsn, TenantId, TimelineId, format_lsn
from pagestore.layers.files import layer_name
from pagestore.layers.native import store_errors
from pagestore.pg_control_values import unpack_settings
from pagestore.pgformat import versions
from pagestore.timeline import entries
from pagestore.timeline.entries import TimelineEntry
from pagestore.timeline.store import Store


class IngestPosition(NamedTuple):
    last_record_lsn: Lsn  # the end of the last whole record
    prev_record_lsn: Lsn  # its start; 0 when unknown


@dataclass(frozen=True, slots=True)
class Frozen:
    """An open layer that takes no more, and the position it ends at."""

    layer: OpenLayer
    position: IngestPosition


class Timeline:
    """Thread-safe for one writer (append) and any number of readers and flushers."""

    def __init__(
        self,
        store: Store,
        tenant_id: TenantId,
        timeline_id: TimelineId,
        record: TimelineEntry,
        ancestor: Timeline | None,
    ) -> None:
        self.tenant_id = tenant_id
        self.timeline_id = timeline_id
        self._store = store
        self._record = record
        self._ancestor = ancestor
        # Every read asks for it, and an ancestry may be a thousand timelines deep.
        self._earliest_lsn = record.branch_lsn if ancestor is None else ancestor.earliest_lsn
        self._children: weakref.WeakSet[Timeline] = weakref.WeakSet()
        self._position = IngestPosition(record.disk_consistent_lsn, record.prev_record_lsn)
        self._open: OpenLayer | None = None
        self._frozen: list[Frozen] = []  # newest first
        self._layers: list[Layer] | None = None  # newest first; None until first needed
        self._snapshot: Snapshot | None = None
        self._flushing = threading.RLock()  # `unflushed` and `retire` of one thread nest
        self._writing = threading.Lock()
        self._gone = record.deleted
        self._major: int | None = None
        if ancestor is not None:
            with store.structure:
                ancestor._children.add(self)

    def __repr__(self) -> str:
        return f"<Timeline {self.timeline_id} at {format_lsn(self.last_record_lsn)}>"

    @property
    def parent(self) -> TimelineId | None:
        return self._record.parent

    @property
    def branch_lsn(self) -> Lsn:
        """Where it leaves its parent; of a root, the LSN of its import."""
        return self._record.branch_lsn

    @property
    def earliest_lsn(self) -> Lsn:
        """The oldest LSN that can be read: the import of the root of its ancestry."""
        return self._earliest_lsn

    @property
    def major(self) -> int:
        """Of Postgres: the root's, whose import says so.

        Raises:
            FailedPrecondition: WRONG_POSTGRES_VERSION; one that this version does not know.
        """
        root = self
        while self._major is None and root._ancestor is not None:
            root = root._ancestor
        if root._major is None:
            raw = root.snapshot().get(keyspace.SETTINGS.pack(), root.branch_lsn)
            catalog_version = unpack_settings(raw).catalog_version if raw is not None else 0
            root._major = versions.of_catalog(catalog_version, repr(root)).major
        self._major = root._major
        return self._major

    @property
    def created(self) -> int:
        """Unix microseconds."""
        return self._record.created

    @property
    def last_record_lsn(self) -> Lsn:
        return self._position.last_record_lsn

    @property
    def prev_record_lsn(self) -> Lsn:
        return self._position.prev_record_lsn

    @property
    def disk_consistent_lsn(self) -> Lsn:
        return self._record.disk_consistent_lsn

    @property
    def layer_count(self) -> int:
        return self._record.layer_count

    @property
    def physical_bytes(self) -> int:
        """Of its own files and catalog entries."""
        return physical_bytes(self._record)

    @property
    def memory_bytes(self) -> int:
        """Of its open and frozen layers."""
        with self._store.structure:
            layers = [frozen.layer for frozen in self._frozen]
            if self._open is not None:
                layers.append(self._open)
        return sum(layer.nbytes for layer in layers)

    @property
    def is_dirty(self) -> bool:
        """Whether a crash would set it back."""
        return not self._gone and self.last_record_lsn != self.disk_consistent_lsn

    @property
    def directory(self) -> Path:
        return self._store.root / str(self.tenant_id) / str(self.timeline_id)

    def append(self, batch: Batch, last_record_lsn: int, prev_record_lsn: int) -> None:
        """Takes values in LSN order; then moves the position, which makes them readable.

        Values may lie beyond ``last_record_lsn``: of a record that takes several batches. They
        count once a later call has moved the position over them.

        Raises:
            InvalidInput: INVALID_VALUES: the batch is not in order; HISTORY_IS_FIXED: it, or the
                position, lies below what can be read already. NotFound: TIMELINE_NOT_FOUND.
        """
        with self._writing:
            self._check_alive()
            self._check_ahead(batch, last_record_lsn)
            if len(batch) > 0:
                layer = self._open_layer()
                with store_errors():
                    layer.put(batch)
            # Last: no reader asks for what lies behind the position, so none sees half a record.
            self._position = IngestPosition(Lsn(last_record_lsn), Lsn(prev_record_lsn))
        self._store.account(self)

    def _check_ahead(self, batch: Batch, last_record_lsn: int) -> None:
        """What was read once at an LSN is what is read there for ever."""
        last = self.last_record_lsn
        first_value = batch[0][1] if len(batch) > 0 else last + 1
        if last_record_lsn < last or first_value <= last:
            raise InvalidInput(
                "HISTORY_IS_FIXED",
                f"Timeline {self.timeline_id} stands at {format_lsn(last)}; values at "
                f"{format_lsn(first_value)} up to {format_lsn(last_record_lsn)} come too late.",
            )

    def _open_layer(self) -> OpenLayer:
        if self._open is None:
            layer = OpenLayer()
            with self._store.structure:
                self._open = layer
                self._snapshot = None
        return self._open

    @property
    def can_shrink(self) -> bool:
        """Whether freeze and flush would free memory now."""
        layer = self._open
        whole = layer is not None and layer.last_lsn <= self.last_record_lsn
        return bool(self._frozen) or whole

    def freeze(self) -> bool:
        """Closes the open layer. False when it is empty or ends within a record."""
        with self._writing, self._store.structure:
            layer = self._open
            if layer is None or layer.count == 0 or layer.last_lsn > self.last_record_lsn:
                return False
            layer.freeze()
            # Snapshots that were taken have the layer itself, frozen or not, and stay true.
            self._frozen.insert(0, Frozen(layer, self._position))
            self._open = None
            return True

    def flush(self) -> None:
        """Writes frozen layers to files, oldest first, and moves ``disk_consistent_lsn``.

        On failure the layer stays frozen and readable, and flush can be called again.

        Raises:
            ResourceExhausted: STORE_FULL. NotFound: the timeline was deleted.
        """
        with self._flushing:
            while self._frozen:
                self._check_alive()
                self._flush_one(self._frozen[-1])
                self._store.account(self)
            self._record_position()
            self._store.account(self)

    def _flush_one(self, frozen: Frozen) -> None:
        number = self._record.next_number
        path = self.directory / layer_name(number, 1)
        summary = self._store.files.install(
            path,
            lambda work: frozen.layer.flush(work, self.tenant_id.raw, self.timeline_id.raw, number),
        )
        record = replace(
            self._record.with_layer(number, summary.bytes),
            disk_consistent_lsn=frozen.position.last_record_lsn,
            prev_record_lsn=frozen.position.prev_record_lsn,
        )
        # Whatever becomes of the transaction, this number is not used twice.
        self._record = replace(self._record, next_number=record.next_number)
        try:
            self._store.commit(
                lambda txn: txn.put_timeline(
                    self.tenant_id, self.timeline_id, record, [(number, summary)]
                )
            )
        except Exception:
            # A transaction that failed may have been made all the same. Then the layer counts:
            # to write its values once more would put them into every chain twice.
            if not self._store.catalog.has_layer(self.tenant_id, self.timeline_id, number):
                path.unlink(missing_ok=True)
                raise
        layer = self.make_layer(number, summary)
        with self._store.structure:
            self._record = record
            self._frozen.remove(frozen)
            if self._layers is not None:
                self._layers.insert(0, layer)
            self._forget_snapshots()

    def _record_position(self) -> None:
        """Makes the position durable where all values below it are in files."""
        with self._writing:
            position = self._position
            if self._open is not None or self._frozen or not self.is_dirty:
                return
        # What is appended from here on lies behind `position`, which stays true of the files.
        record = replace(
            self._record,
            disk_consistent_lsn=position.last_record_lsn,
            prev_record_lsn=position.prev_record_lsn,
        )
        self._store.commit(lambda txn: txn.put_timeline(self.tenant_id, self.timeline_id, record))
        with self._store.structure:
            self._record = record

    def make_layer(self, number: int, summary: LayerSummary) -> Layer:
        path = self.directory / layer_name(number, summary.kind)
        return Layer(path, self.tenant_id.raw, self.timeline_id.raw, number, summary)

    def snapshot(self) -> Snapshot:
        """What can be read, ancestors included. Take it after the LSN has been decided.

        Raises:
            Unavailable: ANCESTOR_BEHIND: after a restart, an ancestor has not yet ingested
                again what this timeline needs of it.
        """
        # Without the lock, which a branch or a flush may hold: whoever takes the snapshot away
        # replaces it as a whole, and the old one still reads the same.
        snapshot = self._snapshot
        if snapshot is not None:
            return snapshot
        with self._store.structure:
            behind = self.ancestor_behind()
            if behind is not None:
                ancestor, lsn = behind
                raise Unavailable(
                    "ANCESTOR_BEHIND",
                    f"Timeline {self.timeline_id} reads timeline {ancestor.timeline_id} up to "
                    f"{format_lsn(lsn)}, which is ingested only up to "
                    f"{format_lsn(ancestor.last_record_lsn)}.",
                    "Wait until the page server has caught up with the WAL service.",
                )
            self._snapshot = Snapshot(self._sources())
            return self._snapshot

    def ancestor_behind(self) -> tuple[Timeline, Lsn] | None:
        """The nearest ancestor that has not ingested what this timeline needs of it."""
        timeline, needed = self, MAX_LSN
        while timeline._ancestor is not None:
            needed = min(needed, timeline.branch_lsn)
            timeline = timeline._ancestor
            if timeline.last_record_lsn < needed:
                return timeline, needed
        return None

    def files(self) -> list[Layer]:
        """Every layer file that reads may need, those of ancestors included; newest first."""
        with self._store.structure:
            return [source for source, _ in self._sources() if isinstance(source, Layer)]

    def _sources(self) -> list[tuple[OpenLayer | Layer, int]]:
        sources: list[tuple[OpenLayer | Layer, int]] = []
        timeline: Timeline | None = self
        limit = MAX_LSN
        while timeline is not None:
            own = [frozen.layer for frozen in timeline._frozen]
            if timeline._open is not None:
                own.insert(0, timeline._open)
            # An ancestor's layer is left out where it begins behind the branch, or with nothing.
            # Our own is in from the first: its first value shall need no other snapshot.
            sources.extend(
                (layer, limit) for layer in own if timeline is self or 0 < layer.first_lsn <= limit
            )
            sources.extend(
                (file, limit)
                for file in timeline._loaded_layers()
                if file.summary.first_lsn <= limit
            )
            limit = min(limit, timeline.branch_lsn)
            timeline = timeline._ancestor
        return sources

    def _loaded_layers(self) -> list[Layer]:
        if self._layers is None:
            listed = self._store.catalog.layers(self.tenant_id, self.timeline_id)
            self._layers = [self.make_layer(number, known) for number, known in reversed(listed)]
        return self._layers

    def _forget_snapshots(self) -> None:
        """Of this timeline and all loaded descendants; with ``structure`` held."""
        pending = [self]
        while pending:
            timeline = pending.pop()
            timeline._snapshot = None
            pending.extend(timeline._children)

    def _check_alive(self) -> None:
        if self._gone:
            raise NotFound("TIMELINE_NOT_FOUND", f"Timeline {self.timeline_id} was deleted.")

    @contextmanager
    def unflushed(self) -> Iterator[None]:
        """Waits for a flush under way, and keeps others from beginning meanwhile."""
        with self._flushing:
            yield

    def retire(self) -> list[Layer]:
        """Takes no more; drops what is in memory. Its layers, for their files to go.

        The caller has flushed what children need.
        """
        with self._flushing, self._writing, self._store.structure:
            self._gone = True
            self._open = None
            self._frozen.clear()
            layers = self._loaded_layers()
            self._forget_snapshots()
        self._store.account(self)
        return layers


def physical_bytes(record: TimelineEntry) -> int:
    total = entries.TIMELINE_ENTRY_BYTES + record.layer_count * entries.LAYER_ENTRY_BYTES
    if record.parent is not None:
        total += entries.CHILD_ENTRY_BYTES
    return record.layer_bytes + total
