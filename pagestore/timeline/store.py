"""What all timelines of a page server share: the catalog, file steps, and the memory bound."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pagestore._native import Layer, Remote
from pagestore.layers.files import Files
from pagestore.timeline.catalog import Catalog, CatalogWriter
from pagestore.timeline.elsewhere import Elsewhere
from pagestore.timeline.sweep import Sweep

if TYPE_CHECKING:
    from pagestore.timeline.timeline import Timeline

T = TypeVar("T")


class Store:
    def __init__(
        self, root: Path, catalog: Catalog, files: Files, open_layer_bytes: int, sweep: Sweep
    ) -> None:
        self.root = root
        self.catalog = catalog
        self.files = files
        self.sweep = sweep
        self.elsewhere: Elsewhere | None = None
        """Where layer files lie that are not here; None without an object store."""
        self.structure = threading.RLock()
        self._open_layer_bytes = open_layer_bytes
        self._counting = threading.Lock()
        self._in_memory: dict[Timeline, int] = {}  # strong: what is not on disk must stay
        self._total = 0

    def close(self) -> None:
        """Lets go of what is in memory too: timelines refer to this, and have files open."""
        with self._counting:
            self._in_memory.clear()
            self._total = 0
        self.sweep.close()
        if self.elsewhere is not None:
            self.elsewhere.close()
        self.catalog.close()

    def commit(self, change: Callable[[CatalogWriter], T]) -> T:
        return self.files.commit(lambda: self.catalog.update(change))

    @property
    def remote(self) -> Remote | None:
        return None if self.elsewhere is None else self.elsewhere.remote

    def keep_for_readers(self, layers: Sequence[Layer]) -> None:
        """Layers that are about to be removed: their objects go once nobody reads them."""
        if self.elsewhere is not None:
            self.elsewhere.keep_for_readers(layers)

    def account(self, timeline: Timeline) -> None:
        """Notes how much memory a timeline holds now."""
        held = timeline.memory_bytes
        with self._counting:
            self._total += held - self._in_memory.pop(timeline, 0)
            if held > 0 or timeline.is_dirty:
                self._in_memory[timeline] = held

    @property
    def memory_bytes(self) -> int:
        return self._total

    def in_memory(self) -> list[Timeline]:
        """The timelines that hold something in memory, the largest first."""
        with self._counting:
            return sorted(self._in_memory, key=lambda t: self._in_memory[t], reverse=True)

    def pressure(self) -> Timeline | None:
        """Whom to freeze and flush, while the open layers exceed their bound together."""
        if self._total <= self._open_layer_bytes:
            return None
        return next((timeline for timeline in self.in_memory() if timeline.can_shrink), None)
