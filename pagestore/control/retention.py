"""How much of the past is kept: said by users, told to the page server, and let go in time.

A database's history is kept for a window (the installation's, or its own), and its checkpoints
for as long as they are there. The page server knows neither names nor checkpoints; it is told what
they come to, timeline by timeline (`wanted`): which LSNs are kept, whose window is another one,
and what nobody names any more, so that only branches off it hold it. It is told all at the start
and after a failure, else what has changed, and at least once a minute that nothing has: without
that it drops nothing.

What goes by itself here, as if somebody had deleted it: checkpoints whose time is over; the
automatic ones of moves with the window of their database; and then the timelines that a name has
left, once no checkpoint stands on them and the window has passed since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from pagestore.client import durations
from pagestore.client.names import database_name
from pagestore.client.page import AsyncPageClient
from pagestore.control.records import (
    BEGINNINGS,
    MOVES,
    CheckpointRecord,
    DatabaseRecord,
    EventRecord,
    RetentionRecord,
    TimelineState,
    Verb,
)
from pagestore.control.state import ControlState, View, now_micros
from pagestore.control.timelines import Timelines
from pagestore.control.turns import Turns
from pagestore.errors import InvalidInput, PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import page_pb2 as pb

DEFAULT = RetentionRecord(seconds=7 * 86400)
LONGEST_SECONDS = 100 * 365 * 86400
LOOK_SECONDS = 2.0
TELL_SECONDS = 60.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of a timeline, where it is not what is wanted of all."""

    window: RetentionRecord | None = None
    points: tuple[int, ...] = ()
    unnamed: bool = False


Key = tuple[TenantId, TimelineId]
NOTHING_SPECIAL = Wanted()


def wanted(view: View) -> dict[Key, Wanted]:
    """Of all timelines of which something special is wanted."""
    windows: dict[Key, RetentionRecord] = {}
    for tenant, name, record in view.retentions():
        for timeline in view.timelines_of(tenant, name):
            if timeline.state is TimelineState.LIVE:
                windows[tenant, timeline.timeline] = record
    points: dict[Key, set[int]] = {}
    for tenant, _, checkpoint in view.all_checkpoints():
        points.setdefault((tenant, checkpoint.timeline), set()).add(checkpoint.lsn)
    found = {
        key: Wanted(windows.get(key), tuple(sorted(points.get(key, ()))))
        for key in windows.keys() | points.keys()
    }
    for timeline in view.unsettled():
        if timeline.state is TimelineState.DROPPED and view.has_children(timeline.timeline):
            found[timeline.tenant, timeline.timeline] = Wanted(unnamed=True)
    return found


def checked(seconds: float, wal_bytes: int) -> RetentionRecord:
    """
    Raises:
        InvalidInput: INVALID_RETENTION.
    """
    if wal_bytes < 0:
        raise InvalidInput("INVALID_RETENTION", f"{wal_bytes} is no number of bytes.")
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise InvalidInput(
            "INVALID_RETENTION",
            f"{durations.words(seconds) if seconds > 0 else seconds} is no time that history "
            f"could be kept: it has to be 0 or more, and at most "
            f"{durations.words(LONGEST_SECONDS)}.",
            "Write a time as 12h or 14d.",
        )
    return RetentionRecord(seconds=int(seconds), wal_bytes=wal_bytes)


