"""A damaged layer that is nowhere else, made again of the WAL that it was made of.

That is sound for a *run* of delta layers: what one flush has written, or one merge of neighbours
(pagestore/maintenance/policy.py). It has all values of its timeline between two LSNs, whatever
their keys, and nobody else has any of them; and each value follows from the WAL record that ends at
its LSN and from what was there before that record. So the records that end within the run's LSNs
are taken in once more, by the same code, over the timeline without the run, which reads as before
up to the first of them. What comes out stands for the whole run, as one flushed layer: of the keys
that the run had none may be missing, and of a run that was never merged all must be the same. Where
to begin need not be searched: every value's LSN is a record's end, so the last one before is.

It is not for others. An image was made of values that may be gone since, and so may what was before
a record that lies below the timeline's horizon; a large run is more WAL than there is room to take
in at once. They are refused, with the reason.

In order: the new file is made under a number of its own and is durable; the damaged one is moved
aside; one transaction puts the new one in the run's place, and with it new snapshots. Killed before
that, it leaves a store that opens, of which the layer is as damaged as it was, or missing, and a
file that nobody names. The next attempt does the same again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from pagestore import keyspace
from pagestore._native import Batch, LayerSummary, OpenLayer, RedoPool, Snapshot
from pagestore.client.walservice import WalPiece
from pagestore.errors import (
    DataLoss,
    FailedPrecondition,
    NotFound,
    OutOfRange,
    PagestoreError,
    Unavailable,
)
from pagestore.ids import Lsn, TimelineId, format_lsn
from pagestore.ingest.apply import TimelineIngest
from pagestore.ingest.waiters import TimelineKey
from pagestore.layers.files import layer_name
from pagestore.layers.native import LayerKind, store_errors
from pagestore.pg_control_values import major_of
from pagestore.timeline import Repository, Timeline, damage
from pagestore.timeline.entries import LayerEntry, layer_key
from pagestore.timeline.held import IngestPosition, OwnLayer
from pagestore.timeline.scrub import Scrubbed

BEGINS = 2
"""Of the records' ends before the run: from where on somebody may have the WAL."""
MOST_WAL_BYTES = 256 << 20
"""As much as a safekeeper keeps without need. What is taken in of it lies in memory first."""


class Wal(Protocol):
    """Somebody who may have committed WAL of a timeline."""

    name: str

    def starts(self, key: TimelineKey) -> Iterable[int]:
        """Records' ends at which what it has begins, as far as that is known."""
        ...

    def read(self, key: TimelineKey, start: int, end: int) -> AsyncGenerator[WalPiece, None]:
        """[start, end) in order, or less. Raises PagestoreError where there is none."""
        ...


