"""Local layer files as a cache under a budget: those that were read least recently go.

Only files that the object store has may go, and it is asked for each, at that moment: where
somebody has removed an object, or cut it off, the file is the last whole copy, and stays. The
catalog says first that a file is only there: what a crash leaves of it then is removed where it is
next looked at (timeline/sweep.py). Ranges
that were fetched count as well, and are emptied by the core within what this leaves to them.

When a layer was last read is known of those whose timeline is loaded; others were not read lately.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple

import structlog

from pagestore._native import layers_now
from pagestore.errors import PagestoreError, of_disk
from pagestore.maintenance.offsite import Offsite
from pagestore.timeline import Repository
from pagestore.timeline.elsewhere import key_of, object_name
from pagestore.timeline.entries import Place

LOOK_SECONDS = 2.0
TOGETHER = 64
LEAST_SHARE = 8
"""An eighth of the budget, at least, is for ranges: without any, nothing could be read."""
_log = structlog.get_logger(__name__)


class Candidate(NamedTuple):
    """A local file that may go. ``used``: second of `layers_now`."""

    used: int
    key: bytes
    bytes: int


class Use(NamedTuple):
    """Bytes.

    ``over``: more than the budget, or wanted by ranges that found no room; ``spare``: what ranges
    can give; ``oldest``: the second at which the range that would go first was read.
    """

    over: int
    spare: int
    oldest: int


def choose(candidates: Iterable[Candidate], use: Use) -> list[Candidate]:
    """The files that are to go; ranges that are older go before them."""
    over, spare = use.over, use.spare
    chosen = []
    for candidate in sorted(candidates):
        if candidate.used > use.oldest:
            over, spare = over - spare, 0
        if over <= 0:
            break
        chosen.append(candidate)
        over -= candidate.bytes
    return chosen


class Evictor:
    """
    Args:
        budget: bytes of local files and of ranges, together.
    """

    def __init__(self, repository: Repository, offsite: Offsite, budget: int) -> None:
        store = repository.store
        assert store.elsewhere is not None
        self._repository, self._store, self._offsite = repository, store, offsite
        self._elsewhere = store.elsewhere
        self._budget = budget
        self._emptied = 0
        self.evicted_bytes = 0
        self._failure = ""
        self._spoilt: set[bytes] = set()
        """Layers whose objects are others than were put there."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.look)
                self._failure = ""
            except PagestoreError as error:
                if self._failure != error.message:
                    _log.warning("nothing can be evicted", error=str(error))
                self._failure = error.message

    def look(self) -> int:
        """Evicts what is over the budget; bytes of files. Blocks on them.

        Raises:
            ResourceExhausted: STORE_FULL. Unavailable: IO_ERROR, OBJECT_STORE_UNAVAILABLE.
        """
        layers_now(int(time.monotonic()))
        here = self._offsite.here_bytes
        stats = self._elsewhere.remote.stats()
        cached, emptied = stats["cached_bytes"], stats["emptied_bytes"]
        least = self._budget // LEAST_SHARE
        over = here + cached - self._budget + emptied - self._emptied
        use = Use(over, max(cached - least, 0), stats["oldest"])
        self._emptied = emptied
        gone = 0
        if over > 0:
            chosen = choose(self._candidates(), use)
            for first in range(0, len(chosen), TOGETHER):
                keys = [item.key for item in chosen[first : first + TOGETHER]]
                gone += self._evict([key for key in keys if self._is_there(key)])
        self._elsewhere.remote.limit(max(self._budget - (here - gone), least))
        self.evicted_bytes += gone
        return gone

    def _candidates(self) -> list[Candidate]:
        used = {
            key_of(layer): layer.used
            for timeline in self._repository.loaded()
            for layer in timeline.known_files()
        }
        listed = list(self._offsite.here.items())
        self._spoilt &= {key for key, _ in listed}
        return [
            Candidate(used.get(key, 0), key, size)
            for key, size in listed
            if key not in self._spoilt
        ]

    def _is_there(self, key: bytes) -> bool:
        """Whether the object is. One that is gone goes up again; in the place of another one
        nothing can be put, so its file is not asked for any more."""
        entry = self._elsewhere.entry(key)
        if entry is None:
            return False
        there = self._elsewhere.bytes_there(key, entry)
        if there == entry.summary.bytes:
            return True
        self._offsite.check_store()
        if there is None:
            self._store.commit(lambda txn: txn.move_layer(key, Place.LOCAL))
        else:
            self._spoilt.add(key)
        _log.error(
            "an object is not what was put there; its file is the last copy, and stays here",
            object=object_name(key, entry),
            bytes=there,
            expected=entry.summary.bytes,
        )
        return False

    def _evict(self, keys: list[bytes]) -> int:
        moved = self._store.commit(
            lambda txn: [key for key in keys if txn.move_layer(key, Place.REMOTE)]
        )
        gone = 0
        for key in moved:
            entry = self._elsewhere.entry(key)
            if entry is None:
                continue
            try:
                self._elsewhere.path(key, entry).unlink(missing_ok=True)
            except OSError as error:
                raise of_disk(error, str(error)) from error
            gone += entry.summary.bytes
        going = set(moved)
        for timeline in self._repository.loaded():
            for layer in timeline.known_files():
                if key_of(layer) in going:
                    layer.let_go()
        return gone
