"""Making and deleting timelines at the page server and the WAL service.

A timeline is *pending* in the control plane's state before any service hears of it, and
*dropped* when nobody names it any more. A dropped timeline stays, with its WAL, as long as
another branches off it: a page server that restarts may need that WAL to bring the ancestor
up to the branch LSN again. Deleting is repeatable: what is already gone is no error. A branch on
which nothing was started has no log at the WAL service yet (logs.py).

There is one way of making one, :meth:`Timelines.making`, for whoever makes it: create, branch,
import, a move, the template. It ends with the timeline live, or gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from pagestore.client.page import AsyncPageClient
from pagestore.control.history import BranchPoint, kept_no_more
from pagestore.control.logs import Logs
from pagestore.control.records import TimelineRecord, TimelineState, UnmadeLog
from pagestore.control.state import Change, ControlState, now_micros
from pagestore.control.turns import Turns
from pagestore.errors import NotFound, OutOfRange, PagestoreError, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import versions

INGEST_WAIT_MS = 60_000
"""How long the page server may wait for the parent's WAL up to the branch LSN."""
STALE_IMPORT_MICROS = 24 * 3600 * 1_000_000
"""An import that never ended is given up after a day."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Making:
    """A timeline that is coming to be."""

    begun: TimelineRecord

    @property
    def timeline(self) -> TimelineId:
        return self.begun.timeline

    def root(
        self, lsn: int, system_id: int, major: int, before: TimelineId | None = None
    ) -> Making:
        """The same, now that it is known where its history begins, and of which Postgres it is.

        Args:
            before: the timeline that it was made of by an upgrade.
        """
        update = {"branch_lsn": lsn, "system_id": system_id, "major": major, "before": before}
        return Making(self.begun.model_copy(update=update))

    def live(self, change: Change, **facts: int) -> None:
        """In the transaction that names it; with what is known of it only now."""
        update = {"state": TimelineState.LIVE, **facts}
        change.put_timeline(self.begun.model_copy(update=update))


def planned(
    tenant: TenantId,
    name: str,
    point: BranchPoint | None = None,
    *,
    imported: bool = False,
    asleep: bool = False,
) -> TimelineRecord:
    """A new timeline for `name`: a branch at a point, or a root.

    Args:
        asleep: nothing is started on it before it is named.
    """
    parent = point.timeline if point is not None else None
    unmade = UnmadeLog(prev_record_lsn=point.prev_record_lsn) if point and asleep else None
    return TimelineRecord(
        timeline=TimelineId.generate(),
        tenant=tenant,
        state=TimelineState.PENDING,
        database=name,
        parent=parent.timeline if parent is not None else None,
        branch_lsn=point.lsn if point is not None else 0,
        system_id=parent.system_id if parent is not None else 0,
        major=parent.major if parent is not None else versions.OLDEST.major,
        imported=imported,
        created_micros=now_micros(),
        unmade_log=unmade,
    )


class Timelines:
    """
    Args:
        turns: runs what deletes them in the background.
        on_delete: told of each timeline that has been deleted, if anything was started on it.
    """

    def __init__(
        self,
        state: ControlState,
        pages: AsyncPageClient,
        logs: Logs,
        turns: Turns,
        on_delete: Callable[[TimelineId], None] = lambda timeline: None,
    ) -> None:
        self._state = state
        self._pages = pages
        self._logs = logs
        self._turns = turns
        self._on_delete = on_delete
        self._collecting = asyncio.Lock()
        self._abandoned: set[TimelineId] = set()
        """Pending ones that nobody makes any more."""

    def begin_import(self, tenant: TenantId, name: str) -> TimelineRecord:
        """Enters a pending root, which is not made within one call."""
        record = planned(tenant, name, imported=True)
        with self._state.change() as change:
            change.put_timeline(record)
        return record

    @contextlib.asynccontextmanager
    async def making(self, begun: TimelineRecord) -> AsyncIterator[Making]:
        """Within, a pending timeline, which the body has made live when it ends.

        However it ends before, the timeline goes, and what the services have of it: nothing has
        happened. What fails after the name had moved does not take the timeline from it again.
        """
        try:
            if self._state.view().timeline(begun.timeline) is None:
                with self._state.change() as change:
                    change.put_timeline(begun)
            yield Making(begun)
        finally:
            left = self._state.view().timeline(begun.timeline)
            if left is not None and left.state is TimelineState.PENDING:
                self._abandon(begun.timeline)

    @contextlib.asynccontextmanager
    async def branching(
        self, tenant: TenantId, name: str, point: BranchPoint, *, asleep: bool = False
    ) -> AsyncIterator[Making]:
        """Within, a pending timeline for `name` that branches off at a point, at both services;
        `asleep` as of `planned`."""
        begun = planned(tenant, name, point, asleep=asleep)
        async with self.making(begun) as made:
            await self._make(begun, point.timeline, point)
            yield made

    async def _make(
        self, record: TimelineRecord, parent: TimelineRecord, point: BranchPoint
    ) -> None:
        # In any order: a page server that hears of WAL first looks again when the timeline
        # appears. Both end before either's failure is told, so that what is dropped stands still.
        calls: list[Awaitable[object]] = [
            self._pages.create_timeline(
                record.tenant, record.timeline, parent.timeline, point.lsn, wait_ms=INGEST_WAIT_MS
            )
        ]
        if record.unmade_log is None:
            calls.append(self._logs.make_at_once(record, point.prev_record_lsn))
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, OutOfRange) and result.reason == "LSN_TOO_OLD":
                raise kept_no_more(result) from result
            if isinstance(result, BaseException):
                raise result

    def _abandon(self, timeline: TimelineId) -> None:
        self._abandoned.add(timeline)
        self._drop_abandoned_if_possible()
        self.collect_soon()

    def _drop_abandoned_if_possible(self) -> None:
        """Else it is done with the next that is collected; nothing else has to wait for it."""
        try:
            self._drop_abandoned()
        except (PagestoreError, OSError) as error:
            left = [str(timeline) for timeline in self._abandoned]
            _log.warning("timelines are dropped later", timelines=left, error=str(error))

    def _drop_abandoned(self) -> None:
        if not self._abandoned:
            return
        with self._state.change() as change:
            for timeline in self._abandoned:
                change.set_timeline_state(timeline, TimelineState.DROPPED)
        self._abandoned.clear()

    def collect_soon(self) -> None:
        self._turns.background(self.collect())

    def drop_unfinished(self) -> None:
        """At start: what is pending now is the rest of a verb that was killed."""
        stale = now_micros() - STALE_IMPORT_MICROS
        for record in self._state.view().unsettled():
            unfinished = record.state is TimelineState.PENDING
            if unfinished and not (record.imported and record.created_micros > stale):
                self._abandoned.add(record.timeline)
        self._drop_abandoned_if_possible()

    async def collect(self) -> int:
        """Deletes dropped timelines off which nothing branches; how many it deleted.

        Raises:
            Unavailable: of some something is left, at a service that is away.
        """
        self._drop_abandoned()
        deleted = 0
        left: dict[TimelineId, Unavailable] = {}
        async with self._collecting:
            while leaves := [item for item in self._leaves() if item.timeline not in left]:
                deleted += await self._delete_all(leaves, left)
        if left:
            raise next(iter(left.values()))
        return deleted

    async def _delete_all(
        self, leaves: Iterable[TimelineRecord], left: dict[TimelineId, Unavailable]
    ) -> int:
        """How many; `left` is told which not, and why. All are forgotten in one transaction: what
        a kill leaves known is deleted once more, without effect."""
        gone: list[TimelineId] = []
        try:
            for record in leaves:
                try:
                    await self._delete(record)
                    gone.append(record.timeline)
                except Unavailable as error:
                    left[record.timeline] = error
        finally:
            if gone:
                with self._state.change() as change:
                    for timeline in gone:
                        change.forget_timeline(timeline)
        return len(gone)

    async def _delete(self, record: TimelineRecord) -> None:
        """One of several safekeepers may be away: the pages go all the same."""
        away: Unavailable | None = None
        had_log = True
        try:
            had_log = await self._logs.remove(record)
        except Unavailable as error:
            away = error
        try:
            await self._pages.delete_timeline(record.tenant, record.timeline)
        except NotFound:
            _log.info("the timeline was not at the page server", timeline=str(record.timeline))
        if away is not None:
            raise away
        if had_log:
            self._on_delete(record.timeline)

    def _leaves(self) -> list[TimelineRecord]:
        view = self._state.view()
        return [
            record
            for record in view.unsettled()
            if record.state is TimelineState.DROPPED and not view.has_children(record.timeline)
        ]
