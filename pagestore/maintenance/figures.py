"""The figures of a timeline's layers, as the policy wants them.

All but two stand in the catalog. How deep a flushed file is, is found by reading it, once in the
life of a process, and only where it may be: it has more values than keys. What is
dead: deadness.py.
"""

from __future__ import annotations

from pagestore.ids import TenantId, TimelineId
from pagestore.layers.native import LayerKind, store_errors
from pagestore.maintenance.deadness import Deadness
from pagestore.maintenance.policy import EVERYTHING, Figures
from pagestore.timeline import Timeline
from pagestore.timeline.held import OwnLayer
from pagestore.timeline.retained import NOTHING, Retained

KEPT = 100_000


def ancestors(timeline: Timeline, most: int) -> int:
    """How many of them have layers; at most so many."""
    found, above = 0, timeline.ancestor
    while above is not None and found < most:
        found += above.layer_count > 0
        above = above.ancestor
    return found


def figures_of(layer: OwnLayer, depth: int = 0) -> Figures:
    """What the catalog says."""
    kind, least, greatest, first, last, _, keys, size = layer.entry.summary
    return Figures(
        layer.number, kind, layer.entry.level, first, last, least, greatest, size, keys, depth
    )


class Depths:
    """What was found, of at most `KEPT` files. For one thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[TenantId, TimelineId, int], int] = {}
        self._deadness = Deadness()

    def figures(self, timeline: Timeline, kept: Retained = EVERYTHING) -> list[Figures]:
        """Of its own layers.

        Args:
            kept: what is kept of the timeline.

        Raises:
            DataLoss: LAYER_CORRUPT: one that was to be read.
            Unavailable: IO_ERROR, ANCESTOR_BEHIND.
        """
        own = timeline.own_layers()
        files = [self._figures(timeline, layer) for layer in own]
        if not kept.boundaries and kept.cutoff != NOTHING:
            return files
        return self._deadness.added(timeline, files, {n: layer for n, _, layer in own}, kept)

    def _figures(self, timeline: Timeline, layer: OwnLayer) -> Figures:
        summary = layer.entry.summary
        fresh = summary.kind == LayerKind.DELTA and layer.entry.level == 0
        depth = self._depth(timeline, layer) if fresh and summary.entries > summary.keys else 0
        return figures_of(layer, depth)

    def _depth(self, timeline: Timeline, layer: OwnLayer) -> int:
        name = timeline.tenant_id, timeline.timeline_id, layer.number
        depth = self._known.get(name)
        if depth is None:
            with store_errors():
                depth = layer.layer.depth()
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[name] = depth
        return depth
