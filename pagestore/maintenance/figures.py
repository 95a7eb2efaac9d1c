"""The figures of a timeline's layers, as the policy wants them.

All but one stand in the catalog. How deep a flushed file is, is found by reading it, once in the
life of a process, and only where it may be: it has more values than keys.
"""

from __future__ import annotations

from pagestore.ids import TenantId, TimelineId
from pagestore.layers.native import LayerKind, store_errors
from pagestore.maintenance.policy import Figures
from pagestore.timeline import Timeline
from pagestore.timeline.held import OwnLayer

KEPT = 100_000


class Depths:
    """What was found, of at most `KEPT` files. For one thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[TenantId, TimelineId, int], int] = {}

    def figures(self, timeline: Timeline) -> list[Figures]:
        """Of its own layers.

        Raises:
            DataLoss: LAYER_CORRUPT: one that was to be read. Unavailable: IO_ERROR.
        """
        return [self._figures(timeline, layer) for layer in timeline.own_layers()]

    def _figures(self, timeline: Timeline, layer: OwnLayer) -> Figures:
        kind, least, greatest, first, last, values, keys, size = layer.entry.summary
        fresh = kind == LayerKind.DELTA and layer.entry.level == 0
        depth = self._depth(timeline, layer) if fresh and values > keys else 0
        return Figures(
            layer.number, kind, layer.entry.level, first, last, least, greatest, size, keys, depth
        )

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
