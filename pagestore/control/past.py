"""A name and its past: checkpoint, restore, undo.

A move (restore, undo) makes a branch at a point of the past and swings the name to it, in one
transaction with its event and with an automatic checkpoint of where the name was.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagestore.client.names import checkpoint_name, database_name
from pagestore.client.points import Point
from pagestore.control.computes import Computes
from pagestore.control.history import BranchPoint, History
from pagestore.control.records import (
    CheckpointRecord,
    DatabaseRecord,
    EventRecord,
    TimelineRecord,
    TimelineState,
    Verb,
)
from pagestore.control.state import ControlState, now_micros
from pagestore.control.timelines import Timelines
from pagestore.control.turns import Turns
from pagestore.control.undo import Marks
from pagestore.errors import AlreadyExists
from pagestore.ids import TenantId, format_lsn


@dataclass(frozen=True, slots=True)
class Restored:
    database: DatabaseRecord
    kept: CheckpointRecord
    summary: str


class Past:
    def __init__(
        self,
        state: ControlState,
        computes: Computes,
        history: History,
        timelines: Timelines,
        turns: Turns,
    ) -> None:
        self._state = state
        self._computes = computes
        self._history = history
        self._timelines = timelines
        self._turns = turns

    async def checkpoint(
        self, tenant: TenantId, database: str, name: str, git_commit: str = ""
    ) -> CheckpointRecord:
        """Names the commit LSN of now."""
        database, name = database_name(database), checkpoint_name(name)
        async with self._turns.on(tenant, database):
            record = self._state.view().known_database(tenant, database)
            existing = self._state.view().checkpoint(tenant, database, name)
            if existing is not None:
                await self._refuse_other_checkpoint(record, existing, git_commit)
                return existing
            head = await self._history.head(record.timeline)
            made = CheckpointRecord(
                name=name,
                timeline=record.timeline,
                lsn=head.lsn,
                git_commit=git_commit,
                created_micros=now_micros(),
            )
            with self._state.change() as change:
                change.put_checkpoint(tenant, database, made)
                change.add_event(tenant, database, _checkpoint_event(made))
            return made

    async def restore(self, tenant: TenantId, database: str, at: Point) -> Restored:
        """Moves the name to a branch at a point of its past."""
        name = database_name(database)
        return await self._turns.to_its_end(self._restore(tenant, name, at))

    async def undo(self, tenant: TenantId, database: str) -> Restored:
        """Goes back to where undo.py says.

        Raises:
            FailedPrecondition: NOTHING_TO_UNDO.
        """
        return await self._turns.to_its_end(self._undo(tenant, database_name(database)))

    async def _restore(self, tenant: TenantId, database: str, at: Point) -> Restored:
        async with self._turns.on(tenant, database):
            record = self._state.view().known_database(tenant, database)
            point = await self._history.resolve(record, at)
            done = await self._moved_already(record, point)
            return done or await self._move(record, point, Verb.RESTORE, f"{at}")

    async def _undo(self, tenant: TenantId, database: str) -> Restored:
        async with self._turns.on(tenant, database):
            record = self._state.view().known_database(tenant, database)
            marks = Marks.of(self._state.view().events(tenant, record.name))
            mark = marks.latest
            if mark is not None and await self._history.last_commit(record.timeline) > mark.lsn:
                point = await self._history.at_lsn(mark.timeline, mark.lsn)
                return await self._move(record, point, Verb.UNDO, marks.words(mark))
            if marks.last_move is None:
                raise marks.nothing_to_undo(record.name)
            name = marks.last_move.checkpoint
            kept = self._state.view().checkpoint(tenant, record.name, name)
            assert kept is not None, "a move and its automatic checkpoint are one transaction"
            point = await self._history.at_lsn(kept.timeline, kept.lsn)
            words = f"where it was before the {marks.last_move.verb} ({kept.name})"
            return await self._move(record, point, Verb.UNDO, words)

    async def _moved_already(self, record: DatabaseRecord, point: BranchPoint) -> Restored | None:
        """What the last restore or undo did, if it went to `point` and nothing was committed
        since: a restore that is sent again is one restore, and one undo takes it back."""
        marks = Marks.of(self._state.view().events(record.tenant, record.name))
        here = self._state.view().known_timeline(record.timeline)
        at_point = (here.parent, here.branch_lsn) == (point.timeline.timeline, point.lsn)
        if marks.last_move is None or marks.latest is not marks.last_move or not at_point:
            return None
        if await self._history.last_commit(record.timeline) > point.lsn:
            return None
        name = marks.last_move.checkpoint
        kept = self._state.view().checkpoint(record.tenant, record.name, name)
        assert kept is not None, "a move and its automatic checkpoint are one transaction"
        summary = f"{record.name} is at LSN {format_lsn(point.lsn)} already."
        with self._state.change() as change:
            record = record.model_copy(update={"wanted": True})
            change.put_database(record)
        await self._computes.start(record)
        return Restored(record, kept, summary)

    async def _move(
        self, record: DatabaseRecord, point: BranchPoint, verb: Verb, words: str
    ) -> Restored:
        """Makes a branch at `point`, then swings the name to it; the old position is kept."""
        key = (record.tenant, record.name)
        try:
            async with (
                self._timelines.made(record.tenant, record.name, point) as timeline,
                self._computes.moving(key),
            ):
                head = await self._history.head(record.timeline)
                moved = self._swing(record, timeline, point, head, verb, words)
        except BaseException:
            if record.wanted:
                self._computes.start_soon(record)
            raise
        await self._computes.start(moved.database)
        return moved

    def _swing(
        self,
        record: DatabaseRecord,
        timeline: TimelineRecord,
        point: BranchPoint,
        head: BranchPoint,
        verb: Verb,
        words: str,
    ) -> Restored:
        moved = record.model_copy(update={"timeline": timeline.timeline, "wanted": True})
        now = now_micros()
        with self._state.change() as change:
            kept = CheckpointRecord(
                name=_automatic_name(change.checkpoints(record.tenant, record.name), verb),
                timeline=record.timeline,
                lsn=head.lsn,
                created_micros=now,
                automatic=True,
                note=f"before the {verb} to {words}",
            )
            event = EventRecord(
                verb=verb,
                timeline=timeline.timeline,
                lsn=point.lsn,
                created_micros=now,
                detail=f"to {words}",
                checkpoint=kept.name,
            )
            change.put_checkpoint(record.tenant, record.name, kept)
            change.add_event(record.tenant, record.name, event)
            change.set_timeline_state(timeline.timeline, TimelineState.LIVE)
            change.put_database(moved)
        summary = (
            f"{record.name} is at {words}, LSN {format_lsn(point.lsn)}. "
            f"What it was is kept as checkpoint {kept.name}."
        )
        return Restored(moved, kept, summary)

    async def _refuse_other_checkpoint(
        self, record: DatabaseRecord, existing: CheckpointRecord, git_commit: str
    ) -> None:
        """Unless `existing` is what would be made now: nothing was committed since."""
        same = existing.timeline == record.timeline and existing.git_commit == git_commit
        if same and await self._history.last_commit(record.timeline) <= existing.lsn:
            return
        lsn = format_lsn(existing.lsn)
        raise AlreadyExists(
            "CHECKPOINT_EXISTS",
            f"{record.name!r} has a checkpoint {existing.name!r} already, at {lsn}.",
            "Choose another name.",
        )


def _checkpoint_event(made: CheckpointRecord) -> EventRecord:
    return EventRecord(
        verb=Verb.CHECKPOINT,
        timeline=made.timeline,
        lsn=made.lsn,
        created_micros=made.created_micros,
        checkpoint=made.name,
    )


def _automatic_name(existing: list[CheckpointRecord], verb: Verb) -> str:
    taken = {checkpoint.name for checkpoint in existing}
    number = 1
    while f"before-{verb}-{number}" in taken:
        number += 1
    return f"before-{verb}-{number}"
