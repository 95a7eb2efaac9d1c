"""Building a root timeline: image layers at one LSN, visible all at once or not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pagestore._native import Batch, LayerSummary, LayerWriter
from pagestore.errors import FailedPrecondition, InvalidInput
from pagestore.ids import Lsn, TenantId, TimelineId, format_lsn
from pagestore.layers.files import layer_name, temporary
from pagestore.layers.native import LayerKind, store_errors
from pagestore.timeline.entries import LayerEntry, TimelineEntry
from pagestore.timeline.store import Store

if TYPE_CHECKING:
    from pagestore.timeline.timeline import Timeline

MAX_LAYER_BYTES = 256 << 20


class RootImport:
    """Takes batches of whole values, all at the root's LSN.

    Keys need not come in one ascending order: where they do not ascend a new layer begins, so
    a few long runs are cheap and many short ones are not. Of a key put twice the later counts.
    """

    def __init__(
        self,
        store: Store,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: Lsn,
        prev_record_lsn: Lsn,
        done: Callable[[TimelineEntry | None], Timeline | None],
    ) -> None:
        self._store = store
        self._tenant = tenant
        self._timeline = timeline
        self._lsn = lsn
        self._prev_record_lsn = prev_record_lsn
        self._done = done
        self._directory = store.root / str(tenant) / str(timeline)
        self._writer: LayerWriter | None = None
        self._layers: list[tuple[int, LayerSummary]] = []
        self._number = 1
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def put(self, batch: Batch) -> None:
        """Raises ResourceExhausted STORE_FULL; abort then."""
        with self._lock:
            self._check_open()
            taken = 0
            while taken < len(batch):
                if self._writer is None:
                    self._begin_layer()
                assert self._writer is not None
                with store_errors():
                    taken = self._writer.put(batch, taken)
                if taken < len(batch) or self._writer.nbytes >= MAX_LAYER_BYTES:
                    self._end_layer()

    def commit(self) -> Timeline:
        """Makes the timeline, once all its layers are durable."""
        with self._lock:
            self._check_open()
            self._end_layer()
            record = TimelineEntry(
                parent=None,
                branch_lsn=self._lsn,
                disk_consistent_lsn=self._lsn,
                prev_record_lsn=self._prev_record_lsn,
                created=time.time_ns() // 1000,
            )
            for number, summary in self._layers:
                record = record.with_layer(number, summary.bytes)
            self._store.commit(
                lambda txn: txn.put_timeline(
                    self._tenant,
                    self._timeline,
                    record,
                    [(number, LayerEntry.fresh(summary)) for number, summary in self._layers],
                )
            )
            self._closed = True
        timeline = self._done(record)
        assert timeline is not None
        return timeline

    def abort(self) -> None:
        """Leaves nothing. Without effect after commit."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._store.catalog.timeline(self._tenant, self._timeline) is not None:
                return  # a commit that seemed to fail was made all the same
            if self._writer is not None:
                self._writer.abort()
            for number, _ in self._layers:
                self._path(number).unlink(missing_ok=True)
            if self._directory.is_dir() and not any(self._directory.iterdir()):
                self._directory.rmdir()
        self._done(None)

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition(
                "IMPORT_ENDED", f"The import of timeline {self._timeline} has ended."
            )

    def _path(self, number: int) -> Path:
        return self._directory / layer_name(number, LayerKind.IMAGE)

    def _begin_layer(self) -> None:
        self._store.sweep.check(self._tenant, self._timeline)
        self._store.files.make_directory(self._directory)
        work = temporary(self._path(self._number))
        self._store.files.remove(work)
        with store_errors():
            self._writer = LayerWriter(
                work, self._tenant.raw, self._timeline.raw, self._number, LayerKind.IMAGE
            )

    def _end_layer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        path = self._path(self._number)
        summary = self._store.files.write(temporary(path), writer.finish)
        self._layers.append((self._number, summary))
        self._number += 1
        if summary.first_lsn != self._lsn or summary.last_lsn != self._lsn:
            temporary(path).unlink()
            raise InvalidInput(
                "INVALID_VALUES",
                f"Timeline {self._timeline} is imported at {format_lsn(self._lsn)}, but values "
                f"lie between {format_lsn(summary.first_lsn)} and {format_lsn(summary.last_lsn)}.",
            )
        self._store.files.publish(path)
