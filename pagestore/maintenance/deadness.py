"""How much of a timeline's layers nobody reads any more, as the policy wants to know it.

Reckoned by a few of each file's keys (native/core/store/dead.c), and remembered. A delta layer is
asked about itself, an image layer about what later passes have made of its keys. What there is to
know changes as kept LSNs come to lie elsewhere within a file's own, or as a later pass is there;
that is reckoned at once. That the next kept LSN has moved on changes it only where relations were
dropped or truncated: so then a few files are reckoned anew each time, the others later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pagestore._native import Layer, layer_dead_part
from pagestore.ids import Lsn, TenantId, TimelineId
from pagestore.layers.native import LayerKind, store_errors
from pagestore.maintenance.policy import Figures, superseded
from pagestore.timeline import Timeline
from pagestore.timeline.retained import NOTHING, Retained

KEPT = 100_000
STALE_AT_ONCE = 32
Name = tuple[TenantId, TimelineId, int]


@dataclass(frozen=True, slots=True)
class _About:
    """What a file's part depends on: the kept LSNs within its own, and the one above; of images the
    LSN of those that are above them."""

    within: tuple[Lsn, ...]
    above: int
    images: int = 0

    @property
    def lasting(self) -> tuple[object, ...]:
        return self.within, self.above > 0, self.images


class Deadness:
    """Of at most `KEPT` files. For one thread."""

    def __init__(self) -> None:
        self._known: dict[Name, tuple[_About, float]] = {}
        """What was reckoned longest ago comes first."""

    def added(
        self,
        timeline: Timeline,
        files: Sequence[Figures],
        layers: Mapping[int, Layer],
        kept: Retained,
    ) -> list[Figures]:
        """The same figures, with what is dead.

        Raises:
            DataLoss: LAYER_CORRUPT. Unavailable: IO_ERROR, ANCESTOR_BEHIND.
        """
        asked = {
            (timeline.tenant_id, timeline.timeline_id, number): about
            for number, about in _asked(files, kept).items()
        }
        for name in self._due(asked):
            self._reckon(timeline, name, layers[name[2]], asked[name], kept)
        parts = {name[2]: self._known[name][1] for name in asked if name in self._known}
        return [replace(file, dead=int(parts.get(file.number, 0.0) * file.bytes)) for file in files]

    def _due(self, asked: Mapping[Name, _About]) -> list[Name]:
        new = [
            name
            for name, about in asked.items()
            if name not in self._known or self._known[name][0].lasting != about.lasting
        ]
        new_ones = set(new)
        stale = [
            name
            for name, (about, _) in self._known.items()
            if name in asked and name not in new_ones and about != asked[name]
        ]
        return new + stale[:STALE_AT_ONCE]

    def _reckon(
        self, timeline: Timeline, name: Name, layer: Layer, about: _About, kept: Retained
    ) -> None:
        ends = kept.cutoff == NOTHING
        with store_errors():
            part = layer_dead_part(timeline.snapshot(), layer, kept.boundaries, ends, about.images)
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known.pop(name, None)
        self._known[name] = about, part


def _asked(files: Sequence[Figures], kept: Retained) -> dict[int, _About]:
    """Of the files of which something may be dead."""
    asked = {}
    for file in files:
        about = _about(file.first_lsn, file.last_lsn, kept)
        if file.kind == LayerKind.DELTA and (about.within or about.above or kept.cutoff == NOTHING):
            asked[file.number] = about
    for lsn, group in superseded(files, kept):
        above = _about(lsn, lsn, kept).above
        asked.update({file.number: _About((), above, lsn) for file in group})
    return asked


def _about(first_lsn: int, last_lsn: int, kept: Retained) -> _About:
    boundaries = kept.boundaries
    begin, end = bisect_left(boundaries, first_lsn), bisect_left(boundaries, last_lsn)
    above = boundaries[end] if end < len(boundaries) else 0
    return _About(boundaries[begin:end], above)
