"""One timeline's WAL into its open layer. Synchronous: run it beside the event loop.

The core decodes, routes and puts without the GIL; Python sees one batch a piece of WAL. When a
record cannot be taken (damaged, or of a kind that nothing here knows), everything before it is
kept and readable, and the error says which record it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pagestore._native import Batch, NativeError, RedoPool, Snapshot, WalIngestor
from pagestore.errors import (
    DataLoss,
    FailedPrecondition,
    Meaning,
    PagestoreError,
    ResourceExhausted,
    Status,
    Unavailable,
    native_error,
    of_exception,
)
from pagestore.ids import Lsn, TimelineId, format_lsn
from pagestore.ingest.clone import Directories, clone_batches
from pagestore.layers.native import store_errors
from pagestore.timeline import Timeline

_MEANINGS: Mapping[int, Meaning] = {
    Status.CORRUPT: (DataLoss, "WAL_CORRUPT", None),
    Status.UNSUPPORTED: (FailedPrecondition, "WAL_UNSUPPORTED", None),
}
"""In WAL that is taken in; anything else that does not pass by itself is INGEST_FAILED."""


class Taking(Protocol):
    """What takes values in: a timeline, or a layer of one that is made again (rebuilding.py)."""

    timeline_id: TimelineId

    @property
    def last_record_lsn(self) -> Lsn: ...
    @property
    def prev_record_lsn(self) -> Lsn: ...
    def snapshot(self) -> Snapshot: ...
    def append(self, batch: Batch, last_record_lsn: int, prev_record_lsn: int) -> None: ...


class TimelineIngest:
    """Feeds WAL to a timeline, from its last record on.

    Args:
        check_images: whether pages are compared with the images that come only for that, under
            wal_consistency_checking; see pagestore.ingest.consistency.
    """

    def __init__(
        self, timeline: Taking, redo: RedoPool | None, *, check_images: bool = False
    ) -> None:
        self.timeline = timeline
        self._redo = redo
        self._ingestor = WalIngestor(
            timeline.last_record_lsn, timeline.prev_record_lsn, consistency=check_images
        )
        self._batch = Batch()
        self._images = Batch() if check_images else None

    @property
    def next_lsn(self) -> int:
        """Where the next piece must begin; beyond the last record if one is still partial."""
        return self._ingestor.next_lsn

    def take(self, lsn: int, data: bytes) -> None:
        """Takes in `data`, which begins at `lsn` == `next_lsn`.

        Raises:
            DataLoss: WAL_CORRUPT, WAL_GAP, or the store's own.
            FailedPrecondition: WAL_UNSUPPORTED, CONSISTENCY_FAILED.
            Unavailable, ResourceExhausted: what was to be read of the timeline, or memory for it,
                is not to be had now. Another ingest of the timeline can take the rest.
        """
        if lsn != self.next_lsn:
            raise DataLoss(
                "WAL_GAP", f"WAL at {format_lsn(lsn)} came after {format_lsn(self.next_lsn)}."
            )
        end = lsn + len(data)
        while True:
            try:
                step = self._ingestor.feed(
                    data, self.timeline.snapshot(), self._batch, self._images
                )
            except NativeError as error:
                self._publish()
                raise _ingest_error(error) from error
            if step.barrier is None:
                self._publish()
                return
            self._clone(step.barrier)
            data = data[len(data) - (end - self.next_lsn) :]

    def _publish(self) -> None:
        last = self._ingestor.last_record_lsn
        if len(self._batch) or last > self.timeline.last_record_lsn:
            self._append(last, self._ingestor.prev_record_lsn)

    def _clone(self, barrier: tuple[str, int, list[Directories]]) -> None:
        _, end_lsn, clones = barrier
        start_lsn = self._ingestor.prev_record_lsn
        timeline = self.timeline
        # What came before the record becomes readable; the record itself not yet. Where the
        # record before it began is not known here, which the ingestor writes as 0.
        before = (
            (start_lsn, 0)
            if start_lsn > timeline.last_record_lsn
            else (timeline.last_record_lsn, timeline.prev_record_lsn)
        )
        self._append(*before)
        for directories in clones:
            snapshot = timeline.snapshot()
            with store_errors():
                for batch in clone_batches(snapshot, start_lsn, end_lsn, directories, self._redo):
                    timeline.append(batch, *before)
        timeline.append(self._batch, end_lsn, start_lsn)

    def _append(self, last_record_lsn: int, prev_record_lsn: int) -> None:
        """Stores the batch; moves the position only when its pages are as their images."""
        timeline = self.timeline
        if self._images is not None and len(self._images) and self._redo is not None:
            timeline.append(self._batch, timeline.last_record_lsn, timeline.prev_record_lsn)
            from pagestore.ingest.consistency import check_images

            check_images(timeline.snapshot(), self._batch, self._images, self._redo)
            self._images.clear()
            self._batch.clear()
        timeline.append(self._batch, last_record_lsn, prev_record_lsn)
        self._batch.clear()


def _ingest_error(error: NativeError) -> PagestoreError:
    found = native_error(error, _MEANINGS)
    if error.args[0] in _MEANINGS or isinstance(found, Unavailable | ResourceExhausted):
        return found
    return PagestoreError("INGEST_FAILED", found.message)


def stopped(timeline: Timeline, cause: Exception) -> FailedPrecondition:
    """What readers beyond the last good record are told."""
    why = of_exception(cause).message
    return FailedPrecondition(
        "INGEST_STOPPED",
        f"Timeline {timeline.timeline_id} takes in no WAL beyond "
        f"{format_lsn(timeline.last_record_lsn)}: {why}",
        "Everything up to there can be read and branched.",
    )
