"""When which timeline is collected (collecting.py): one at a time, in a thread, in the background.

A timeline is looked at soon after something of it went (a branch, a checkpoint), a while after it
was flushed, and again as its window moves on: each fiftieth of it. A window of so many bytes moves
as it is written: after each flush, and when what was too recent to go has become old. Once an hour
all are, for what nobody tells of (leases that end). One of which nothing more can go is not looked
at in between.

Cutoffs move only while whoever knows the checkpoints has said lately what is to be kept
(`told`). A page server that is alone keeps all it has.
"""

from __future__ import annotations

import asyncio

import structlog

from pagestore.errors import NotFound, PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.maintenance.collecting import Collected, collect
from pagestore.timeline import Repository
from pagestore.timeline.horizons import LEAST_SECONDS, Quiet, Window

Key = tuple[TenantId, TimelineId]

LOOK_SECONDS = 2.0
SETTLE_SECONDS = 30.0
"""After a flush: whoever writes flushes again and again."""
LEAST_PAUSE, LONGEST_PAUSE = 10.0, 3600.0
BELIEVED_SECONDS = 600.0
_log = structlog.get_logger(__name__)


class Agenda:
    """When each timeline is to be looked at. Pure: times are whatever clock the caller has."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._not_before: dict[Key, float] = {}

    def note(self, key: Key, at: float, *, now: bool = False) -> None:
        """Something can have become superfluous; `now`: by what somebody did, not by writing."""
        wanted = at if now else max(at + SETTLE_SECONDS, self._not_before.get(key, 0.0))
        self._due[key] = min(wanted, self._due.get(key, wanted))

    def due(self, at: float) -> list[Key]:
        """Those to be looked at, the longest due first."""
        return sorted((k for k, when in self._due.items() if when <= at), key=self._due.__getitem__)

    def looked(self, key: Key, at: float, pause: float | None, *, by_bytes: bool = False) -> None:
        """
        Args:
            pause: until it should be looked at again; None: not by itself.
            by_bytes: whether it is worth it before that, where more was written.
        """
        self._due.pop(key, None)
        self._not_before = {k: when for k, when in self._not_before.items() if when > at}
        self._not_before[key] = at + (LEAST_PAUSE if pause is None or by_bytes else pause)
        if pause is not None:
            self._due[key] = at + pause


def pause_of(window: Window, kept_bytes: int = 0, least_seconds: int = LEAST_SECONDS) -> float:
    """
    Args:
        kept_bytes: of WAL. Where that is more than the window's, the rest is too recent.
    """
    longest = LONGEST_PAUSE
    if 0 < window.wal_bytes < kept_bytes:
        longest = max(least_seconds, LEAST_PAUSE)
    return min(max(window.seconds / 50, LEAST_PAUSE), longest)


class Collector:
    """Of one page server; of one event loop."""

    def __init__(self, repository: Repository, *, least_seconds: int = LEAST_SECONDS) -> None:
        self._repository = repository
        self._least_seconds = least_seconds
        self._agenda = Agenda()
        self._window = Window()
        self._told_at: float | None = None
        self._all_at = 0.0
        self._quiet: dict[Key, Quiet] = {}
        """Of those of which more can go as time goes."""
        self.collected_layers = 0
        self.collected_bytes = 0

    def told(self, window: Window) -> None:
        """What is to be kept was said, all of it; and of whom nothing was said, so much."""
        self._window = window
        self._told_at = _now()

    def note(self, key: Key, *, now: bool = False) -> None:
        self._agenda.note(key, _now(), now=now)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if _now() >= self._all_at:
                self._all_at = _now() + LONGEST_PAUSE
                for key in await asyncio.to_thread(self._repository.with_layers):
                    self._agenda.note(key, _now())
            for key in self._agenda.due(_now()):
                await self._look(key)

    async def _look(self, key: Key) -> None:
        believed = self._told_at is not None and _now() - self._told_at < BELIEVED_SECONDS
        window = self._window if believed else None
        pause: float | None = None
        by_bytes = False
        try:
            own = await asyncio.to_thread(self._repository.retention.window, key) or self._window
            done = await asyncio.to_thread(self._collect, key, window)
            by_bytes = own.wal_bytes > 0
            if done.more_later:
                pause = pause_of(own, done.kept_bytes, self._least_seconds)
        except NotFound:
            pass
        except (PagestoreError, OSError) as error:
            pause = LEAST_PAUSE
            _log.info("collected later", timeline=str(key[1]), error=str(error))
        self._agenda.looked(key, _now(), pause, by_bytes=by_bytes)

    def _collect(self, key: Key, window: Window | None) -> Collected:
        timeline = self._repository.kept(*key)
        quiet = self._quiet.pop(key, None) or Quiet()
        done = collect(self._repository.retention, timeline, window, self._least_seconds, quiet)
        if done.more_later:
            self._quiet[key] = quiet
        self.collected_layers += done.layers
        self.collected_bytes += done.bytes
        if done.layers:
            _log.info("collected", timeline=str(key[1]), layers=done.layers, bytes=done.bytes)
        return done


def _now() -> float:
    return asyncio.get_running_loop().time()
