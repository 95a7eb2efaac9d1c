"""Carries out one job of the policy: writes the new files, then says so in one transaction.

A merge's files stand in the place of their inputs together, so they keep their unfinished names
until all are there. Files of images add to what there is, so each counts as soon as it is whole,
and a pass that is cut off goes on behind the last one. Images that take others' place do so
file by file: as far as they go, what they were made of goes. Killed anywhere, the timeline is as
before, or as after; what was being written is swept away (timeline/sweep.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagestore._native import Compaction, LayerSummary, RedoPool
from pagestore.errors import InvalidInput
from pagestore.ids import MAX_LSN, Lsn
from pagestore.layers.files import layer_name, temporary
from pagestore.layers.native import LayerKind, store_errors
from pagestore.maintenance.ancestry import layers_above
from pagestore.maintenance.policy import EVERYTHING, GREATEST_KEY, Bounds, Images, Job
from pagestore.timeline import Timeline
from pagestore.timeline.entries import LayerEntry
from pagestore.timeline.retained import NOTHING, Retained


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Bytes of files; ``images`` is how many were made of pages, ``refused`` how many not;
    ``dead`` how many values were left out."""

    read: int
    written: int
    images: int
    refused: int
    dead: int = 0


def rewrite(
    timeline: Timeline,
    job: Job,
    redo: RedoPool | None,
    bounds: Bounds,
    begun: Callable[[Compaction], None] = lambda work: None,
    kept: Retained = EVERYTHING,
) -> Rewritten:
    """Blocks for as long as it takes.

    Args:
        begun: is given the work before any of it is done, to pause or cancel it.
        kept: what is kept of the timeline: what nobody reads is left out. It may become less while
            this works, and is never more again, so what was dead stays dead.

    Raises:
        InvalidInput: UNKNOWN_LAYER: one of the inputs is gone meanwhile.
        NotFound: TIMELINE_NOT_FOUND. ResourceExhausted: STORE_FULL.
        FailedPrecondition: LAYER_FROZEN: it was cancelled.
        PagestoreError: REDO_FAILED: of images, a page cannot be made.
        Unavailable: ANCESTOR_BEHIND. Nothing has changed, but for files of images that are whole.
    """
    snapshot = timeline.snapshot()
    own = {number: layer for number, _, layer in timeline.own_layers()}
    missing = [number for number in job.inputs if number not in own]
    if missing:
        raise InvalidInput(
            "UNKNOWN_LAYER", f"Timeline {timeline.timeline_id} has no layer {missing[0]}."
        )
    layers = [own[number] for number in job.inputs]
    reach = job.reach if isinstance(job, Images) and not job.replaces else 0
    more = layers_above(timeline, reach)
    if kept.boundaries and kept.boundaries[-1] > timeline.last_record_lsn:
        kept = EVERYTHING  # what is read there is not all here again
    with store_errors():
        work = Compaction(
            [*layers, *(layer for layer, _ in more)],
            snapshot,
            redo,
            file_bytes=bounds.file_bytes,
            boundaries=kept.boundaries,
            ends=kept.cutoff == NOTHING,
            **_how(job, bounds, (*(MAX_LSN for _ in layers), *(upto for _, upto in more))),
        )
    begun(work)
    output = _Output(timeline, work, job)
    try:
        written = output.all()
    except Exception:
        output.remove()
        raise
    stats = work.stats()
    return Rewritten(stats["bytes_read"], written, stats["images"], stats["refused"], stats["dead"])


def _how(job: Job, bounds: Bounds, uppers: tuple[Lsn, ...]) -> dict[str, Any]:
    if isinstance(job, Images):
        return {"image_lsn": job.lsn, "low": job.low, "uppers": uppers}
    return {
        "open_weight": bounds.open_weight,
        "chain_weight": bounds.chain_weight,
        "chain_bytes": bounds.chain_bytes,
    }


class _Output:
    """The files of one job, on their way to be the timeline's."""

    def __init__(self, timeline: Timeline, work: Compaction, job: Job) -> None:
        self._timeline, self._work, self._job = timeline, work, job
        self._steps = timeline.file_steps
        self._unnamed: list[Path] = []
        """What is to go if the job fails."""

    def all(self) -> int:
        """Bytes."""
        if isinstance(self._job, Images):
            return self._images(set(self._job.inputs) if self._job.replaces else set())
        return self._merged()

    def _images(self, replaced: set[int]) -> int:
        written = 0
        while (made := self._write(LayerKind.IMAGE)) is not None:
            self._publish([made], self._upto(made[1].max_key, replaced))
            written += made[1].bytes
        if replaced:
            self._publish([], self._upto(GREATEST_KEY, replaced))
        return written

    def _upto(self, greatest: bytes, replaced: set[int]) -> list[int]:
        """What has nothing beyond a key any more, of what was not collected meanwhile."""
        if not replaced:
            return []
        own = self._timeline.own_layers()
        return [
            number
            for number, entry, _ in own
            if number in replaced and entry.summary.max_key <= greatest
        ]

    def _merged(self) -> int:
        made = []
        while (file := self._write(LayerKind.DELTA)) is not None:
            made.append(file)
        self._publish(made, list(self._job.inputs))
        return sum(summary.bytes for _, summary in made)

    def remove(self) -> None:
        for path in self._unnamed:
            with contextlib.suppress(OSError):
                temporary(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def _write(self, kind: LayerKind) -> tuple[int, LayerSummary] | None:
        """The next file, synced, under its unfinished name."""
        timeline, number = self._timeline, self._timeline.reserve_number()
        path = timeline.directory / layer_name(number, kind)
        self._steps.make_directory(path.parent)
        self._unnamed.append(path)
        summary = self._steps.write(
            temporary(path),
            lambda: self._work.write(
                temporary(path),
                timeline.tenant_id.raw,
                timeline.timeline_id.raw,
                number,
                level=self._job.codec,
            ),
        )
        return None if summary is None else (number, summary)

    def _publish(self, made: list[tuple[int, LayerSummary]], gone: list[int]) -> None:
        for number, summary in made:
            path = self._timeline.directory / layer_name(number, summary.kind)
            self._steps.rename(temporary(path), path)
        self._steps.sync_directory(self._timeline.directory)
        added = [(number, LayerEntry.fresh(summary, self._job.level)) for number, summary in made]
        self._timeline.replace_layers(gone, added)
        self._unnamed.clear()
