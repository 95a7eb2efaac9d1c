"""What lies in a store and no record names is moved aside: at once, or before it could matter.

Such a file is what a crash left, or was named by a newer catalog (pagestore/lost_found.py). A store
has as many directories as timelines and as many files as layers, so opening it does not look at
all of them. It looks at the directories' names, and moves what is in those that no timeline has.
The directory of a timeline is looked at

- before anything is written or deleted in it (`check`): a number that is given to a new layer may
  be that of a file which nobody names, and what is being written is named only afterwards;
- otherwise by `run`, beside everything else, one after another.

Each is looked at once: from then on this process knows all that comes and goes there.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from pagestore import lost_found
from pagestore.errors import InvalidInput, PagestoreError, of_disk
from pagestore.ids import TenantId, TimelineId
from pagestore.layers.files import layer_name
from pagestore.timeline.catalog import Catalog
from pagestore.timeline.entries import Place

Key = tuple[TenantId, TimelineId]
_UNFINISHED = re.compile(r"[0-9a-f]{12}\.(delta|image)\.tmp(\.images)?")
"""A layer that was being written when the power went, and a merge's spool that had its name for a
moment (native/core/store/history.c): nobody was told of them."""
PAUSE_SECONDS = 0.001
"""Between two directories of a sweep, for those who read and write meanwhile."""
_log = structlog.get_logger(__name__)


class Sweep:
    """Thread-safe.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, root: Path, catalog: Catalog, clock: Callable[[], float]) -> None:
        self._root = root
        self._catalog = catalog
        self._clock = clock
        self._looked_at: set[Key] = set()
        self._looking = threading.Lock()
        self._done = False
        self._closed = threading.Event()

    def close(self) -> None:
        """Waits for the directory that is being looked at; no other follows."""
        self._closed.set()
        with self._looking:
            pass

    def unknown(self) -> None:
        """Looks at the directories that no timeline of the catalog has.

        Raises:
            ResourceExhausted, Unavailable: a file cannot be moved.
        """
        for key in self._catalog.unknown(self._directories()):
            self.check(*key)
            _remove_if_empty(self._root / str(key[0]))

    def check(self, tenant: TenantId, timeline: TimelineId) -> None:
        """Looks at the directory of a timeline, unless that was done. Raises as `unknown` does."""
        key = tenant, timeline
        if self._done or key in self._looked_at:
            return
        with self._looking:
            if not self._done and key not in self._looked_at:
                self._look(*key)
                self._looked_at.add(key)

    def run(self) -> None:
        """Looks at all directories that are left; without effect when it was done."""
        failed = 0
        try:
            for key in self._directories():
                if self._closed.wait(PAUSE_SECONDS):
                    return
                failed += not self._checked(*key)
        except PagestoreError as error:
            _log.warning("the directories of timelines cannot be listed", error=str(error))
            return
        with self._looking:
            self._done = failed == 0
            if self._done:
                self._looked_at.clear()

    def _checked(self, tenant: TenantId, timeline: TimelineId) -> bool:
        try:
            self.check(tenant, timeline)
        except PagestoreError as error:  # whoever writes there is told, too
            _log.warning("a directory cannot be looked into", error=str(error))
            return False
        return True

    def _directories(self) -> Iterator[Key]:
        for above in _names(self._root):
            try:
                tenant = TenantId.parse(above)
            except InvalidInput:
                continue  # not ours
            for name in _names(self._root / above):
                with contextlib.suppress(InvalidInput):
                    yield tenant, TimelineId.parse(name)

    def _look(self, tenant: TenantId, timeline: TimelineId) -> None:
        directory = self._root / str(tenant) / str(timeline)
        found = _names(directory)
        if not found:
            _remove_if_empty(directory)
            return
        layers = [
            (layer_name(number, layer.summary.kind), layer.place)
            for number, layer in self._catalog.layers(tenant, timeline)
        ]
        named = {name for name, place in layers if place & Place.LOCAL}
        replaced = {layer_name(*was) for was in self._catalog.replaced(tenant, timeline)}
        # What was being evicted: the object store has it.
        replaced |= {name for name, place in layers if not place & Place.LOCAL}
        unnamed = [name for name in found if name not in named]
        try:
            moved = sum(self._move(directory / name, name in replaced) for name in unnamed)
        except OSError as error:
            raise of_disk(error, str(error)) from error
        if not named:
            _remove_if_empty(directory)
        if moved:
            _log.warning(
                "files that the catalog does not name were moved aside",
                directory=str(self._root / lost_found.DIRECTORY),
                timeline=str(timeline),
                files=moved,
            )

    def _move(self, path: Path, is_replaced: bool) -> bool:
        """Whether it was worth keeping: not what others stand for, or was never finished."""
        if (is_replaced or _UNFINISHED.fullmatch(path.name)) and path.is_file():
            path.unlink()
            return False
        lost_found.move_aside(self._root, path, self._clock())
        return True


def _names(directory: Path) -> list[str]:
    """In order. There may be ten thousand, and a Path takes a kilobyte.

    None where there is no directory; it may have gone meanwhile.
    """
    try:
        with os.scandir(directory) as found:
            return sorted(entry.name for entry in found)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise of_disk(error, str(error)) from error


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return
