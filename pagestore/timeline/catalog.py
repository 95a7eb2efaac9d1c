"""The catalog: what timelines and layers there are. One LMDB file, one writer process.

It is the truth: a layer file it does not name is nobody's, and a change to a timeline is one
transaction here, made after the files it speaks of are durable.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from pagestore.errors import InvalidInput
from pagestore.ids import Lsn, TenantId, TimelineId, format_lsn
from pagestore.lmdbfile import witness
from pagestore.lmdbfile.changes import Changes
from pagestore.lmdbfile.failing import store_errors
from pagestore.lmdbfile.whole import Change, Tally, Whole
from pagestore.lmdbfile.witness import Witness
from pagestore.timeline import entries
from pagestore.timeline.catalog_check import check_catalog
from pagestore.timeline.entries import Horizon, LayerEntry, Place, TimelineEntry, corrupt

T = TypeVar("T")

MAP_BYTES = 64 << 30
"""Address space, not memory or disk: the file grows as it is written, up to this."""


class CatalogWriter:
    """The changes of one transaction."""

    def __init__(self, catalog: Catalog, txn: lmdb.Transaction) -> None:
        self._catalog = catalog
        self._txn = txn
        self.tally = Tally()
        self.removed: list[tuple[bytes, LayerEntry]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.tally.put(b"", key, _owned(self._txn.replace(key, value)), value)

    def delete(self, key: bytes) -> None:
        old = _owned(self._txn.pop(key))
        self.tally.delete(b"", key, old)
        if old is not None and key.startswith(entries.LAYER):
            self.removed.append((key, LayerEntry.unpack(key, old, self._catalog.where)))

    def timeline(self, tenant: TenantId, timeline: TimelineId) -> TimelineEntry | None:
        return self._catalog.read_timeline(self._txn, tenant, timeline)

    def put_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        record: TimelineEntry,
        layers: Iterable[tuple[int, LayerEntry]] = (),
    ) -> None:
        """Writes a timeline's record, and adds layers by their numbers."""
        key = entries.timeline_key(tenant, timeline)
        self.put(key, record.pack(key))
        for number, layer in layers:
            key = entries.layer_key(tenant, timeline, number)
            generation = layer.generation or self._catalog.generation
            self.put(key, replace(layer, generation=generation).pack(key))

    def move_layer(self, key: bytes, place: Place) -> bool:
        """Says where a layer's file lies now; False where there is no such layer any more."""
        value = _owned(self._txn.get(key))
        if value is None:
            return False
        layer = LayerEntry.unpack(key, value, self._catalog.where)
        if layer.place != place:
            self.put(key, replace(layer, place=place).pack(key))
        return True

    def replace_layers(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        record: TimelineEntry,
        removed: Iterable[int],
        added: Iterable[tuple[int, LayerEntry]],
    ) -> None:
        """Writes a timeline's record, with other layers in the place of some of its own.

        The files of those are named as replaced, so that what a crash leaves of them may go.
        """
        for number in removed:
            key = entries.layer_key(tenant, timeline, number)
            value = _owned(self._txn.get(key))
            if value is None:
                raise corrupt(self._catalog.where, f"it has no entry {key.hex()} of a known layer")
            layer = LayerEntry.unpack(key, value, self._catalog.where)
            self.delete(key)
            key = entries.replaced_key(tenant, timeline, number)
            self.put(key, entries.pack_replaced(key, layer.summary.kind))
        self.put_timeline(tenant, timeline, record, added)

    def forget_replaced(
        self, tenant: TenantId, timeline: TimelineId, numbers: Iterable[int]
    ) -> None:
        """Their files are gone."""
        for number in numbers:
            self.delete(entries.replaced_key(tenant, timeline, number))

    def put_branch(
        self, tenant: TenantId, parent: TimelineId, child: TimelineId, record: TimelineEntry
    ) -> None:
        """A new timeline with the link by which its parent finds it."""
        self.put_timeline(tenant, child, record)
        key = entries.child_key(tenant, parent, child)
        self.put(key, entries.pack_child(key, record.branch_lsn))

    def remove_child(self, tenant: TenantId, parent: TimelineId, child: TimelineId) -> None:
        self.delete(entries.child_key(tenant, parent, child))

    def put_horizon(self, tenant: TenantId, timeline: TimelineId, horizon: Horizon) -> None:
        """Moves the cutoff of a timeline's history, or says who holds it now.

        Raises:
            InvalidInput: HISTORY_IS_FIXED: it would go back, and history that may be gone count.
        """
        key = entries.horizon_key(tenant, timeline)
        known = _owned(self._txn.get(key))
        if known is not None:
            before = Horizon.unpack(key, known, self._catalog.where)
            if horizon.lsn < before.lsn:
                raise InvalidInput(
                    "HISTORY_IS_FIXED",
                    f"The horizon of timeline {timeline} stands at {format_lsn(before.lsn)} and "
                    f"cannot go back to {format_lsn(horizon.lsn)}.",
                )
        self.put(key, horizon.pack(key))

    def put_window(
        self, tenant: TenantId, timeline: TimelineId, window: tuple[int, int] | None
    ) -> None:
        """How much history of a timeline is kept, in seconds and bytes of WAL; None: as of all."""
        key = entries.window_key(tenant, timeline)
        if window is None:
            self.delete(key)
        else:
            self.put(key, entries.pack_window(key, *window))

    def put_point(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> None:
        """Keeps an LSN until it is removed."""
        key = entries.point_key(tenant, timeline, lsn)
        self.put(key, entries.seal(key, b""))

    def remove_point(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> None:
        self.delete(entries.point_key(tenant, timeline, lsn))

    def put_lease(self, tenant: TenantId, timeline: TimelineId, lsn: int, expires: int) -> None:
        """Holds an LSN until a Unix second."""
        key = entries.lease_key(tenant, timeline, lsn)
        self.put(key, entries.pack_lease(key, expires))

    def remove_lease(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> None:
        self.delete(entries.lease_key(tenant, timeline, lsn))

    def remove_leases(self, tenant: TenantId, timeline: TimelineId) -> None:
        self._delete_all(entries.lease_key(tenant, timeline, 0)[:-8])

    def remove_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        """With all entries about it and its parent's link."""
        record = self.timeline(tenant, timeline)
        if record is None:
            return
        self._delete_all(entries.layer_key(tenant, timeline, 0)[:-8])
        self._delete_all(entries.replaced_key(tenant, timeline, 0)[:-8])
        self._delete_all(entries.horizon_key(tenant, timeline))
        self._delete_all(entries.window_key(tenant, timeline))
        self._delete_all(entries.point_key(tenant, timeline, 0)[:-8])
        self.remove_leases(tenant, timeline)
        if record.parent is not None:
            self.delete(entries.child_key(tenant, record.parent, timeline))
        self.delete(entries.timeline_key(tenant, timeline))

    def _delete_all(self, prefix: bytes) -> None:
        for key in [key for key, _ in self._catalog.entries(self._txn, prefix)]:
            self.delete(key)

    def has_children(self, tenant: TenantId, timeline: TimelineId) -> bool:
        return self._catalog.has_children(self._txn, tenant, timeline)


class Catalog:
    """Thread-safe. Every read checks the checksum of what it reads.

    Raises DataLoss CATALOG_CORRUPT from any method, with the file named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        checked = check_catalog(path)
        self.accepted = False
        """Whether somebody has said that an older copy will do."""
        self.generation = 0
        """Of the page server, which layers are written under."""
        self.on_removed: Callable[[int, list[tuple[bytes, LayerEntry]]], object] | None = None
        """Told the transaction and the layers that it has removed, before another one."""
        self._witness: Witness | None = None
        self._changes: Changes | None = None
        self._in_order = threading.Lock()
        self._env: Any = None
        with self._errors():
            self._env = lmdb.open(
                self.where, subdir=False, map_size=MAP_BYTES, max_readers=1024, mode=0o600
            )
        try:
            whole = checked.whole if checked else Whole(0, os.urandom(16), 0)
            if checked is None or checked.version < entries.FORMAT_VERSION:
                whole = self._begin_format(whole)
            self._witness = Witness(path, whole)
            self.accepted = witness.acceptance_file(path).exists()
            witness.acceptance_file(path).unlink(missing_ok=True)
        except BaseException:
            self._env.close()
            raise

    def close(self) -> None:
        with self._in_order:  # whoever is in a transaction comes to its end
            self._env.close()
        if self._witness is not None:
            self._witness.close()

    def _errors(self) -> AbstractContextManager[None]:
        return store_errors(
            self.path,
            lambda what: corrupt(self.where, what),
            full="CATALOG_FULL",
            env=self._env,
        )

    def _begin_format(self, whole: Whole) -> Whole:
        """Of a new catalog, or an old one, whose entries stay as they are and are read so."""
        with self._errors(), self._env.begin(write=True) as txn:
            writer = CatalogWriter(self, txn)
            writer.put(entries.FORMAT_KEY, entries.pack_format())
            writer.put(entries.NEEDS_KEY, entries.pack_needs())
            return self._seal_whole(writer, txn, whole)

    def _seal_whole(self, writer: CatalogWriter, txn: lmdb.Transaction, whole: Whole) -> Whole:
        after = writer.tally.after(whole, txn.id())
        txn.put(entries.GENERATION_KEY, entries.pack_whole(after))
        return after

    def update(self, change: Callable[[CatalogWriter], T]) -> T:
        """One durable transaction; all of ``change`` or nothing.

        Raises:
            ResourceExhausted: STORE_FULL; nothing was changed.
        """
        # LMDB has one writer at a time as it is; what follows it sees them in their order.
        with self._in_order:
            with self._errors(), self._env.begin(write=True) as txn:
                writer = CatalogWriter(self, txn)
                result = change(writer)
                whole = self._seal_whole(writer, txn, self._read_whole(txn))
            if writer.removed and self.on_removed is not None:
                self.on_removed(whole.transaction, writer.removed)
            if self._changes is not None:
                self._changes.note(whole, writer.tally.changes)
        if self._witness is not None:
            self._witness.note(whole.transaction)
        return result

    def follow(self, changes: Changes) -> None:
        """Hands over what each transaction changes from now on."""
        with self._in_order:
            self._changes = changes

    @contextmanager
    def whole(self) -> Iterator[tuple[Whole, Iterator[Change]]]:
        """What the file says of the whole, with all entries: as of one transaction."""
        with self._errors(), self._env.begin() as txn:
            found = (
                Change(b"", key, value)
                for key, value in self.entries(txn, b"")
                if key != entries.GENERATION_KEY
            )
            yield self._read_whole(txn), found

    def _read_whole(self, txn: lmdb.Transaction) -> Whole:
        said = _owned(txn.get(entries.GENERATION_KEY))
        if said is None:
            raise corrupt(self.where, "it has no generation")
        return entries.unpack_whole(said, self.where)

    def entries(self, txn: lmdb.Transaction, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = txn.cursor()
        if not cursor.set_range(prefix):
            return
        for key, value in cursor:
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            if not key.startswith(prefix):
                return
            yield key, value

    def read_timeline(
        self, txn: lmdb.Transaction, tenant: TenantId, timeline: TimelineId
    ) -> TimelineEntry | None:
        key = entries.timeline_key(tenant, timeline)
        value = txn.get(key)
        if value is None:
            return None
        return TimelineEntry.unpack(key, bytes(value), self.where)

    def has_children(self, txn: lmdb.Transaction, tenant: TenantId, timeline: TimelineId) -> bool:
        prefix = entries.child_key(tenant, timeline, timeline)[:-16]
        return next(self.entries(txn, prefix), None) is not None

    def timeline(self, tenant: TenantId, timeline: TimelineId) -> TimelineEntry | None:
        with self._errors(), self._env.begin() as txn:
            return self.read_timeline(txn, tenant, timeline)

    def unknown(
        self, names: Iterable[tuple[TenantId, TimelineId]]
    ) -> list[tuple[TenantId, TimelineId]]:
        """Those that are no timelines, hidden ones neither."""
        with self._errors(), self._env.begin() as txn:
            return [name for name in names if txn.get(entries.timeline_key(*name)) is None]

    def timelines(
        self, tenant: TenantId | None = None
    ) -> list[tuple[TenantId, TimelineId, TimelineEntry]]:
        """All of a tenant, or of all tenants, hidden ones too."""
        with self._errors(), self._env.begin() as txn:
            return [
                (
                    TenantId(key[1:17]),
                    TimelineId(key[17:33]),
                    TimelineEntry.unpack(key, value, self.where),
                )
                for key, value in self.entries(txn, b"t" + (tenant.raw if tenant else b""))
            ]

    def children(self, tenant: TenantId, timeline: TimelineId) -> list[tuple[TimelineId, Lsn]]:
        """With their branch LSNs."""
        prefix = entries.child_key(tenant, timeline, timeline)[:-16]
        with self._errors(), self._env.begin() as txn:
            return [
                (TimelineId(key[-16:]), self._branch_lsn(txn, tenant, key, value))
                for key, value in self.entries(txn, prefix)
            ]

    def _branch_lsn(self, txn: lmdb.Transaction, tenant: TenantId, key: bytes, value: bytes) -> Lsn:
        branch_lsn = entries.unpack_child(key, value, self.where)
        if branch_lsn is not None:
            return branch_lsn
        child = self.read_timeline(txn, tenant, TimelineId(key[-16:]))
        if child is None:
            raise corrupt(self.where, f"entry {key.hex()} is of a child that is not there")
        return child.branch_lsn

    def horizon(self, tenant: TenantId, timeline: TimelineId) -> Horizon | None:
        """None while all history is kept."""
        key = entries.horizon_key(tenant, timeline)
        with self._errors(), self._env.begin() as txn:
            value = txn.get(key)
            return None if value is None else Horizon.unpack(key, bytes(value), self.where)

    def window(self, tenant: TenantId, timeline: TimelineId) -> tuple[int, int] | None:
        """Seconds and bytes of WAL; None where it is as of all."""
        key = entries.window_key(tenant, timeline)
        with self._errors(), self._env.begin() as txn:
            value = txn.get(key)
            return None if value is None else entries.unpack_window(key, bytes(value), self.where)

    def points(self, tenant: TenantId, timeline: TimelineId) -> list[Lsn]:
        """What is kept by name, ascending."""
        prefix = entries.point_key(tenant, timeline, 0)[:-8]
        with self._errors(), self._env.begin() as txn:
            return [
                Lsn(int.from_bytes(key[-8:], "big"))
                for key, value in self.entries(txn, prefix)
                if not entries.unseal(key, value, self.where)
            ]

    def told(self) -> set[tuple[TenantId, TimelineId]]:
        """Timelines that have a window of their own, or points."""
        with self._errors(), self._env.begin() as txn:
            return {
                (TenantId(key[1:17]), TimelineId(key[17:33]))
                for prefix in (b"k", b"w")
                for key, _ in self.entries(txn, prefix)
            }

    def leases(self) -> list[tuple[TenantId, TimelineId, int, int]]:
        """All there are: tenant, timeline, LSN, the Unix second at which it ends."""
        with self._errors(), self._env.begin() as txn:
            return [
                (
                    TenantId(key[1:17]),
                    TimelineId(key[17:33]),
                    int.from_bytes(key[33:], "big"),
                    entries.unpack_lease(key, value, self.where),
                )
                for key, value in self.entries(txn, b"e")
            ]

    def layer(self, tenant: TenantId, timeline: TimelineId, number: int) -> LayerEntry | None:
        key = entries.layer_key(tenant, timeline, number)
        with self._errors(), self._env.begin() as txn:
            value = txn.get(key)
            return None if value is None else LayerEntry.unpack(key, bytes(value), self.where)

    def layers(self, tenant: TenantId, timeline: TimelineId) -> list[tuple[int, LayerEntry]]:
        """By number, ascending."""
        prefix = entries.layer_key(tenant, timeline, 0)[:-8]
        with self._errors(), self._env.begin() as txn:
            return [
                (
                    int.from_bytes(key[-8:], "big"),
                    LayerEntry.unpack(key, value, self.where),
                )
                for key, value in self.entries(txn, prefix)
            ]

    def replaced(self, tenant: TenantId, timeline: TimelineId) -> list[tuple[int, int]]:
        """Number and kind of layers that others stand for; their files may still be there."""
        prefix = entries.replaced_key(tenant, timeline, 0)[:-8]
        with self._errors(), self._env.begin() as txn:
            return [
                (
                    int.from_bytes(key[-8:], "big"),
                    entries.unpack_replaced(key, value, self.where),
                )
                for key, value in self.entries(txn, prefix)
            ]

    def has_layer(self, tenant: TenantId, timeline: TimelineId, number: int) -> bool:
        with self._errors(), self._env.begin() as txn:
            return txn.get(entries.layer_key(tenant, timeline, number)) is not None


def _owned(value: bytes | memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)
