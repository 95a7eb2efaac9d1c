"""Carries out one job of the policy: writes the new files, then says so in one transaction.

A merge's files stand in the place of their inputs together, so they keep their unfinished names
until all are there. Files of images add to what there is, so each counts as soon as it is whole,
and a pass that is cut off goes on behind the last one. Killed anywhere, the timeline is as before,
or as after; what was being written is swept away (timeline/sweep.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pagestore._native import Compaction, LayerSummary, RedoPool
from pagestore.errors import InvalidInput
from pagestore.layers.files import layer_name, temporary
from pagestore.layers.native import LayerKind, store_errors
from pagestore.maintenance.policy import Bounds, Images, Job
from pagestore.timeline import Timeline
from pagestore.timeline.entries import LayerEntry


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Bytes of files; ``images`` is how many were made of pages, ``refused`` how many not."""

    read: int
    written: int
    images: int
    refused: int


def rewrite(
    timeline: Timeline,
    job: Job,
    redo: RedoPool | None,
    bounds: Bounds,
    begun: Callable[[Compaction], None] = lambda work: None,
) -> Rewritten:
    """Blocks for as long as it takes.

    Args:
        begun: is given the work before any of it is done, to pause or cancel it.

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
    with store_errors():
        if isinstance(job, Images):
            work = Compaction(
                layers,
                snapshot,
                redo,
                file_bytes=bounds.file_bytes,
                image_lsn=job.lsn,
                low=job.low,
            )
        else:
            work = Compaction(
                layers,
                snapshot,
                redo,
                file_bytes=bounds.file_bytes,
                open_weight=bounds.open_weight,
                chain_weight=bounds.chain_weight,
                chain_bytes=bounds.chain_bytes,
            )
    begun(work)
    output = _Output(timeline, work, job)
    try:
        written = output.images() if isinstance(job, Images) else output.merged()
    except Exception:
        output.remove()
        raise
    stats = work.stats()
    return Rewritten(stats["bytes_read"], written, stats["images"], stats["refused"])


class _Output:
    """The files of one job, on their way to be the timeline's."""

    def __init__(self, timeline: Timeline, work: Compaction, job: Job) -> None:
        self._timeline, self._work, self._job = timeline, work, job
        self._steps = timeline.file_steps
        self._unnamed: list[Path] = []
        """What is to go if the job fails."""

    def images(self) -> int:
        """Bytes."""
        written = 0
        while (made := self._write(LayerKind.IMAGE)) is not None:
            self._publish([made], [])
            written += made[1].bytes
        return written

    def merged(self) -> int:
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
        level = 1 if isinstance(self._job, Images) else self._job.level
        for number, summary in made:
            path = self._timeline.directory / layer_name(number, summary.kind)
            self._steps.rename(temporary(path), path)
        self._steps.sync_directory(self._timeline.directory)
        added = [(number, LayerEntry.fresh(summary, level)) for number, summary in made]
        self._timeline.replace_layers(gone, added)
        self._unnamed.clear()
