"""Making and deleting timelines at the page server and the WAL service.

A timeline is *pending* in the control plane's state before any service hears of it, and
*dropped* when nobody names it any more. A dropped timeline stays, with its WAL, as long as
another branches off it: a page server that restarts may need that WAL to bring the ancestor
up to the branch LSN again. Deleting is repeatable: what is already gone is no error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog

from pagestore.client.page import AsyncPageClient
from pagestore.client.walservice import WalService
from pagestore.control.history import BranchPoint
from pagestore.control.records import TimelineRecord, TimelineState
from pagestore.control.state import ControlState, now_micros
from pagestore.control.turns import Turns
from pagestore.errors import NotFound, Unavailable
from pagestore.ids import TenantId, TimelineId

INGEST_WAIT_MS = 60_000
"""How long the page server may wait for the parent's WAL up to the branch LSN."""
STALE_IMPORT_MICROS = 24 * 3600 * 1_000_000
"""An import that never ended is given up after a day."""

_log = structlog.get_logger(__name__)


class Timelines:
    """
    Args:
        turns: runs what deletes them in the background.
        on_delete: told of each timeline that has been deleted.
    """

    def __init__(
        self,
        state: ControlState,
        pages: AsyncPageClient,
        wal: WalService,
        turns: Turns,
        on_delete: Callable[[TimelineId], None],
    ) -> None:
        self._state = state
        self._pages = pages
        self._wal = wal
        self._turns = turns
        self._on_delete = on_delete
        self._collecting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def made(
        self, tenant: TenantId, name: str, point: BranchPoint
    ) -> AsyncIterator[TimelineRecord]:
        """Within, a pending timeline for `name` that branches off at a point, at both services.

        The body names it, in a transaction that also makes it live. If it ends before, by an
        error, the timeline is dropped: nothing has happened.
        """
        parent = point.timeline
        record = TimelineRecord(
            timeline=TimelineId.generate(),
            tenant=tenant,
            state=TimelineState.PENDING,
            database=name,
            parent=parent.timeline,
            branch_lsn=point.lsn,
            system_id=parent.system_id,
            created_micros=now_micros(),
        )
        with self._state.change() as change:
            change.put_timeline(record)
        async with self.guarded(record.timeline):
            await self._make(record, parent, point)
            yield record

    @contextlib.asynccontextmanager
    async def guarded(self, timeline: TimelineId) -> AsyncIterator[None]:
        """Drops a pending timeline if the body ends by an error before it is live."""
        try:
            yield
        except BaseException:
            # What failed after the name had moved does not take the timeline from it again.
            if self._state.view().known_timeline(timeline).state is TimelineState.PENDING:
                self._abandon(timeline)
            raise

    async def _make(
        self, record: TimelineRecord, parent: TimelineRecord, point: BranchPoint
    ) -> None:
        # In any order: a page server that hears of WAL first looks again when the timeline
        # appears. Both end before either's failure is told, so that what is dropped stands still.
        results = await asyncio.gather(
            self._pages.create_timeline(
                record.tenant, record.timeline, parent.timeline, point.lsn, wait_ms=INGEST_WAIT_MS
            ),
            self._wal.create_timeline(
                record.tenant,
                record.timeline,
                point.lsn,
                prev_record_lsn=point.prev_record_lsn,
                system_id=record.system_id,
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _abandon(self, timeline: TimelineId) -> None:
        with self._state.change() as change:
            change.set_timeline_state(timeline, TimelineState.DROPPED)
        self.collect_soon()

    def collect_soon(self) -> None:
        self._turns.background(self.collect())

    def drop_unfinished(self) -> None:
        """At start: what is pending now is the rest of a verb that was killed."""
        stale = now_micros() - STALE_IMPORT_MICROS
        with self._state.change() as change:
            for record in change.unsettled():
                unfinished = record.state is TimelineState.PENDING
                if unfinished and not (record.imported and record.created_micros > stale):
                    change.set_timeline_state(record.timeline, TimelineState.DROPPED)

    async def collect(self) -> int:
        """Deletes dropped timelines off which nothing branches; how many it deleted.

        Raises:
            Unavailable: of some something is left, at a service that is away.
        """
        deleted = 0
        left: dict[TimelineId, Unavailable] = {}
        async with self._collecting:
            while leaves := [item for item in self._leaves() if item.timeline not in left]:
                for record in leaves:
                    try:
                        await self._delete(record)
                        deleted += 1
                    except Unavailable as error:
                        left[record.timeline] = error
        if left:
            raise next(iter(left.values()))
        return deleted

    async def _delete(self, record: TimelineRecord) -> None:
        """One of several safekeepers may be away: the pages go all the same."""
        away: Unavailable | None = None
        try:
            await self._wal.remove_timeline(record.tenant, record.timeline)
        except Unavailable as error:
            away = error
        try:
            await self._pages.delete_timeline(record.tenant, record.timeline)
        except NotFound:
            _log.info("the timeline was not at the page server", timeline=str(record.timeline))
        if away is not None:
            raise away
        with self._state.change() as change:
            change.forget_timeline(record.timeline)
        self._on_delete(record.timeline)

    def _leaves(self) -> list[TimelineRecord]:
        view = self._state.view()
        return [
            record
            for record in view.unsettled()
            if record.state is TimelineState.DROPPED and not view.has_children(record.timeline)
        ]
