"""From what a user means ("head", a time, a checkpoint) to a timeline and an LSN.

A database's past lies on several timelines: the one its name stands on, the ancestors of that
one up to their branch LSNs, and those that the name stood on before a restore. An LSN belongs
to the timeline that wrote it: its **owner** is the first timeline, from the present one
upward, whose branch LSN lies below it. Above a root that an upgrade has made stands the timeline
that was upgraded, as if it were a parent: its LSNs are all lower. A time is looked up on the
timeline on which the name stood *at that time*, so that "ten minutes ago" is what one saw ten
minutes ago, also when a restore has happened since.

Whether something was committed is asked of positions, never of a clock; clocks count only where
a user names a time.

A checkpoint is looked for among the database's own, then among those of the databases that it
comes from, the nearest first: of these, one that lies on the database's own past.

Invariant: a :class:`BranchPoint` is the end of a record at or below the owner's commit LSN, so
that a branch can begin there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pagestore.client.names import MAX_NAME_BYTES
from pagestore.client.page import AsyncPageClient
from pagestore.client.points import FORMS, AtCheckpoint, AtLsn, AtTime, Head, Point
from pagestore.control.logs import End, Logs
from pagestore.control.records import (
    BEGINNINGS,
    MOVES,
    CheckpointRecord,
    DatabaseRecord,
    TimelineRecord,
    TimelineState,
)
from pagestore.control.state import ControlState, now_micros
from pagestore.errors import DeadlineExceeded, NotFound, OutOfRange
from pagestore.ids import TimelineId, format_lsn
from pagestore.pauses import Pauses
from pagestore.pgformat.wal import position_below

INGEST_DEADLINE = 60.0
"""Seconds that a look-up by time or for a commit waits for the page server to have read the WAL."""
FUTURE_MICROS = 1_000_000
"""A time may lie this little ahead of our clock: the client's is another."""

COMMIT_DEADLINE = 1.0
NEAR_BYTES = 1 << 24
"""An LSN that Postgres has just named may be this little ahead of the WAL service, and not for
longer than COMMIT_DEADLINE seconds."""


@dataclass(frozen=True, slots=True)
class BranchPoint:
    timeline: TimelineRecord
    lsn: int
    prev_record_lsn: int


