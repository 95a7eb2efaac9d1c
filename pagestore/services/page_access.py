"""Which timeline, and as of which LSN: what every call of the page server settles first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagestore._native import RedoPool, Snapshot
from pagestore.errors import InvalidInput, NotFound, Unavailable
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.ingest.follower import Follower
from pagestore.ingest.waiters import LsnWaiters
from pagestore.maintenance.collector import Collector
from pagestore.maintenance.compactor import Compactor
from pagestore.maintenance.flusher import Flusher
from pagestore.reader.threads import ReadThreads
from pagestore.services.page_responses import Responses
from pagestore.timeline import Repository, Timeline

if TYPE_CHECKING:
    from pagestore.services.page_objects import PageObjects

DEFAULT_WAIT_MS = 10_000
LONGEST_WAIT_MS = 60_000


@dataclass
class PageAccess:
    """The parts of one page server that its two services share."""

    repository: Repository
    waiters: LsnWaiters
    flusher: Flusher
    follower: Follower
    redo: Callable[[int], RedoPool | None]
    """The pool of a major."""
    threads: ReadThreads
    responses: Responses
    collector: Collector
    compactor: Compactor
    objects: PageObjects | None = None

    def timeline(self, tenant_id: bytes, timeline_id: bytes) -> Timeline:
        """
        Raises:
            InvalidInput: INVALID_ID.
            NotFound: TIMELINE_NOT_FOUND.
        """
        return self.repository.get(TenantId(tenant_id), TimelineId(timeline_id))

    def read_now(self, timeline: Timeline, request_lsn: int, not_modified_since: int) -> int | None:
        """The LSN to read at, or None if ingest is not there yet.

        A page that has not changed since `not_modified_since` is the same at every LSN from
        there to `request_lsn`, so any that is ingested will do.

        Raises:
            InvalidInput: LSN_REQUIRED, INVALID_LSN.
            OutOfRange: LSN_TOO_OLD.
        """
        if request_lsn == 0:
            raise InvalidInput(
                "LSN_REQUIRED",
                "A read needs a request_lsn; 0 is no position.",
                "Read at a commit LSN, or at the last_record_lsn that GetTimeline tells.",
            )
        if not_modified_since > request_lsn:
            raise InvalidInput(
                "INVALID_LSN",
                f"not_modified_since_lsn {format_lsn(not_modified_since)} lies beyond request_lsn "
                f"{format_lsn(request_lsn)}.",
            )
        if request_lsn < timeline.kept_from:
            self.repository.retention.check(timeline, request_lsn)
        last = timeline.last_record_lsn
        if request_lsn <= last:
            return request_lsn
        if not_modified_since and not_modified_since <= last:
            return last
        return None

    async def reach(self, timeline: Timeline, lsn: int, wait_ms: int) -> None:
        """Waits until `lsn` is ingested.

        Raises:
            DeadlineExceeded: LSN_NOT_REACHED.
            FailedPrecondition: INGEST_STOPPED.
            NotFound: TIMELINE_NOT_FOUND; it was deleted meanwhile.
        """
        key = timeline.tenant_id, timeline.timeline_id
        failure = self.follower.failure(key)
        if failure is not None and lsn > timeline.last_record_lsn:
            raise failure.with_traceback(None)  # not of all who were told before
        seconds = min(wait_ms or DEFAULT_WAIT_MS, LONGEST_WAIT_MS) / 1000
        self.follower.hasten(key)
        await self.waiters.wait(key, lsn, seconds, lambda: timeline.last_record_lsn)

    async def read_lsn(
        self, timeline: Timeline, request_lsn: int, not_modified_since: int, wait_ms: int = 0
    ) -> int:
        """The LSN to read at, once it is ingested. Raises as `read_now` and `reach`."""
        lsn = self.read_now(timeline, request_lsn, not_modified_since)
        if lsn is None:
            await self.reach(timeline, not_modified_since or request_lsn, wait_ms)
            lsn = self.read_now(timeline, request_lsn, not_modified_since)
        if lsn is None:
            raise NotFound("TIMELINE_NOT_FOUND", f"Timeline {timeline.timeline_id} went away.")
        return lsn

    async def snapshot(
        self,
        tenant_id: bytes,
        timeline_id: bytes,
        request_lsn: int,
        not_modified_since: int = 0,
        wait_ms: int = 0,
    ) -> tuple[Snapshot, int]:
        """A timeline's snapshot, and the LSN to read it at."""
        timeline = self.timeline(tenant_id, timeline_id)
        lsn = await self.read_lsn(timeline, request_lsn, not_modified_since, wait_ms)
        snapshot = await self.whole_snapshot(timeline, wait_ms)
        self.still_kept(timeline, lsn)
        return snapshot, lsn

    def still_kept(self, timeline: Timeline, lsn: int) -> None:
        """Once the snapshot is at hand, which will not change: of what the cutoff had passed
        meanwhile, it may lack something.

        Raises:
            OutOfRange: LSN_TOO_OLD.
        """
        if lsn < timeline.kept_from:
            self.repository.retention.check(timeline, lsn)

    async def whole_snapshot(self, timeline: Timeline, wait_ms: int = 0) -> Snapshot:
        """A snapshot; after a restart, once the ancestors have caught up again. From here on the
        timeline's major is known.

        Raises:
            Unavailable: IO_ERROR, OBJECT_STORE_UNAVAILABLE. Besides, as `reach`.
        """
        if not timeline.opened:
            await asyncio.to_thread(timeline.open)
        try:
            return timeline.snapshot()  # nearly always; to look at each ancestor takes longer
        except Unavailable:
            while (behind := timeline.ancestor_behind()) is not None:
                await self.reach(*behind, wait_ms)
            return timeline.snapshot()
