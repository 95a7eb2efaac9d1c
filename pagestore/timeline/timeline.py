"""One timeline: its position, its layers in memory and in files, and what readers see of it.

A value is put into the open layer; the open layer is frozen, then flushed to a file; the
catalog's transaction that names the file moves ``disk_consistent_lsn``. After a crash the
timeline is as of that LSN, and ingest begins again there.

Readers work on snapshots (native/core/store/snapshot.h): immutable, ancestors included, and made
from each other: a timeline's is its own layers over what its parent's shows up to the branch. A
snapshot taken after an LSN was read from ``last_record_lsn`` has everything up to that LSN. When
an open layer is begun or a frozen one has become a file, the cached snapshots of the timeline are
dropped, and those of the loaded descendants that see some of that layer: so none keeps old memory
alive, and who branched before it begins is not concerned. ``view`` is the same for C.

Locks, in the order in which they are taken: ``_flushing`` (one flush at a time, held over its
syncs), the repository's, ``_writing`` (append and freeze), the store's ``structure`` (which layers
there are; held for microseconds, and never while the catalog is read). Reads need the last two at
most, and they are never held over a sync: a disk that is slow to sync delays what is written to it
and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pagestore import keyspace
from pagestore._native import Batch, Layer, LayerSummary, OpenLayer, Snapshot, TimelineView
from pagestore.errors import DataLoss, FailedPrecondition, InvalidInput, NotFound, Unavailable
from pagestore.ids import MAX_LSN, Lsn, TenantId, TimelineId, format_lsn
from pagestore.layers.files import Files, layer_name
from pagestore.layers.native import store_errors
from pagestore.pg_control_values import major_of
from pagestore.timeline import entries
from pagestore.timeline.catalog import CatalogWriter
from pagestore.timeline.entries import LayerEntry, TimelineEntry
from pagestore.timeline.held import Frozen, IngestPosition, OwnLayer
from pagestore.timeline.retained import ALL, Retained
from pagestore.timeline.store import Store


class Timeline:
    """Thread-safe for one writer (append) and any number of readers and flushers."""

    def __init__(
        self,
        store: Store,
        tenant_id: TenantId,
        timeline_id: TimelineId,
        record: TimelineEntry,
        ancestor: Timeline | None,
        horizon: Lsn = ALL,
    ) -> None:
        self.tenant_id = tenant_id
        self.timeline_id = timeline_id
        self._store = store
        self._record = record
        self._ancestor = ancestor
        # Every read asks for it, and an ancestry may be a thousand timelines deep.
        self._earliest_lsn = record.branch_lsn if ancestor is None else ancestor.earliest_lsn
        self.horizon = horizon  # its cutoff, see retention.py
        self.kept_from = max(record.branch_lsn, horizon)
        self.retained: Retained | None = None  # once it has a horizon, and somebody asked
        self._children: weakref.WeakSet[Timeline] = weakref.WeakSet()
        self._last_branch_lsn = Lsn(0)  # of the children that ever were
        self._position = IngestPosition(record.disk_consistent_lsn, record.prev_record_lsn)
        self._open: OpenLayer | None = None
        self._frozen: list[Frozen] = []  # newest first
        self._files: Snapshot | None = None  # its own; None until first needed
        self._layers: Snapshot | None = None  # its own and its ancestors'
        self._snapshot: Snapshot | None = None  # the same, once the ancestors are known whole
        self.view = TimelineView(*self._position, self._earliest_lsn, self.kept_from)
        self._flushing = threading.RLock()  # `unflushed` and `retire` of one thread nest
        self._writing = threading.Lock()
        self._gone = record.deleted
        self._major: int | None = None
        self._opened = False
        if ancestor is not None:
            with store.structure:
                ancestor._children.add(self)
                ancestor._last_branch_lsn = max(ancestor._last_branch_lsn, record.branch_lsn)

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
        """Where its history begins: the import of the root of its ancestry."""
        return self._earliest_lsn

    @property
    def ancestor(self) -> Timeline | None:
        return self._ancestor

    def owner(self, lsn: int) -> Timeline:
        """Of it and its ancestors, the one in whose own history an LSN lies."""
        timeline = self
        while lsn < timeline.branch_lsn and timeline._ancestor is not None:
            timeline = timeline._ancestor
        return timeline

    def move_horizon(self, lsn: Lsn) -> None:
        """Once it is durable that what is below may go."""
        self.horizon = lsn
        self.kept_from = max(self.branch_lsn, lsn)
        self.view.keep(self.kept_from)

    @property
    def major(self) -> int:
        """Of Postgres: the root's, as its history says. Read once: ask beside the event loop.

        Raises:
            FailedPrecondition: WRONG_POSTGRES_VERSION; one that this version does not know.
            Unavailable: IO_ERROR, OBJECT_STORE_UNAVAILABLE. DataLoss: LAYER_CORRUPT.
        """
        found = self.known_major
        if found is None:
            root = self.owner(0)
            with store_errors():
                raw = root.snapshot().get(keyspace.SETTINGS.pack(), root.last_record_lsn)
            found = root._major = major_of(raw, repr(root))
        self._major = found
        return found

    @property
    def known_major(self) -> int | None:
        """`major`, if it was read by now."""
        timeline = self
        while timeline._major is None and timeline._ancestor is not None:
            timeline = timeline._ancestor
        return timeline._major

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
        return entries.physical_bytes(self._record)

    @property
    def memory_bytes(self) -> int:
        """Of its open and frozen layers."""
        with self._store.structure:
            layers = [frozen.layer for frozen in self._frozen]
            if self._open is not None:
                layers.append(self._open)
        return sum(layer.nbytes for layer in layers)

    @property
    def open_depth(self) -> int:
        """The most that one read has to apply of the open layer; see `Layer.depth`."""
        layer = self._open
        return 0 if layer is None else layer.depth

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
            self.view.move(last_record_lsn, prev_record_lsn)
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
                self._forget_snapshots(self.last_record_lsn + 1)
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
        self._store.sweep.check(self.tenant_id, self.timeline_id)
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
                    self.tenant_id, self.timeline_id, record, [(number, LayerEntry.fresh(summary))]
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
            if self._files is not None:
                self._files = self._files.replace((), (layer,))
            self._forget_snapshots(summary.first_lsn)

    def replace_layers(
        self, removed: Sequence[int], added: Sequence[tuple[int, LayerEntry]]
    ) -> None:
        """Other layers, by their numbers, in the place of some: as a compaction makes them.

        One transaction, then the snapshots. Together they must read as before, wherever anybody
        may read. The files of those that are added are durable under their names; of those that
        are removed each goes with the last snapshot that shows it. If this fails nothing has
        changed, and the files that were to be added are still the caller's.

        Raises:
            InvalidInput: UNKNOWN_LAYER: one is not a layer of this timeline.
            NotFound: TIMELINE_NOT_FOUND. ResourceExhausted: STORE_FULL.
        """
        if not removed and not added:
            return
        # Before the transaction: who learns the layers from the catalog must not meet it between
        # the two steps.
        self._load_files()
        with self._flushing:
            self._store.sweep.check(self.tenant_id, self.timeline_id)
            gone = self._numbered(removed)
            self._store.keep_for_readers(gone)
            record = self._record
            for layer in gone:
                record = record.without_layer(layer.summary.bytes)
            for number, entry in added:
                record = record.with_layer(number, entry.summary.bytes)
            self._commit_replacement(record, removed, added)
            made = [self.make_layer(number, entry.summary) for number, entry in added]
            with self._store.structure:
                assert self._files is not None
                self._record = record
                self._files = self._files.replace(gone, made)
                self._forget_snapshots(min(layer.summary.first_lsn for layer in [*gone, *made]))
        for layer in gone:
            layer.discard()

    def _numbered(self, numbers: Sequence[int]) -> list[Layer]:
        assert self._files is not None
        own = {int(Path(layer.path).stem, 16): layer for layer in self._files.files()}
        for number in numbers:
            if number not in own:
                raise InvalidInput(
                    "UNKNOWN_LAYER", f"Timeline {self.timeline_id} has no layer {number}."
                )
        return [own[number] for number in numbers]

    def _commit_replacement(
        self,
        record: TimelineEntry,
        removed: Sequence[int],
        added: Sequence[tuple[int, LayerEntry]],
    ) -> None:
        tenant, timeline, catalog = self.tenant_id, self.timeline_id, self._store.catalog
        gone = [
            number
            for number, kind in catalog.replaced(tenant, timeline)
            if not (self.directory / layer_name(number, kind)).exists()
        ]

        def change(txn: CatalogWriter) -> None:
            if txn.timeline(tenant, timeline) is None:
                raise self._deleted()
            txn.replace_layers(tenant, timeline, record, removed, added)
            txn.forget_replaced(tenant, timeline, gone)

        try:
            self._store.commit(change)
        except NotFound:
            raise
        except Exception:
            # As in a flush: a transaction that seemed to fail may have been made.
            if added and catalog.has_layer(tenant, timeline, added[0][0]):
                return
            if not added and not catalog.has_layer(tenant, timeline, removed[0]):
                return
            raise

    def reserve_number(self) -> int:
        """Of a layer that somebody is about to write; never given twice. Waits for a flush."""
        with self._flushing:
            self._store.sweep.check(self.tenant_id, self.timeline_id)
            number = self._record.next_number
            self._record = replace(self._record, next_number=number + 1)
            return number

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
        return Layer(
            path, self.tenant_id.raw, self.timeline_id.raw, number, summary, self._store.remote
        )

    def known_files(self) -> list[Layer]:
        """Its own layer files, if they have been learned by now."""
        files = self._files
        return [] if files is None else files.files()

    @property
    def cached_snapshot(self) -> Snapshot | None:
        """What `snapshot` would give, if that is known by now."""
        return self._snapshot if self._opened else None

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
        self._load_files()
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
            self._snapshot = self._with_ancestors()
            self.view.publish(self._snapshot)
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
        """Every layer file that reads may need, those of ancestors last."""
        self._load_files()
        with self._store.structure:
            return self._with_ancestors().files()

    def own_files(self) -> list[Layer]:
        """The layer files that are its own."""
        self._load_files()
        with self._store.structure:
            assert self._files is not None
            return self._files.files()

    def own_layers(self) -> list[OwnLayer]:
        """Its own layer files, with what the catalog says of each; by number."""
        files = {int(Path(layer.path).stem, 16): layer for layer in self.own_files()}
        listed = self._store.catalog.layers(self.tenant_id, self.timeline_id)
        # Between the two a flush may have added one, and a compaction taken one away.
        return [OwnLayer(n, entry, files[n]) for n, entry in listed if n in files]

    @property
    def file_steps(self) -> Files:
        """How its files become durable."""
        return self._store.files

    @property
    def opened(self) -> bool:
        """Whether it can be read without a look at the catalog or at a file's head."""
        return self._opened

    def open(self) -> None:
        """Learns what its first reader needs. Blocks on files: call it beside the event loop.

        Raises:
            Unavailable: IO_ERROR, OBJECT_STORE_UNAVAILABLE: what it needs cannot be read now.
        """
        self._load_files()
        with contextlib.suppress(DataLoss, FailedPrecondition):  # whoever needs it is told
            _ = self.major
        self._opened = True

    def _load_files(self) -> None:
        """Learns from the catalog what files it and its ancestors have. Not under a lock."""
        timeline: Timeline | None = self
        while timeline is not None:
            while timeline._files is None:
                known = timeline._record.layer_count
                listed = timeline._store.catalog.layers(timeline.tenant_id, timeline.timeline_id)
                # One more may be in the catalog already, of a flush that is about to add it.
                layers = [timeline.make_layer(n, layer.summary) for n, layer in listed[:known]]
                with self._store.structure:
                    if timeline._record.layer_count == known and timeline._files is None:
                        timeline._files = Snapshot(layers)
            timeline = timeline._ancestor

    def _with_ancestors(self) -> Snapshot:
        """With ``structure`` held, after `_load_files`."""
        missing: list[Timeline] = []
        timeline: Timeline | None = self
        while timeline is not None and timeline._layers is None:
            missing.append(timeline)
            timeline = timeline._ancestor
        for timeline in reversed(missing):
            timeline._layers = timeline._over_parent(timeline._own_layers())
        assert self._layers is not None
        return self._layers

    def _own_layers(self) -> Snapshot:
        assert self._files is not None
        memory = [frozen.layer for frozen in self._frozen]
        if self._open is not None:
            memory.append(self._open)
        return self._files.replace((), memory) if memory else self._files

    def _over_parent(self, own: Snapshot) -> Snapshot:
        if self._ancestor is None:
            return own
        assert self._ancestor._layers is not None
        return own.over(self._ancestor._layers, self.branch_lsn)

    def _forget_snapshots(self, first_lsn: int) -> None:
        """After a change of a layer that begins at an LSN: its own, and those of the loaded
        descendants that see some of it; with ``structure`` held."""
        pending = [self]
        while pending:
            timeline = pending.pop()
            timeline._snapshot = timeline._layers = None
            timeline.view.publish(None)
            if timeline._last_branch_lsn >= first_lsn:
                pending.extend(c for c in timeline._children if c.branch_lsn >= first_lsn)

    def _check_alive(self) -> None:
        if self._gone:
            raise self._deleted()

    def _deleted(self) -> NotFound:
        return NotFound("TIMELINE_NOT_FOUND", f"Timeline {self.timeline_id} was deleted.")

    @contextmanager
    def unflushed(self) -> Iterator[None]:
        """Waits for a flush under way, and keeps others from beginning meanwhile."""
        with self._flushing:
            yield

    def stand_alone(self, record: TimelineEntry, made: Sequence[Layer]) -> None:
        """The catalog says that it has no parent any more, and these layers instead.

        With `unflushed`, after `files`.
        """
        with self._store.structure:
            assert self._files is not None
            if self._ancestor is not None:
                self._ancestor._children.discard(self)
            self._record, self._ancestor = record, None
            self._files = self._files.replace((), made)
            pending = [self]
            while pending:
                timeline = pending.pop()
                timeline._earliest_lsn = record.branch_lsn
                pending.extend(timeline._children)
            self._forget_snapshots(0)

    def retire(self) -> list[Layer]:
        """Takes no more; drops what is in memory. Its layers, for their files to go.

        The caller has flushed what children need.
        """
        self._load_files()
        with self._flushing, self._writing, self._store.structure:
            assert self._files is not None
            self._gone = True
            self._open = None
            self._frozen.clear()
            self._forget_snapshots(0)
            layers = self._files.files()
        self._store.account(self)
        return layers