class History:
    def __init__(
        self,
        state: ControlState,
        pages: AsyncPageClient,
        logs: Logs,
        clock: Callable[[], int] = now_micros,
    ) -> None:
        self._state = state
        self._pages = pages
        self._logs = logs
        self._clock = clock

    async def head(self, timeline: TimelineId) -> BranchPoint:
        """The end of the last complete record that is committed."""
        return await self.last_record(timeline, await self._logs.end(timeline))

    async def last_record(self, timeline: TimelineId, end: End) -> BranchPoint:
        """The last one that ends at or below what is committed of a log."""
        owner = self._state.view().known_timeline(timeline)
        if end.prev_record_lsn:
            return BranchPoint(owner, end.commit_lsn, end.prev_record_lsn)
        return await self._aligned(owner, end.commit_lsn)

    async def resolve(self, database: DatabaseRecord, point: Point) -> BranchPoint:
        """
        Raises:
            NotFound: CHECKPOINT_NOT_FOUND.
            OutOfRange: LSN_BEYOND_HEAD, POINT_TOO_OLD, TIME_IN_FUTURE.
        """
        match point:
            case Head():
                return await self.head(database.timeline)
            case AtLsn(lsn):
                return await self.at_lsn(database.timeline, lsn)
            case AtTime(unix_micros):
                return await self._at_time(database, unix_micros)
            case AtCheckpoint(name, or_micros):
                checkpoint = self.named(database, name)
                if checkpoint is None and or_micros is not None:
                    return await self._at_time(database, or_micros)
                if checkpoint is None:
                    raise self.no_such_checkpoint(database, name)
                return await self.at_lsn(checkpoint.timeline, checkpoint.lsn)

    def began_at(self, database: DatabaseRecord) -> tuple[TimelineId | None, int]:
        """Of a branch: the timeline that it left, and where, however it was moved since."""
        view = self._state.view()
        events = view.events(database.tenant, database.name)
        first = next(event for event in events if event.verb in BEGINNINGS)
        record = view.known_timeline(first.timeline)
        return record.parent, record.branch_lsn

    async def at_lsn(self, timeline: TimelineId, lsn: int) -> BranchPoint:
        """`lsn`, aligned down to a record's end, on the timeline that owns it."""
        owner = self._owner(timeline, lsn)
        if lsn < owner.usable_lsn or lsn < owner.branch_lsn:
            oldest = format_lsn(owner.usable_lsn or owner.branch_lsn)
            raise _too_old(f"LSN {format_lsn(lsn)}", f"which is since {oldest}")
        commit_lsn = await self._commit_lsn(owner, lsn)
        if lsn > commit_lsn:
            raise OutOfRange(
                "LSN_BEYOND_HEAD",
                f"LSN {format_lsn(lsn)} lies beyond the head, {format_lsn(commit_lsn)}.",
                "Leave the point out to take the head. What was before a restore has LSNs of its "
                "own: a time or a checkpoint leads there.",
            )
        return await self._aligned(owner, lsn)

    async def _commit_lsn(self, owner: TimelineRecord, wanted: int) -> int:
        """The commit LSN; waits a moment for one that is about to reach `wanted`."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + COMMIT_DEADLINE
        while True:
            commit_lsn = (await self._logs.end(owner.timeline)).commit_lsn
            near = 0 < wanted - commit_lsn <= NEAR_BYTES
            if not near or clock() > deadline:
                return commit_lsn
            await asyncio.sleep(0.02)

    async def last_commit(self, timeline: TimelineId) -> int:
        """The LSN of the last commit up to the head of now, in the timeline's whole history."""
        head = await self.head(timeline)
        return await self._pages.last_commit(
            head.timeline.tenant, timeline, head.lsn, wait_ms=int(INGEST_DEADLINE * 1000)
        )

    def begins_at(self, database: DatabaseRecord, point: BranchPoint) -> bool:
        """Whether the timeline that the name stands on branched off there."""
        here = self._state.view().known_timeline(database.timeline)
        return (here.parent, here.branch_lsn) == (point.timeline.timeline, point.lsn)

    def _owner(self, timeline: TimelineId, lsn: int) -> TimelineRecord:
        view = self._state.view()
        record = view.known_timeline(timeline)
        while True:
            if record.parent is not None and lsn <= record.branch_lsn and not record.usable_lsn:
                record = view.known_timeline(record.parent)
            elif lsn < record.branch_lsn and (before := self._upgraded(record)) is not None:
                record = before
            else:
                return record

    def _upgraded(self, root: TimelineRecord) -> TimelineRecord | None:
        """What a root was made of by an upgrade, as long as somebody has it."""
        before = self._state.view().timeline(root.before) if root.before is not None else None
        return before if before is not None and before.state is TimelineState.LIVE else None

    def major(self, timeline: TimelineId) -> int:
        """Of Postgres."""
        return self._state.view().known_timeline(timeline).major

    async def _aligned(self, owner: TimelineRecord, lsn: int) -> BranchPoint:
        """Where the WAL is not kept any more, nobody knows where its records end. But every
        record that ends at or below an LSN is in what the page server has there, so a branch may
        begin at any, the owner's own first LSN too: all that is lost is the link to the record
        before."""
        try:
            end, prev = await self._logs.aligned(owner.timeline, lsn)
        except OutOfRange as error:
            if error.reason != "LSN_TOO_OLD" or lsn < owner.branch_lsn:
                raise
            end, prev = position_below(lsn), 0
        return BranchPoint(owner, end, prev)

    async def _at_time(self, database: DatabaseRecord, unix_micros: int) -> BranchPoint:
        timeline = self._timeline_at(database, unix_micros)
        if not self._is_there(timeline):
            raise OutOfRange(
                "POINT_TOO_OLD",
                f"{AtTime(unix_micros)} lies before the history of {database.name!r} that is kept.",
                f"`pagestore retention {database.name}` says for how long it is.",
            )
        return await self._at_time_on(database, timeline, unix_micros)

    async def _at_time_on(
        self, database: DatabaseRecord, timeline: TimelineId, unix_micros: int
    ) -> BranchPoint:
        await self._ingested(self._state.view().known_timeline(timeline))
        try:
            found = await self._pages.lsn_by_time(database.tenant, timeline, unix_micros)
        except OutOfRange as error:
            raise kept_no_more(error) from error
        if found.after_head and unix_micros > self._clock() + FUTURE_MICROS:
            raise OutOfRange(
                "TIME_IN_FUTURE",
                f"{AtTime(unix_micros)} lies in the future; it is {AtTime(self._clock())}.",
                "Leave the point out to take the head.",
            )
        owner = self._owner(timeline, found.lsn)
        before = self._upgraded(owner)
        if before is not None and unix_micros < owner.created_micros:
            return await self._at_time_on(database, before.timeline, unix_micros)
        if owner.usable_lsn and unix_micros < owner.created_micros:
            since = AtTime(owner.created_micros)
            raise _too_old(str(AtTime(unix_micros)), f"which is since {since}")
        # Nothing committed yet at that time: the database as it was made.
        return await self.at_lsn(timeline, max(found.lsn, owner.usable_lsn))

    def _is_there(self, timeline: TimelineId) -> bool:
        record = self._state.view().timeline(timeline)
        return record is not None and record.state is TimelineState.LIVE

    def _timeline_at(self, database: DatabaseRecord, unix_micros: int) -> TimelineId:
        """The timeline that the name stood on at a time; before all, its first."""
        events = self._state.view().events(database.tenant, database.name)
        moves = [event for event in events if event.verb in MOVES | BEGINNINGS]
        before = [event for event in moves if event.created_micros <= unix_micros]
        return (before[-1] if before else moves[0]).timeline

    async def _ingested(self, record: TimelineRecord) -> None:
        """Waits until the page server has read the WAL up to the head of now."""
        head = (await self.head(record.timeline)).lsn
        clock = asyncio.get_running_loop().time
        deadline = clock() + INGEST_DEADLINE
        pauses = Pauses(0.005, 0.2)
        while True:
            info = await self._pages.get_timeline(record.tenant, record.timeline)
            if info.last_record_lsn >= head:
                return
            if clock() > deadline:
                raise DeadlineExceeded(
                    "LSN_NOT_REACHED",
                    f"The page server has read the WAL up to {format_lsn(info.last_record_lsn)}, "
                    f"not yet up to the head {format_lsn(head)}.",
                    "Try again; `pagestore status` shows whether the page server is well.",
                )
            await pauses.sleep()

    def named(self, database: DatabaseRecord, name: str) -> CheckpointRecord | None:
        """The database's own checkpoint of that name, or the nearest one of its ancestors that
        lies on its past."""
        return self.own_checkpoint(database, name) or next(self._inherited(database, name), None)

    def own_checkpoint(self, database: DatabaseRecord, name: str) -> CheckpointRecord | None:
        if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
            return None
        return self._state.view().checkpoint(database.tenant, database.name, name)

    def no_such_checkpoint(self, database: DatabaseRecord, name: str) -> NotFound:
        return NotFound(
            "CHECKPOINT_NOT_FOUND",
            f"{database.name!r} has no checkpoint {name[:80]!r}.",
            f"`pagestore log {database.name}` lists them. {FORMS}",
        )

    def _inherited(self, database: DatabaseRecord, name: str) -> Iterator[CheckpointRecord]:
        """A stranger that has an ancestor's name has other timelines, and so none of these."""
        if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
            return
        view = self._state.view()
        seen = {database.name}
        past = list(self._ancestry(database.timeline))
        until = {record.timeline: limit for record, limit in past}
        for ancestor, _ in past:
            if ancestor.database in seen:
                continue
            seen.add(ancestor.database)
            found = view.checkpoint(database.tenant, ancestor.database, name)
            if found is not None:
                owner = self._owner(found.timeline, found.lsn)
                if found.lsn <= until.get(owner.timeline, -1):
                    yield found

    def _ancestry(self, timeline: TimelineId) -> Iterator[tuple[TimelineRecord, int]]:
        """A timeline and its ancestors, each with the highest LSN of it that is seen from there."""
        view = self._state.view()
        record, limit = view.known_timeline(timeline), 2**64
        while True:
            yield record, limit
            limit = min(limit, record.branch_lsn)
            parent = self._upgraded(record) if record.parent is None else None
            if record.parent is not None:
                parent = view.known_timeline(record.parent)
            if parent is None:
                return
            record = parent


def _too_old(what: str, since: str) -> OutOfRange:
    return OutOfRange(
        "POINT_TOO_OLD",
        f"{what} lies before the database existed, {since}.",
        "`pagestore log NAME` shows from where on it has a history.",
    )


def kept_no_more(error: OutOfRange) -> OutOfRange:
    """What the page server's refusal means to whoever named a point."""
    return OutOfRange(
        "POINT_TOO_OLD",
        f"That point lies before the history that is kept. {error.message}",
        "`pagestore retention NAME` says for how long it is; a checkpoint stays longer.",
    )
