"""The catalog: what timelines and layers there are. One LMDB file, one writer process.

It is the truth: a layer file it does not name is garbage, and a change to a timeline is one
transaction here, made after the files it speaks of are durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import lmdb

from pagestore._native import LayerSummary
from pagestore.errors import FailedPrecondition, PagestoreError, ResourceExhausted, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.layers.native import FULL_HINT
from pagestore.timeline import entries
from pagestore.timeline.catalog_check import check_catalog
from pagestore.timeline.entries import TimelineEntry, corrupt

T = TypeVar("T")

MAP_BYTES = 64 << 30
"""Address space, not memory or disk: the file grows as it is written, up to this."""

_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.PanicError,
    lmdb.BadValsizeError,
)


class CatalogWriter:
    """The changes of one transaction."""

    def __init__(self, catalog: Catalog, txn: lmdb.Transaction) -> None:
        self._catalog = catalog
        self._txn = txn

    def timeline(self, tenant: TenantId, timeline: TimelineId) -> TimelineEntry | None:
        return self._catalog.read_timeline(self._txn, tenant, timeline)

    def put_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        record: TimelineEntry,
        layers: Iterable[tuple[int, LayerSummary]] = (),
    ) -> None:
        """Writes a timeline's record, and adds layers: (number, summary)."""
        key = entries.timeline_key(tenant, timeline)
        self._txn.put(key, record.pack(key))
        for number, summary in layers:
            key = entries.layer_key(tenant, timeline, number)
            self._txn.put(key, entries.pack_layer(key, summary))

    def put_branch(
        self, tenant: TenantId, parent: TimelineId, child: TimelineId, record: TimelineEntry
    ) -> None:
        """A new timeline with the link by which its parent finds it."""
        self.put_timeline(tenant, child, record)
        key = entries.child_key(tenant, parent, child)
        self._txn.put(key, entries.seal(key, b""))

    def remove_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        """With its layers' entries and its parent's link."""
        record = self.timeline(tenant, timeline)
        if record is None:
            return
        prefix = entries.layer_key(tenant, timeline, 0)[:-8]
        for key in [key for key, _ in self._catalog.entries(self._txn, prefix)]:
            self._txn.delete(key)
        if record.parent is not None:
            self._txn.delete(entries.child_key(tenant, record.parent, timeline))
        self._txn.delete(entries.timeline_key(tenant, timeline))

    def has_children(self, tenant: TenantId, timeline: TimelineId) -> bool:
        return self._catalog.has_children(self._txn, tenant, timeline)


class Catalog:
    """Thread-safe. Every read checks the checksum of what it reads.

    Raises DataLoss CATALOG_CORRUPT from any method, with the file named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        if path.exists():
            check_catalog(path)
        with self._errors():
            self._env = lmdb.open(
                self.where, subdir=False, map_size=MAP_BYTES, max_readers=1024, mode=0o600
            )
        try:
            self._check_format()
        except PagestoreError:
            self._env.close()
            raise

    def close(self) -> None:
        self._env.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError as error:
            raise ResourceExhausted(
                "CATALOG_FULL", f"{self.where} has its greatest size, {MAP_BYTES} bytes."
            ) from error
        except _DAMAGE as error:
            raise corrupt(self.where, str(error)) from error
        except lmdb.Error as error:
            if "No space left" in str(error) or "quota" in str(error):
                raise ResourceExhausted(
                    "STORE_FULL", f"{self.where}: {error}", FULL_HINT
                ) from error
            raise Unavailable("IO_ERROR", f"{self.where}: {error}") from error

    def _check_format(self) -> None:
        with self._errors(), self._env.begin() as txn:
            value = txn.get(entries.FORMAT_KEY)
            fresh = value is None and txn.stat()["entries"] == 0
        if fresh:
            self.update(lambda _: None)
            return
        if value is None:
            raise corrupt(self.where, "it has no format version")
        version = entries.unpack_format(value, self.where)
        if version != entries.FORMAT_VERSION:
            raise FailedPrecondition(
                "CATALOG_VERSION",
                f"{self.where} has format {version}; this pagestore reads "
                f"{entries.FORMAT_VERSION}.",
                "Use the pagestore version that wrote it.",
            )

    def update(self, change: Callable[[CatalogWriter], T]) -> T:
        """One durable transaction; all of ``change`` or nothing.

        Raises:
            ResourceExhausted: STORE_FULL; nothing was changed.
        """
        with self._errors(), self._env.begin(write=True) as txn:
            result = change(CatalogWriter(self, txn))
            txn.put(entries.FORMAT_KEY, entries.pack_format(), overwrite=False)
            txn.put(entries.GENERATION_KEY, entries.pack_generation(txn.id()))
        return result

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

    def children(self, tenant: TenantId, timeline: TimelineId) -> list[TimelineId]:
        prefix = entries.child_key(tenant, timeline, timeline)[:-16]
        with self._errors(), self._env.begin() as txn:
            return [TimelineId(key[-16:]) for key, _ in self.entries(txn, prefix)]

    def layers(self, tenant: TenantId, timeline: TimelineId) -> list[tuple[int, LayerSummary]]:
        """(number, summary), ascending by number: oldest first."""
        prefix = entries.layer_key(tenant, timeline, 0)[:-8]
        with self._errors(), self._env.begin() as txn:
            return [
                (
                    int.from_bytes(key[-8:], "big"),
                    entries.unpack_layer(key, value, self.where),
                )
                for key, value in self.entries(txn, prefix)
            ]

    def has_layer(self, tenant: TenantId, timeline: TimelineId, number: int) -> bool:
        with self._errors(), self._env.begin() as txn:
            return txn.get(entries.layer_key(tenant, timeline, number)) is not None