class Rebuilder:
    """
    Args:
        wal: who may have some, in the order in which they are asked.
        redo: the pool of a major.
    """

    def __init__(
        self,
        repository: Repository,
        wal: Sequence[Wal],
        redo: Callable[[int], RedoPool | None],
    ) -> None:
        self._repository = repository
        self._wal = wal
        self._redo = redo

    async def rebuild(self, found: Scrubbed) -> Scrubbed:
        """Of a layer that is here alone, and damaged.

        Raises:
            FailedPrecondition: NOT_REBUILDABLE, with the reason. DataLoss: WAL_INCOMPLETE: nobody
                has the WAL any more, or whole; LAYER_CORRUPT: it is not what the layer was made
                of. Unavailable, ResourceExhausted: of the disk.
        """
        timeline = await asyncio.to_thread(self._repository.kept, found.tenant, found.timeline)
        run = await asyncio.to_thread(_run_of, timeline, found)
        failures: list[PagestoreError] = []
        for wal in self._wal:
            layer = await self._made_of(wal, run, failures)
            if layer is not None:
                aside = await asyncio.to_thread(self._put_in_place, run, layer)
                return found.mended(f"WAL of {wal.name}", aside)
        said = "; ".join(error.message for error in failures) or "nobody to ask"
        raise DataLoss(
            "WAL_INCOMPLETE",
            f"The WAL of {run} of timeline {found.timeline} is not to be had whole: {said}",
        )

    async def _made_of(
        self, wal: Wal, run: Run, failures: list[PagestoreError]
    ) -> OpenLayer | None:
        """None where it cannot be made of this WAL; `failures` says why."""
        try:
            begins = run.begins(await asyncio.to_thread(wal.starts, run.key))
        except (DataLoss, Unavailable) as error:
            failures.append(error)
            return None
        for begin in begins[:BEGINS]:
            try:
                return await self._taken_in(wal, run, begin)
            except (DataLoss, NotFound, OutOfRange, Unavailable) as error:
                failures.append(error)
        return None

    async def _taken_in(self, wal: Wal, run: Run, begin: int) -> OpenLayer:
        layer = await asyncio.to_thread(self._begin, run, begin)
        ingest = TimelineIngest(layer, self._redo(await asyncio.to_thread(layer.major)))
        async with aclosing(wal.read(run.key, begin, run.last_lsn)) as pieces:
            async for lsn, data in pieces:
                await asyncio.to_thread(_take, ingest, lsn, data)
        if layer.last_record_lsn != run.last_lsn:
            raise DataLoss(
                "WAL_INCOMPLETE",
                f"{wal.name} has it only up to {format_lsn(layer.last_record_lsn)}",
            )
        return layer.open

    def _begin(self, run: Run, begin: int) -> _LayerTaking:
        if run.last_lsn - begin > MOST_WAL_BYTES:
            raise run.not_rebuildable(
                f"it is of {run.last_lsn - begin >> 20} MB of WAL, and {MOST_WAL_BYTES >> 20} are "
                "taken in at most"
            )
        taking = _LayerTaking(run, begin)
        # After the snapshot was taken, which keeps what it shows.
        if not self._repository.retention.reads(run.timeline, begin):
            raise run.not_rebuildable(
                f"it begins at {format_lsn(run.first_lsn)}, and history is kept from "
                f"{format_lsn(run.timeline.kept_from)} on"
            )
        return taking

    def _put_in_place(self, run: Run, layer: OpenLayer) -> Path | None:
        store, timeline = self._repository.store, run.timeline
        number = timeline.reserve_number()
        path = timeline.directory / layer_name(number, LayerKind.DELTA)
        summary = store.files.install(
            path,
            lambda work: layer.flush(work, run.key[0].raw, run.key[1].raw, number),
        )
        try:
            run.check(summary)
            damaged = run.damaged()
            if run.asked not in damaged:
                raise Unavailable("LAYER_IN_USE", f"{run.asked} was repaired by somebody else.")
            moved = {
                item: store.files.move_aside(store.root, item, time.time()) for item in damaged
            }
            numbers = [item.number for item in run.layers]
            timeline.replace_layers(numbers, [(number, LayerEntry.fresh(summary))])
        except Exception:
            store.files.remove(path)
            raise
        return moved[run.asked]


@dataclass(frozen=True)
class Run:
    """Layers of a timeline that have its values between two LSNs, and nobody else has any.

    Args:
        asked: the file that is damaged.
        ends: of records, before the run; nearest first.
    """

    timeline: Timeline
    asked: Path
    layers: Sequence[OwnLayer]
    ends: Sequence[int]

    @property
    def key(self) -> TimelineKey:
        return self.timeline.tenant_id, self.timeline.timeline_id

    @property
    def first_lsn(self) -> int:
        return min(item.entry.summary.first_lsn for item in self.layers)

    @property
    def last_lsn(self) -> int:
        return max(item.entry.summary.last_lsn for item in self.layers)

    def __str__(self) -> str:
        return f"{format_lsn(self.first_lsn)} to {format_lsn(self.last_lsn)}"

    def begins(self, more: Iterable[int]) -> list[int]:
        """Records' ends from which on it may be made; ``more``: such as somebody else knows."""
        later = {lsn for lsn in more if self.ends[0] < lsn < self.first_lsn}
        return [*sorted(later, reverse=True), *self.ends]

    def check(self, made: LayerSummary) -> None:
        """
        Raises:
            DataLoss: LAYER_CORRUPT: what was made is not what the run had.
        """
        summaries = sorted(item.entry.summary for item in self.layers)
        if len(summaries) == 1 and self.layers[0].entry.level == 0:
            same = made[:-1] == summaries[0][:-1]
        else:
            # A key may go on from one file to the next; what nobody reads was left out of merges.
            split = sum(a.max_key == b.min_key for a, b in pairwise(summaries))
            same = (
                made.min_key <= min(item.min_key for item in summaries)
                and made.max_key >= max(item.max_key for item in summaries)
                and made.keys >= sum(item.keys for item in summaries) - split
                and self.first_lsn <= made.first_lsn <= made.last_lsn <= self.last_lsn
            )
        if not same:
            raise DataLoss("LAYER_CORRUPT", f"The WAL of {self} is not what {self.asked} had.")

    def damaged(self) -> list[Path]:
        found = []
        for item in self.layers:
            path = Path(item.layer.path)
            failure = damage.failure(path, layer_key(*self.key, item.number), item.entry)
            if failure is not None and damage.is_damaged(path, failure):
                found.append(path)
        return found

    def not_rebuildable(self, why: str) -> FailedPrecondition:
        return not_rebuildable(self.asked, why)


