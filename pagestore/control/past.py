"""A name and its past: checkpoints, and the verbs that move the name: restore, reset, promote, undo
and redo.

A move makes a branch at a point of the past, ends the compute and with it every session, starts
the compute of the branch, and only then swings the name to it: one transaction, with the event, an
automatic checkpoint of where the name was, and the answer. Where the branch's compute does not
start, the name stays where it was, and the next connection wakes it there.

A move may be asked for twice: by somebody who got no answer, or by two at once. Under the same
request id it is the same move, with the same answer. Under another one it finds what the first has
done: an undo has then nothing more to undo, and a restore is there already. Sessions end all the
same at a restore: one that was open might still commit what the caller wants to be rid of.

Where undo and redo go is decided in undo.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pagestore.client.companions import Companions
from pagestore.client.names import checkpoint_name, database_name, request_id
from pagestore.client.points import AtCheckpoint, Point
from pagestore.control.computes import Computes, StartMoved
from pagestore.control.history import BranchPoint, History
from pagestore.control.moves import ONCE, Asked, Moved, Swing, answered, remember, stayed, swing
from pagestore.control.records import (
    MOVES,
    CheckpointRecord,
    DatabaseRecord,
    EventRecord,
    TimelineState,
    Verb,
)
from pagestore.control.sessions import Sessions
from pagestore.control.state import ControlState, now_micros
from pagestore.control.timelines import Making, Timelines
from pagestore.control.turns import Turns
from pagestore.control.undo import Marks, Stay, Step, ToLeft
from pagestore.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    PagestoreError,
)
from pagestore.ids import TenantId, TimelineId, format_lsn


@dataclass(frozen=True, slots=True)
class Plan:
    """What a move will do.

    Args:
        point: where to; None to stay.
        words: for `point`: what is there. Else why there is nothing to do.
        ends_sessions: a move does; a restore that is there already does too.
        quiet_since: decided on that nothing is committed beyond this LSN, if not None.
        went_to: the user's checkpoint at `point`, or where it stays.
    """

    verb: Verb
    point: BranchPoint | None
    words: str
    ends_sessions: bool = False
    quiet_since: int | None = None
    went_to: CheckpointRecord | None = None


NONE_BESIDES = Companions()
_Decide = Callable[[DatabaseRecord], Awaitable[Plan]]


class Past:
    def __init__(
        self,
        state: ControlState,
        computes: Computes,
        history: History,
        timelines: Timelines,
        turns: Turns,
        sessions: Sessions,
    ) -> None:
        self._state = state
        self._computes = computes
        self._history = history
        self._timelines = timelines
        self._turns = turns
        self._sessions = sessions

    # Checkpoints

    async def checkpoint(
        self,
        tenant: TenantId,
        database: str,
        name: str,
        companions: Companions = NONE_BESIDES,
        expires_micros: int = 0,
    ) -> CheckpointRecord:
        """Names the commit LSN of now.

        Args:
            expires_micros: when it is forgotten by itself; 0 for never.

        Raises:
            InvalidInput: INVALID_NAME, INVALID_NOTE. AlreadyExists: CHECKPOINT_EXISTS.
        """
        companions.checked()
        database, name = database_name(database), checkpoint_name(name)
        async with self._turns.on(tenant, database):
            record = self._state.view().known_database(tenant, database)
            existing = self._state.view().checkpoint(tenant, database, name)
            if existing is not None:
                await self._refuse_other_checkpoint(record, existing, companions)
                if existing.expires_micros == expires_micros:
                    return existing
                return self._kept_until(record, existing, expires_micros)
            head = await self._history.head(record.timeline)
            made = CheckpointRecord(
                name=name,
                timeline=record.timeline,
                lsn=head.lsn,
                git_commit=companions.git_commit,
                created_micros=now_micros(),
                expires_micros=expires_micros,
                dirty_patch=companions.dirty_patch,
                run_id=companions.run_id,
                notes=dict(companions.notes),
            )
            with self._state.change() as change:
                change.put_checkpoint(tenant, database, made)
                change.add_event(tenant, database, _checkpoint_event(Verb.CHECKPOINT, made))
            return made

    def _kept_until(
        self, record: DatabaseRecord, checkpoint: CheckpointRecord, expires_micros: int
    ) -> CheckpointRecord:
        kept = checkpoint.model_copy(update={"expires_micros": expires_micros})
        with self._state.change() as change:
            change.put_checkpoint(record.tenant, record.name, kept)
        return kept

    async def delete_checkpoint(
        self, tenant: TenantId, database: str, name: str, *, if_exists: bool = False
    ) -> bool:
        """Forgets a checkpoint, as if it had never been made; whether there was one.

        Raises:
            NotFound: DATABASE_NOT_FOUND, CHECKPOINT_NOT_FOUND.
        """
        database = database_name(database)
        async with self._turns.on(tenant, database):
            record = self._state.view().known_database(tenant, database)
            found = self._history.own_checkpoint(record, name)
            if found is None:
                if if_exists:
                    return False
                raise self._history.no_such_checkpoint(record, name)
            with self._state.change() as change:
                change.delete_checkpoint(tenant, database, found.name)
                event = _checkpoint_event(Verb.DELETE_CHECKPOINT, found)
                event = event.model_copy(update={"created_micros": now_micros()})
                change.add_event(tenant, database, event)
            return True

    def log(self, tenant: TenantId, database: str) -> list[EventRecord | CheckpointRecord]:
        """What happened to a name, newest first: events and, where they were made, the checkpoints
        that are still there. In the order of the log, whatever any clock said."""
        record = self._state.view().known_database(tenant, database_name(database))
        view = self._state.view()
        left = {item.name: item for item in view.checkpoints(tenant, record.name)}
        entries: list[EventRecord | CheckpointRecord] = []
        for event in reversed(view.events(tenant, record.name)):
            deleted = event.verb is Verb.DELETE_CHECKPOINT
            # From the newest on: an older event of the same name made one that was deleted since.
            made = None if deleted else left.pop(event.checkpoint, None)
            if event.verb is not Verb.CHECKPOINT or made is None:
                entries.append(event)
            if made is not None:
                entries.append(made)
        return entries

    # Moves

    async def restore(
        self, tenant: TenantId, database: str, at: Point, asked: Asked = ONCE
    ) -> Moved:
        """Moves the name to a branch at a point of its past."""

        async def decide(record: DatabaseRecord) -> Plan:
            point = await self._history.resolve(record, at)
            plan = await self._there(record, Verb.RESTORE, point, f"{at}")
            named = self._history.named(record, at.name) if isinstance(at, AtCheckpoint) else None
            return replace(plan, went_to=_of_a_user(named))

        return await self._ask(tenant, database, Verb.RESTORE, asked, decide)

    async def reset(self, tenant: TenantId, database: str, asked: Asked = ONCE) -> Moved:
        """Moves the name to a branch at its parent's head.

        Raises:
            FailedPrecondition: NO_PARENT.
        """

        async def decide(record: DatabaseRecord) -> Plan:
            parent = self._parent(record)
            point = await self._history.head(parent.timeline)
            return await self._there(record, Verb.RESET, point, f"the head of {parent.name}")

        return await self._ask(tenant, database, Verb.RESET, asked, decide)

    async def promote(
        self, tenant: TenantId, database: str, source: str, asked: Asked = ONCE
    ) -> Moved:
        """Moves the name to a branch at the head of `source`, which stays what it is.

        Raises:
            NotFound: DATABASE_NOT_FOUND. FailedPrecondition: NOTHING_IN_COMMON, SAME_DATABASE.
        """

        async def decide(record: DatabaseRecord) -> Plan:
            chosen = self._state.view().known_database(tenant, database_name(source))
            if chosen.name == record.name:
                raise FailedPrecondition(
                    "SAME_DATABASE",
                    f"{record.name!r} is itself already.",
                    f"Name a branch of it: pagestore promote {record.name} BRANCH.",
                )
            if self._origin(chosen) != self._origin(record):
                raise FailedPrecondition(
                    "NOTHING_IN_COMMON",
                    f"{chosen.name!r} is no branch of {record.name!r}, nor that one of it.",
                    f"pagestore branch {record.name} NAME makes one.",
                )
            point = await self._history.head(chosen.timeline)
            return await self._there(record, Verb.PROMOTE, point, f"the head of {chosen.name}")

        return await self._ask(tenant, database, Verb.PROMOTE, asked, decide)

    async def undo(
        self, tenant: TenantId, database: str, to: str = "", asked: Asked = ONCE
    ) -> Moved:
        """Undoes what was done since the latest mark; see undo.py.

        Args:
            to: the checkpoint to be at afterwards; empty for wherever undo goes.

        Raises:
            FailedPrecondition: NO_MARK, NEWER_CHECKPOINT.
            NotFound: CHECKPOINT_NOT_FOUND.
        """

        async def decide(record: DatabaseRecord) -> Plan:
            marks = self._marks(record)
            if not to:
                step = marks.undo(await self._history.last_commit(record.timeline))
                return await self._plan(record, Verb.UNDO, step)
            mark = marks.checkpoint(to)
            here = self._history.begins_at(
                record, await self._history.at_lsn(mark.timeline, mark.lsn)
            )
            last_commit = await self._history.last_commit(record.timeline)
            return await self._plan(record, Verb.UNDO, marks.undo_to(to, last_commit, here=here))

        return await self._ask(tenant, database, Verb.UNDO, asked, decide)

    async def redo(self, tenant: TenantId, database: str, asked: Asked = ONCE) -> Moved:
        """Takes an undo back, unless something was committed since."""

        async def decide(record: DatabaseRecord) -> Plan:
            step = self._marks(record).redo(await self._history.last_commit(record.timeline))
            return await self._plan(record, Verb.REDO, step)

        return await self._ask(tenant, database, Verb.REDO, asked, decide)

    # What a move will do

    def _marks(self, record: DatabaseRecord) -> Marks:
        return Marks.of(record.name, self._state.view().events(record.tenant, record.name))

    async def _plan(self, record: DatabaseRecord, verb: Verb, step: Step) -> Plan:
        if isinstance(step, Stay):
            return Plan(verb, None, step.why)
        if isinstance(step, ToLeft):
            left = self._state.view().checkpoint(record.tenant, record.name, step.move.checkpoint)
            assert left is not None, "a move and its automatic checkpoint are one transaction"
            point = await self._history.at_lsn(left.timeline, left.lsn)
            return Plan(verb, point, step.words, ends_sessions=True, quiet_since=step.move.lsn)
        point = await self._history.at_lsn(step.mark.timeline, step.mark.lsn)
        made = None
        if step.mark.verb is Verb.CHECKPOINT:
            made = self._history.own_checkpoint(record, step.mark.checkpoint)
        return Plan(verb, point, step.words, ends_sessions=True, went_to=made)

    async def _there(
        self, record: DatabaseRecord, verb: Verb, point: BranchPoint, words: str
    ) -> Plan:
        """To `point`, unless the latest mark is a move that went there and nothing was committed
        since: a restore that is sent again is one restore, and one undo takes it back."""
        mark = self._marks(record).latest
        moved_last = mark is not None and mark.verb in MOVES
        if (
            moved_last
            and self._history.begins_at(record, point)
            and await self._history.last_commit(record.timeline) <= point.lsn
        ):
            why = f"{record.name} is at {words} already, LSN {format_lsn(point.lsn)}."
            return Plan(verb, None, why, ends_sessions=True, quiet_since=point.lsn)
        return Plan(verb, point, words, ends_sessions=True)

    def _origin(self, record: DatabaseRecord) -> TimelineId:
        """The first timeline of a database's history, upgrades and what it was branched from
        included; not the template, which strangers have in common."""
        view = self._state.view()
        timeline = view.known_timeline(record.timeline)
        while (above := timeline.parent or timeline.before) is not None:
            before = view.known_timeline(above)
            if not before.database:
                break
            timeline = before
        return timeline.timeline

    def _parent(self, record: DatabaseRecord) -> DatabaseRecord:
        view = self._state.view()
        name = record.parent
        if record.parent_timeline is not None:
            stood = view.timeline(record.parent_timeline)
            # Dropped with its name: what has the name now is a stranger.
            live = stood is not None and stood.state is TimelineState.LIVE
            name = stood.database if stood is not None and live else ""
        parent = view.database(record.tenant, name) if name else None
        if parent is None:
            what = f"its parent {record.parent} is gone" if record.parent else "it is no branch"
            raise FailedPrecondition(
                "NO_PARENT",
                f"{record.name!r} cannot be reset: {what}.",
                f"Any moment of its past will do: pagestore restore {record.name} POINT.",
            )
        return parent

    # How it is done

    async def _ask(
        self, tenant: TenantId, database: str, verb: Verb, asked: Asked, decide: _Decide
    ) -> Moved:
        name = database_name(database)
        asked = replace(asked, request=request_id(asked.request))
        return await self._turns.to_its_end(self._in_turn(tenant, name, verb, asked, decide))

    async def _in_turn(
        self, tenant: TenantId, name: str, verb: Verb, asked: Asked, decide: _Decide
    ) -> Moved:
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            before = answered(self._state, record, verb, asked.request)
            if before is not None:
                return before
            plan = await decide(record)
            if asked.dry_run:
                would = f"{name} would go to {plan.words}." if plan.point else plan.words
                return Moved(record, False, would, point=plan.point, went_to=plan.went_to)
            if plan.ends_sessions:
                return await self._carry_out(record, plan, asked)
            moved = Moved(record, False, plan.words, went_to=plan.went_to)
            remember(self._state, moved, verb, asked.request)
            return moved

    async def _carry_out(self, record: DatabaseRecord, plan: Plan, asked: Asked) -> Moved:
        try:
            async with contextlib.AsyncExitStack() as stack:
                making = None
                if plan.point is not None:
                    branching = self._timelines.branching(record.tenant, record.name, plan.point)
                    making = await stack.enter_async_context(branching)
                await self._sessions.carry_out(
                    record,
                    f"{record.name} was taken to {plan.words} ({plan.verb})"
                    if plan.point
                    else plan.words,
                    "Connect again. What is idle outside a transaction goes on by itself.",
                )
                moving = self._computes.moving(
                    record, to_another=self._changes_major(record, making)
                )
                start = await stack.enter_async_context(moving)
                await self._refuse_if_written(record, plan)
                if making is None:
                    return await self._restart(record, plan, asked, start)
                return await self._move(record, making, plan, asked, start)
        except PagestoreError as error:
            raise stayed(record, plan.verb, error) from error

    def _changes_major(self, record: DatabaseRecord, making: Making | None) -> bool:
        here = self._state.view().known_timeline(record.timeline)
        return making is not None and making.begun.major != here.major

    async def _refuse_if_written(self, record: DatabaseRecord, plan: Plan) -> None:
        """Now that every session has ended: a commit may have come after the decision."""
        if plan.quiet_since is None:
            return
        if await self._history.last_commit(record.timeline) > plan.quiet_since:
            raise Aborted(
                "WRITTEN_MEANWHILE",
                f"something was committed while the {plan.verb} was under way.",
                "Type it again: what was committed is then taken into account.",
            )

    async def _restart(
        self, record: DatabaseRecord, plan: Plan, asked: Asked, start: StartMoved
    ) -> Moved:
        await start(record)
        moved = Moved(record, False, plan.words, went_to=plan.went_to)
        remember(self._state, moved, plan.verb, asked.request)
        return moved

    async def _move(
        self,
        record: DatabaseRecord,
        making: Making,
        plan: Plan,
        asked: Asked,
        start: StartMoved,
    ) -> Moved:
        head = await self._history.head(record.timeline)
        moved = record.model_copy(update={"timeline": making.timeline})
        # Before the name swings: one that cannot start is nothing to swing to.
        await start(moved)
        assert plan.point is not None
        to = Swing(plan.verb, plan.words, plan.point, head, asked.request, went_to=plan.went_to)
        return swing(self._state, record, moved, making, to)

    async def _refuse_other_checkpoint(
        self, record: DatabaseRecord, existing: CheckpointRecord, companions: Companions
    ) -> None:
        """Unless `existing` is what would be made now: nothing was committed since."""
        same = existing.timeline == record.timeline and existing.companions == companions
        if same and await self._history.last_commit(record.timeline) <= existing.lsn:
            return
        lsn = format_lsn(existing.lsn)
        raise AlreadyExists(
            "CHECKPOINT_EXISTS",
            f"{record.name!r} has a checkpoint {existing.name!r} already, at {lsn}.",
            "Choose another name.",
        )


def _of_a_user(checkpoint: CheckpointRecord | None) -> CheckpointRecord | None:
    return None if checkpoint is None or checkpoint.automatic else checkpoint


def _checkpoint_event(verb: Verb, checkpoint: CheckpointRecord) -> EventRecord:
    return EventRecord(
        verb=verb,
        timeline=checkpoint.timeline,
        lsn=checkpoint.lsn,
        created_micros=checkpoint.created_micros,
        checkpoint=checkpoint.name,
    )
