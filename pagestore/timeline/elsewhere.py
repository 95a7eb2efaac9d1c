"""The layers of a store as objects: their names, how they are read, and when they go.

With an object store, a layer file is here, there, or in both places (`Place`), as the catalog says.
Whoever reads one that is not here fetches ranges of it (native/core/layer/remote.h) by the
callables below, which run on the thread that reads. One that is here and damaged is read from there
too, and noted, to be mended.

An object goes when nothing can want it any more: no read, for which removed layers are held until
nobody else does; and no recovery, which reads the journal: so the removal must be durable there.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from pagestore import durable
from pagestore._native import Layer, Remote
from pagestore.errors import (
    DataLoss,
    FailedPrecondition,
    NotFound,
    PagestoreError,
    Unavailable,
    of_disk,
)
from pagestore.ids import TenantId, TimelineId
from pagestore.layers.files import SUFFIXES, Files, layer_name, temporary
from pagestore.layers.native import LayerKind
from pagestore.timeline.catalog import Catalog
from pagestore.timeline.damage import failure, is_damaged
from pagestore.timeline.entries import LayerEntry, Place, layer_key, layer_of

if TYPE_CHECKING:
    from pagestore.objects.store import ObjectStore

UNBOUNDED = 1 << 62
CACHE = "cache"
"""The directory of what was fetched; what an earlier process left there is worth nothing."""
AWAY_SECONDS = 1.0
"""After a failure reads are told so at once: a read may want many layers. Then one asks the store
again, which may take as long as that is patient, and the others are told so meanwhile."""
TOLD_SECONDS = 30.0
"""For which a failure is told of, if nobody has read since."""
FETCH_BYTES = 8 << 20
_log = structlog.get_logger(__name__)


def object_name(key: bytes, entry: LayerEntry) -> str:
    """Of a layer, by its key in the catalog."""
    tenant, timeline, number = layer_of(key)
    suffix = SUFFIXES[LayerKind(entry.summary.kind)]
    name = f"{number:012x}-{entry.generation:08x}.{suffix}"
    return f"pageserver/layers/{tenant}/{timeline}/{name}"


class Going(NamedTuple):
    """A layer that a transaction has removed."""

    entry: LayerEntry
    transaction: int


class Elsewhere:
    """Thread-safe."""

    def __init__(
        self,
        root: Path,
        catalog: Catalog,
        files: Files,
        objects: ObjectStore,
        cached_bytes: int,
    ) -> None:
        self.objects = objects
        self.root = root
        self._catalog = catalog
        self._files = files
        self._lock = threading.Lock()
        self._restoring = threading.Lock()
        self._going: dict[bytes, Going] = {}
        self._read: dict[bytes, Layer] = {}
        self._damaged: dict[bytes, str] = {}
        self._away_until = 0.0
        self._trouble = ("", 0.0)
        self._asking = threading.Lock()
        try:
            shutil.rmtree(root / CACHE, ignore_errors=True)
            (root / CACHE).mkdir(mode=0o700)
        except OSError as error:
            raise of_disk(error, str(error)) from error
        self.remote = Remote(root / CACHE, cached_bytes, self._fetch, self._found_damaged)
        catalog.on_removed = self._removed

    def close(self) -> None:
        self.remote.close()

    def path(self, key: bytes, entry: LayerEntry) -> Path:
        """Where the file lies when it is here."""
        tenant, timeline, number = layer_of(key)
        return self.root / str(tenant) / str(timeline) / layer_name(number, entry.summary.kind)

    def entry(self, key: bytes) -> LayerEntry | None:
        """Of a layer that there is, or that somebody may still read."""
        going = self._going.get(key)
        return going.entry if going is not None else self._catalog.layer(*layer_of(key))

    def read(self, key: bytes, entry: LayerEntry, offset: int, length: int) -> bytes:
        """
        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE; also where the object is gone: whoever took
                it away has taken over.
        """
        if not self._away_until:
            return self._read_now(key, entry, offset, length)
        if time.monotonic() < self._away_until or not self._asking.acquire(blocking=False):
            raise _away(self.objects.url, "it did not a moment ago")
        try:
            return self._read_now(key, entry, offset, length)
        finally:
            self._asking.release()

    @property
    def trouble(self) -> str:
        """Why the last read failed, if one did lately."""
        message, since = self._trouble
        return message if time.monotonic() < since + TOLD_SECONDS else ""

    def _read_now(self, key: bytes, entry: LayerEntry, offset: int, length: int) -> bytes:
        try:
            found = self.objects.hasty.get_range(object_name(key, entry), offset, length)
        except (NotFound, FailedPrecondition) as error:  # of this object alone, said at once
            self._trouble = error.message, time.monotonic()
            raise _away(self.objects.url, error.message) from error
        except PagestoreError as error:
            self._trouble = error.message, time.monotonic()
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise
        self._trouble, self._away_until = ("", 0.0), 0.0
        return found

    def restore(self, key: bytes, entry: LayerEntry) -> Path | None:
        """Puts the whole file here, fetched and checked, in the place of a damaged or missing one;
        without effect where the file is whole. Where the damaged one was moved to.

        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE. DataLoss: LAYER_CORRUPT: the object is.
            ResourceExhausted: STORE_FULL.
        """
        path = self.path(key, entry)
        work = temporary(path)
        # Reads note damage on their own threads, and a scrub finds the same: one at a time.
        with self._restoring:
            found = failure(path, key, entry)
            if found is None:
                return None
            if not is_damaged(path, found):
                raise found
            self._files.make_directory(path.parent)
            try:
                self._files.write(work, lambda: self._download(key, entry, work))
                aside = self._files.move_aside(self.root, path, time.time())
                self._files.publish(path)
            except Exception:
                work.unlink(missing_ok=True)
                raise
            now = self._catalog.layer(*layer_of(key))
            if now is None or not now.place & Place.LOCAL:  # merged or evicted meanwhile
                self._files.remove(path)
            return aside

    def check(self, key: bytes, entry: LayerEntry) -> None:
        """Whether the object is whole; all of it is fetched. Raises as `restore`."""
        work = self.root / CACHE / f"check-{key.hex()}"
        try:
            self._download(key, entry, work)
        finally:
            work.unlink(missing_ok=True)

    def _download(self, key: bytes, entry: LayerEntry, work: Path) -> None:
        """A file that is durable and whole."""
        name = object_name(key, entry)
        try:
            self._check_size(name, entry)
            with durable.begin(work) as file:
                for offset in range(0, entry.summary.bytes, FETCH_BYTES):
                    file.write(self.objects.get_range(name, offset, FETCH_BYTES))
                file.flush()
                os.fsync(file.fileno())
            found = failure(work, key, entry)
            if found is not None:
                raise found
        except OSError as error:
            raise of_disk(error, str(error)) from error
        except (DataLoss, NotFound) as error:
            raise DataLoss(
                "LAYER_CORRUPT",
                f"{name} in {self.objects.url} is not what was put there: {error.message}",
                "Restore this object from an older version of the bucket.",
            ) from error

    def bytes_there(self, key: bytes, entry: LayerEntry) -> int | None:
        """Of the object; None where there is none.

        Raises:
            Unavailable: OBJECT_STORE_UNAVAILABLE. FailedPrecondition: OBJECT_STORE_DENIED.
        """
        try:
            return self.objects.size(object_name(key, entry))
        except NotFound:
            return None

    def _check_size(self, name: str, entry: LayerEntry) -> None:
        """What is longer begins like the layer, perhaps, and is another file all the same."""
        size = self.objects.size(name)
        if size != entry.summary.bytes:
            raise DataLoss("LAYER_CORRUPT", f"it has {size} bytes, not {entry.summary.bytes}")

    def keep_for_readers(self, layers: Sequence[Layer]) -> None:
        """They are about to be removed; what was earlier, and nobody reads, is let go of."""
        self.let_go()
        with self._lock:
            self._read |= {key_of(layer): layer for layer in layers}

    def let_go(self) -> None:
        """Of removed layers that nobody reads any more: their files here go with that."""
        with self._lock:
            for key in [key for key, layer in self._read.items() if layer.readers == 1]:
                if key in self._going:
                    del self._read[key]

    def deletable(self, transaction: int) -> list[tuple[bytes, LayerEntry]]:
        """Layers that nobody reads, removed by transactions up to this one."""
        self.let_go()
        with self._lock:
            return [
                (key, going.entry)
                for key, going in self._going.items()
                if going.transaction <= transaction and key not in self._read
            ]

    def going(self) -> list[tuple[bytes, LayerEntry]]:
        """Layers whose objects are to go, and have not yet."""
        with self._lock:
            return [(key, going.entry) for key, going in self._going.items()]

    def deleted(self, keys: Sequence[bytes]) -> None:
        with self._lock:
            for key in keys:
                self._going.pop(key, None)

    def damaged(self) -> dict[bytes, str]:
        """Keys of layers that are here and do not hold, with what was found."""
        with self._lock:
            return dict(self._damaged)

    def seen_to(self, key: bytes) -> None:
        """One that was damaged is whole again, or cannot be made so."""
        with self._lock:
            self._damaged.pop(key, None)

    def _removed(self, transaction: int, removed: list[tuple[bytes, LayerEntry]]) -> None:
        with self._lock:
            for key, entry in removed:
                if entry.place & Place.REMOTE:
                    self._going[key] = Going(entry, transaction)
                else:
                    self._read.pop(key, None)

    def _fetch(
        self, tenant: bytes, timeline: bytes, number: int, kind: int, offset: int, length: int
    ) -> bytes | str:
        key = layer_key(TenantId(tenant), TimelineId(timeline), number)
        entry = self.entry(key)
        if entry is None or not entry.place & Place.REMOTE:
            name = layer_name(number, kind)
            return (
                f"{self.root}/{TenantId(tenant)}/{TimelineId(timeline)}/{name}: cannot open: "
                "it is neither here nor in the object store"
            )
        found = self.read(key, entry, offset, length)
        return found if len(found) == length else self._cut_off(key, entry, offset + length)

    def _cut_off(self, key: bytes, entry: LayerEntry, end: int) -> str:
        """Damage of this object alone: whoever reads others goes on."""
        what = (
            f"{object_name(key, entry)} in {self.objects.url} is not what was put there: it ends "
            f"before byte {end} of {entry.summary.bytes}"
        )
        self._trouble = what, time.monotonic()
        return what

    def _found_damaged(
        self, tenant: bytes, timeline: bytes, number: int, kind: int, what: str
    ) -> bool:
        key = layer_key(TenantId(tenant), TimelineId(timeline), number)
        entry = self.entry(key)
        if entry is None or not entry.place & Place.REMOTE:
            return False
        with self._lock:
            is_new = key not in self._damaged
            self._damaged[key] = what
        if is_new:
            _log.error("a damaged layer file is read from the object store instead", what=what)
        return True


def key_of(layer: Layer) -> bytes:
    """In the catalog."""
    path = Path(layer.path)
    tenant, timeline = TenantId.parse(path.parent.parent.name), TimelineId.parse(path.parent.name)
    return layer_key(tenant, timeline, int(path.stem, 16))


def _away(url: str, why: str) -> Unavailable:
    return Unavailable(
        "OBJECT_STORE_UNAVAILABLE",
        f"The object store {url} does not answer as it should: {why}",
        "It is asked again by itself.",
    )