class _LayerTaking:
    """Takes values into a layer in memory, which stands in its timeline for the run."""

    timeline_id: TimelineId

    def __init__(self, run: Run, begin: int) -> None:
        self.timeline_id = run.timeline.timeline_id
        self.open = OpenLayer()
        self._position = IngestPosition(Lsn(begin), Lsn(0))
        gone = [item.layer for item in run.layers]
        self._snapshot = run.timeline.snapshot().replace(gone, (self.open,))

    @property
    def last_record_lsn(self) -> Lsn:
        return self._position.last_record_lsn

    @property
    def prev_record_lsn(self) -> Lsn:
        return self._position.prev_record_lsn

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def major(self) -> int:
        """Of Postgres, as read without the damaged layer. Raises as `Timeline.major`."""
        with store_errors():
            raw = self._snapshot.get(keyspace.SETTINGS.pack(), self.last_record_lsn)
        return major_of(raw, f"Timeline {self.timeline_id}")

    def append(self, batch: Batch, last_record_lsn: int, prev_record_lsn: int) -> None:
        if len(batch) > 0:
            with store_errors():
                self.open.put(batch)
        self._position = IngestPosition(Lsn(last_record_lsn), Lsn(prev_record_lsn))


def _take(ingest: TimelineIngest, lsn: int, data: bytes) -> None:
    with store_errors():  # where a database that is copied lies in damaged layers, too
        ingest.take(lsn, data)


def not_rebuildable(path: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        "NOT_REBUILDABLE",
        f"{path} cannot be made again of WAL: {why}.",
        "Restore the file from a copy; with `up --objects` the object store has one.",
    )


def _run_of(timeline: Timeline, found: Scrubbed) -> Run:
    path, summary = Path(found.path), found.entry.summary
    if summary.kind != LayerKind.DELTA:
        raise not_rebuildable(path, "it has pages that were made of layers which may be gone")
    deltas = [item for item in timeline.own_layers() if item.entry.summary.kind == LayerKind.DELTA]
    run = [item for item in deltas if item.number == found.number]
    if not run:
        raise Unavailable("LAYER_IN_USE", f"{path} was replaced meanwhile.")
    while True:
        first = min(item.entry.summary.first_lsn for item in run)
        last = max(item.entry.summary.last_lsn for item in run)
        more = [item for item in deltas if _overlaps(item.entry, first, last)]
        if len(more) == len(run):
            break
        run = more
    if first <= timeline.branch_lsn:
        raise not_rebuildable(path, "it has what was copied from a timeline's parent")
    ends = {timeline.branch_lsn, *(item.entry.summary.last_lsn for item in deltas)}
    return Run(timeline, path, run, sorted((end for end in ends if end < first), reverse=True))


def _overlaps(entry: LayerEntry, first: int, last: int) -> bool:
    return entry.summary.first_lsn <= last and entry.summary.last_lsn >= first