class Retention:
    """
    Args:
        default: of databases that have none of their own.
        clock: unix time in microseconds.
    """

    def __init__(
        self,
        state: ControlState,
        pages: AsyncPageClient,
        timelines: Timelines,
        turns: Turns,
        default: RetentionRecord = DEFAULT,
        clock: Callable[[], int] = now_micros,
    ) -> None:
        self._state = state
        self._pages = pages
        self._timelines = timelines
        self._turns = turns
        self.default = default
        self._clock = clock
        self._told: dict[Key, Wanted] | None = None
        self._complaint = ""

    def of(self, tenant: TenantId, name: str) -> RetentionRecord:
        return self._state.view().retention(tenant, name) or self.default

    async def change(
        self, tenant: TenantId, name: str, window: RetentionRecord | None
    ) -> DatabaseRecord:
        """
        Args:
            window: None: the installation's.
        """
        name = database_name(name)
        async with self._turns.on(tenant, name):
            with self._state.change() as change:
                record = change.known_database(tenant, name)
                change.put_retention(tenant, name, window)
            return record

    async def run(self) -> None:
        """Until cancelled."""
        version, tell_at = -1, 0.0
        now = asyncio.get_running_loop().time
        while True:
            if version != self._state.version or now() >= tell_at:
                version = self._state.version
                if await self._settled():
                    tell_at = now() + TELL_SECONDS
            await asyncio.sleep(LOOK_SECONDS)

    async def _settled(self) -> bool:
        try:
            await self.let_go()
            await self.tell()
        except (PagestoreError, OSError) as error:
            if str(error) != self._complaint:
                _log.warning("what is to be kept is told later", error=str(error))
            self._told, self._complaint = None, str(error)
            return False
        self._complaint = ""
        return True

    async def tell(self) -> None:
        """
        Raises:
            Unavailable: the page server is away.
        """
        now = await asyncio.to_thread(wanted, self._state.view())
        before = self._told
        changed = {
            key: item for key, item in now.items() if before is None or before.get(key) != item
        }
        for key in (before or {}).keys() - now.keys():
            changed[key] = NOTHING_SPECIAL
        answer = await self._pages.set_retention(
            pb.SetRetentionRequest(
                window=_window(self.default),
                timelines=[_message(key, item) for key, item in changed.items()],
                all=before is None,
            )
        )
        for lost in answer.lost:
            _log.warning(
                "checkpoints whose history is gone",
                timeline=lost.timeline_id.hex(),
                lsns=list(lost.points),
            )
        self._told = now

    # What goes by itself

    async def let_go(self) -> None:
        """Checkpoints whose time is over, and what names have left behind."""
        now, view = self._clock(), self._state.view()
        for tenant, name in {
            (tenant, name)
            for tenant, name, checkpoint in view.all_checkpoints()
            if self._is_over(tenant, name, checkpoint, now)
        }:
            async with self._turns.on(tenant, name):
                self._forget_checkpoints(tenant, name, now)
        dropped = False
        for tenant, name in view.with_several_timelines():
            if self._left(tenant, name, now):
                async with self._turns.on(tenant, name):
                    dropped |= self._drop(self._left(tenant, name, now))
        if dropped:
            self._timelines.collect_soon()

    def _is_over(self, tenant: TenantId, name: str, checkpoint: CheckpointRecord, now: int) -> bool:
        if checkpoint.automatic:
            return checkpoint.created_micros + self._micros(tenant, name) <= now
        return 0 < checkpoint.expires_micros <= now

    def _micros(self, tenant: TenantId, name: str) -> int:
        return self.of(tenant, name).seconds * 1_000_000

    def _forget_checkpoints(self, tenant: TenantId, name: str, now: int) -> None:
        with self._state.change() as change:
            for checkpoint in change.checkpoints(tenant, name):
                if self._is_over(tenant, name, checkpoint, now):
                    change.delete_checkpoint(tenant, name, checkpoint.name)
                    change.add_event(tenant, name, _over(checkpoint, now))

    def _left(self, tenant: TenantId, name: str, now: int) -> list[TimelineId]:
        """Timelines of a database that it is done with."""
        view = self._state.view()
        record = view.database(tenant, name)
        if record is None:
            return []
        needed = {record.timeline, *(item.timeline for item in view.checkpoints(tenant, name))}
        left = left_at(view.events(tenant, name))
        since = now - self._micros(tenant, name)
        return [
            item.timeline
            for item in view.timelines_of(tenant, name)
            if item.state is TimelineState.LIVE
            and item.timeline not in needed
            and left.get(item.timeline, now) <= since
        ]

    def _drop(self, timelines: Iterable[TimelineId]) -> bool:
        dropped = False
        with self._state.change() as change:
            for timeline in timelines:
                change.set_timeline_state(timeline, TimelineState.DROPPED)
                dropped = True
        return dropped


def left_at(events: Iterable[EventRecord]) -> dict[TimelineId, int]:
    """When a name left the timelines that it stood on, from its log; micros."""
    left: dict[TimelineId, int] = {}
    here: TimelineId | None = None
    for event in events:
        if event.verb in MOVES | BEGINNINGS and event.timeline != here:
            if here is not None:
                left[here] = event.created_micros
            here = event.timeline
    return {timeline: at for timeline, at in left.items() if timeline != here}


def _over(checkpoint: CheckpointRecord, now: int) -> EventRecord:
    return EventRecord(
        verb=Verb.DELETE_CHECKPOINT,
        timeline=checkpoint.timeline,
        lsn=checkpoint.lsn,
        created_micros=now,
        checkpoint=checkpoint.name,
        detail=f"{checkpoint.name}, whose time was over",
    )


def _window(record: RetentionRecord) -> pb.RetentionWindow:
    return pb.RetentionWindow(seconds=record.seconds, wal_bytes=record.wal_bytes)


def _message(key: Key, item: Wanted) -> pb.TimelineRetention:
    return pb.TimelineRetention(
        tenant_id=key[0].raw,
        timeline_id=key[1].raw,
        window=None if item.window is None else _window(item.window),
        points=item.points,
        unnamed=item.unnamed,
    )
