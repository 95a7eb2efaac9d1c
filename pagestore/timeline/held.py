"""What a timeline holds: how far it is, what of it is in memory, and which layers are its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pagestore._native import Layer, OpenLayer
from pagestore.ids import Lsn
from pagestore.timeline.entries import LayerEntry


class IngestPosition(NamedTuple):
    last_record_lsn: Lsn  # the end of the last whole record
    prev_record_lsn: Lsn  # its start; 0 when unknown


@dataclass(frozen=True, slots=True)
class Frozen:
    """An open layer that takes no more, and the position it ends at."""

    layer: OpenLayer
    position: IngestPosition


class OwnLayer(NamedTuple):
    number: int
    entry: LayerEntry
    layer: Layer
