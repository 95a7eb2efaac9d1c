"""What a timeline sees of its ancestors: figures for the policy, and the layers that name the keys
which they have changed.

Along an ancestry LSNs only grow: an ancestor counts up to the LSN at which the line to the timeline
leaves it. What it did later is somebody else's. Images that it has of more ancestors' changes stand
for those, and nothing of them is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pagestore._native import Layer
from pagestore.ids import MAX_LSN, Lsn
from pagestore.layers.native import LayerKind
from pagestore.maintenance.figures import figures_of
from pagestore.maintenance.policy import Step, covered
from pagestore.timeline import Timeline
from pagestore.timeline.held import OwnLayer


@dataclass(frozen=True, slots=True)
class Seen:
    """An ancestor, up to an LSN: its images, and the delta layers that these do not have."""

    step: Step
    layers: tuple[Layer, ...]
    upto: Lsn


def steps(timeline: Timeline) -> Iterator[Step]:
    """Of all its ancestors, the nearest first; each is looked at as it is asked for.

    Raises:
        Unavailable: IO_ERROR. DataLoss: CATALOG_CORRUPT.
    """
    return (seen.step for seen in _seen(timeline))


def layers_above(timeline: Timeline, reach: int) -> list[tuple[Layer, Lsn]]:
    """Layers of so many ancestors which between them have each key that these changed, and up to
    which LSN each of them counts; raises as `steps`."""
    found: list[tuple[Layer, Lsn]] = []
    within = 0
    for seen in islice(_seen(timeline), reach):
        if within > 0:
            within -= 1
            continue
        found.extend((layer, seen.upto) for layer in seen.layers)
        within = seen.step.reach
    return found


def _seen(timeline: Timeline) -> Iterator[Seen]:
    upto = MAX_LSN
    while timeline.ancestor is not None:
        upto, timeline = min(upto, timeline.branch_lsn), timeline.ancestor
        yield _of(timeline.own_layers() if timeline.layer_count > 0 else [], upto)


def _of(layers: list[OwnLayer], upto: Lsn) -> Seen:
    shown = [(figures_of(layer), layer) for layer in layers]
    shown = [(file, layer) for file, layer in shown if file.first_lsn <= upto]
    whole = covered([file for file, _ in shown]).lsn
    base = any(file.kind == LayerKind.IMAGE and file.level == 0 for file, _ in shown)
    named = [
        (file, layer)
        for file, layer in shown
        if (file.last_lsn <= whole if file.kind == LayerKind.IMAGE else file.last_lsn > whole)
    ]
    images = [file.level for file, _ in named if file.kind == LayerKind.IMAGE]
    step = Step(
        sum(file.keys for file, _ in named), max([level - 1 for level in images], default=0), base
    )
    return Seen(step, tuple(layer.layer for _, layer in named), upto)
