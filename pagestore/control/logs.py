"""When the WAL service makes the log of a branch: at its first start.

Most branches are made to be looked at later, or never. Until something is started on one, nobody
can have written to it: its head is where it left its parent, and there is nothing that a safekeeper
could add. So `branch` asks no safekeeper. The branch's record says that its log is *unmade*, and
whoever would ask the WAL service for it is answered from the record.

Before anything is started on it the log is made, in three steps:

1. a transaction: these safekeepers are asked from now on (`members`);
2. they make it, a majority of them at least; to make it again changes nothing;
3. a transaction: it is made.

Killed after 1, or after 2, the next start asks the same safekeepers again, whoever the installation
has by then: were others asked too, two majorities could each think that they decide. Nobody is
elected before 3, so what one of them made by half, or late, is as it was made.

Invariant: after 3 the record never says again that a log is unmade. A safekeeper that does not know
a log whose record says that it is made has lost it, and that is told, never mended: what was
acknowledged may have been in it.

A record of an *older* state may be wrong, if somebody has accepted such a state (census.py) or it
comes from an object store (recover). Then it is *doubtful*, and the safekeepers are asked: all have
to say that there is none.

What is started as soon as it is made (`create`, `restore`, a place in the past) has its log made
at once, in the pending timeline, of which a kill leaves nothing: timelines.py.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Container
from typing import NamedTuple

from pagestore.client.walservice import WalService
from pagestore.control.records import TimelineRecord, UnmadeLog
from pagestore.control.state import ControlState
from pagestore.errors import NotFound, Unavailable
from pagestore.ids import TimelineId

KNOWN_SECONDS = 0.5
"""For the safekeepers to say that they have a log that nobody was asked to make."""


class End(NamedTuple):
    """Where a log ends, as far as it is committed.

    Args:
        prev_record_lsn: start of the record that ends there; 0 if unknown.
        wal_bytes: that are kept of it.
    """

    commit_lsn: int
    prev_record_lsn: int = 0
    wal_bytes: int = 0


class Logs:
    """Of one event loop."""

    def __init__(self, state: ControlState, wal: WalService) -> None:
        self._state = state
        self._wal = wal
        self._making: weakref.WeakValueDictionary[TimelineId, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )

    async def end(self, timeline: TimelineId) -> End:
        """Of now.

        Raises:
            NotFound: TIMELINE_NOT_FOUND. Unavailable: NO_QUORUM and others.
        """
        record = await self._believed(timeline)
        if record.unmade_log is not None:
            return End(record.branch_lsn, record.unmade_log.prev_record_lsn)
        status = await self._wal.get_status(record.tenant, timeline)
        # Where more is durable than is committed, nobody has said where the record before begins.
        is_end = status.commit_lsn == status.flush_lsn
        prev = status.prev_record_lsn if is_end else 0
        return End(status.commit_lsn, prev, status.wal_bytes)

    async def aligned(self, timeline: TimelineId, lsn: int) -> tuple[int, int]:
        """The end of the last record of its own at or below `lsn`, and that record's start.

        Raises:
            OutOfRange: LSN_TOO_OLD. NotFound, Unavailable: as `end`.
        """
        record = await self._believed(timeline)
        if record.unmade_log is not None:
            return record.branch_lsn, record.unmade_log.prev_record_lsn
        return await self._wal.align_lsn(record.tenant, timeline, lsn)

    async def make(self, timeline: TimelineId) -> None:
        """Before anything is started on a timeline; without effect where its log is made.

        Raises:
            Unavailable: too few safekeepers answer. AlreadyExists: they have another of that name.
        """
        await self._settled(timeline, begin=True)

    async def is_made(self, timeline: TimelineId) -> bool:
        """Also where it was only begun: then it is made now. Raises as `make` does."""
        return await self._settled(timeline, begin=False)

    async def make_at_once(self, record: TimelineRecord, prev_record_lsn: int) -> None:
        """Of a timeline that is pending: whatever is left of it, if this fails, goes with that."""
        await self._wal.create_timeline(
            record.tenant,
            record.timeline,
            record.branch_lsn,
            prev_record_lsn=prev_record_lsn,
            system_id=record.system_id,
        )

    async def remove(self, record: TimelineRecord) -> bool:
        """Removes a timeline's log; whether there can have been one.

        Raises:
            Unavailable: a safekeeper is away, the others have removed it.
        """
        if record.was_never_started:
            return False
        await self._wal.remove_timeline(record.tenant, record.timeline)
        return True

    async def _settled(self, timeline: TimelineId, *, begin: bool) -> bool:
        record = self._state.view().timeline(timeline)
        if record is None or record.unmade_log is None:
            return True  # it is being made (timelines.py), or is there
        lock = self._making.setdefault(timeline, asyncio.Lock())
        async with lock:
            record = await self._believed(timeline)
            unmade = record.unmade_log
            if unmade is not None and unmade.members is None and not begin:
                return False
            if unmade is not None:
                await self._make(record, unmade)
        return True

    async def _make(self, record: TimelineRecord, unmade: UnmadeLog) -> None:
        timeline, members = record.timeline, unmade.members
        if members is None:
            if await self._is_known(record):
                self._note(timeline, unmade, None)
                return
            members = self._wal.numbers
            asked = unmade.model_copy(update={"members": members})
            self._note(timeline, unmade, asked)
            unmade = asked
        await self._wal.create_timeline(
            record.tenant,
            timeline,
            record.branch_lsn,
            prev_record_lsn=unmade.prev_record_lsn,
            system_id=record.system_id,
            members=members,
        )
        self._note(timeline, unmade, None)

    async def _is_known(self, record: TimelineRecord) -> bool:
        """Of a log that nobody was asked to make, as far as this state knows. Of a copy that is
        older, unnoticed, it is not made anew where one of its safekeepers has lost it."""
        try:
            async with asyncio.timeout(KNOWN_SECONDS):
                await self._wal.is_committed(record.tenant, record.timeline, 0)
        except (NotFound, Unavailable, TimeoutError):
            return False
        return True

    async def _believed(self, timeline: TimelineId) -> TimelineRecord:
        """A record whose word on the log counts."""
        record = self._state.view().known_timeline(timeline)
        unmade = record.unmade_log
        if unmade is None or not unmade.doubtful:
            return record
        try:
            await self._wal.get_status(record.tenant, timeline)
        except NotFound:
            self._note(timeline, unmade, unmade.model_copy(update={"doubtful": False}))
        else:
            self._note(timeline, unmade, None)
        return self._state.view().known_timeline(timeline)

    def _note(self, timeline: TimelineId, before: UnmadeLog, now: UnmadeLog | None) -> None:
        """Unless somebody else has meanwhile: nobody ever takes back that a log is made."""
        with self._state.change() as change:
            record = change.known_timeline(timeline)
            if record.unmade_log == before:
                change.put_timeline(record.model_copy(update={"unmade_log": now}))


def doubt_unmade(state: ControlState) -> None:
    """Of a state that may be older than the one that was written last."""
    with state.change() as change:
        for record in (*change.live_timelines(), *change.unsettled()):
            if record.unmade_log is not None:
                unmade = record.unmade_log.model_copy(update={"doubtful": True})
                change.put_timeline(record.model_copy(update={"unmade_log": unmade}))


def settle_unmade(state: ControlState, logs: Container[TimelineId]) -> None:
    """Of a state whose safekeepers are gone, and that has new ones: these logs they have."""
    with state.change() as change:
        for record in (*change.live_timelines(), *change.unsettled()):
            if record.unmade_log is not None:
                left = UnmadeLog(prev_record_lsn=record.unmade_log.prev_record_lsn)
                unmade = None if record.timeline in logs else left
                change.put_timeline(record.model_copy(update={"unmade_log": unmade}))
