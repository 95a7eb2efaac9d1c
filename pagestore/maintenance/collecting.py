"""Garbage collection of one timeline: its cutoff moves up, and files that nobody reads any more go.

Two steps, each whole by itself: the horizon becomes durable, and below it nobody reads any more;
then files are dropped of which no read that is left needs anything. Killed anywhere between, the
next run goes on; run again, it finds nothing to do.

What a file is needed for is not concluded from what others cover, but tried: it may go if every
read at every kept LSN is the same without it (native/core/store/needed.h). Files that have
something beyond the cutoff stay. Those that are half dead are compaction's to make smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pagestore._native import LayerSummary, layer_is_needed
from pagestore.ids import Lsn
from pagestore.layers.native import store_errors
from pagestore.reader import commits
from pagestore.timeline import Timeline
from pagestore.timeline.horizons import LEAST_SECONDS, Facts, Quiet, Window, horizon
from pagestore.timeline.retained import ALL, NOTHING, Retained
from pagestore.timeline.retention import Retention


@dataclass(frozen=True, slots=True)
class Collected:
    """``more_later``: as time goes, there will be more to collect without anybody writing.
    ``kept_bytes``: of WAL, from the cutoff to what is in files."""

    layers: int = 0
    bytes: int = 0
    more_later: bool = False
    kept_bytes: int = 0


def collect(
    retention: Retention,
    timeline: Timeline,
    window: Window | None,
    least_seconds: int = LEAST_SECONDS,
    quiet: Quiet | None = None,
) -> Collected:
    """Blocks on files. Whatever else happens to the timeline meanwhile is no harm.

    Args:
        window: of those of which nothing was told; None: the cutoff stays where it is.
        quiet: what was seen of this one by earlier calls; None: nothing is concluded from that.

    Raises:
        NotFound: TIMELINE_NOT_FOUND. ResourceExhausted: STORE_FULL.
        Unavailable: ANCESTOR_BEHIND. InvalidInput: UNKNOWN_LAYER: somebody was quicker.
    """
    if window is not None and timeline.horizon != NOTHING:
        move_horizon(retention, timeline, window, least_seconds, quiet)
    kept = max(timeline.disk_consistent_lsn - timeline.kept_from, 0)
    if timeline.horizon == ALL:
        return Collected(more_later=timeline.layer_count > 0, kept_bytes=kept)
    dropped = drop_unneeded(timeline, retention.retained(timeline))
    more = timeline.layer_count > 0 and timeline.horizon < timeline.disk_consistent_lsn
    return Collected(len(dropped), sum(dropped.values()), more, kept)


def move_horizon(
    retention: Retention,
    timeline: Timeline,
    window: Window,
    least_seconds: int = LEAST_SECONDS,
    quiet: Quiet | None = None,
) -> None:
    """As far as its window, or else this one, lets it; raises as `collect`."""
    key = timeline.tenant_id, timeline.timeline_id
    window = retention.window(key) or window
    now = retention.clock()
    before = retention.horizon(key)
    durable, long = timeline.disk_consistent_lsn, max(window.seconds, least_seconds)
    facts = Facts(
        timeline.branch_lsn,
        durable,
        _commit_at(timeline, window.begins(now, least_seconds)),
        _commit_at(timeline, int((now - least_seconds) * 1e6)),
        before,
        0 if quiet is None else quiet.seen(now, durable, long),
        _commit_below(timeline, window.bytes_begin(durable)),
    )
    after = horizon(facts, now)
    if after.lsn > (before.lsn if before is not None else ALL):
        retention.move(timeline, after)


def _commit_at(timeline: Timeline, unix_micros: int) -> int:
    """Not what came behind it without committing: a compute that starts reads as of there."""
    return commits.by_time(timeline, max(unix_micros, 0)).commit_lsn


def _commit_below(timeline: Timeline, lsn: int) -> int:
    return commits.last(timeline.snapshot(), lsn) if lsn else 0


def drop_unneeded(timeline: Timeline, kept: Retained) -> dict[int, int]:
    """Drops files that no read of what is kept needs; bytes by number."""
    snapshot = timeline.snapshot()
    gone: dict[int, int] = {}
    candidates = [layer for layer in timeline.own_files() if _is_below(layer.summary, kept.cutoff)]
    # The oldest first: what says that something ceased to exist may go once that is gone. Of a
    # delta and an image that say the same, the delta: images are found in one block.
    candidates.sort(key=lambda layer: (layer.summary.last_lsn, layer.summary.kind))
    for layer in candidates:
        with store_errors():
            needed = layer_is_needed(snapshot, layer, kept.boundaries)
        if not needed:
            gone[int(Path(layer.path).stem, 16)] = layer.summary.bytes
            snapshot = snapshot.replace((layer,), ())
    timeline.replace_layers(list(gone), [])
    return gone


def _is_below(summary: LayerSummary, cutoff: Lsn) -> bool:
    return summary.last_lsn <= cutoff
