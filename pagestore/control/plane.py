"""The verbs on databases: create, branch, checkpoint, restore, undo, remove, import.

Every verb that makes a timeline goes the same way:

1. enter the timeline as pending, in a transaction;
2. make it at the page server and at the WAL service;
3. start its compute, where the verb needs one;
4. in one transaction: the name points at the timeline, the log says so, it is live.

Killed before 4, nothing has happened, and the next start deletes the timeline; killed after
it, everything has, and the next start starts the compute. Verbs run to their end even when
the caller hangs up. One verb at a time works on a name; different names do not wait for each
other.

Timelines themselves are made and deleted in timelines.py.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from pagestore.client.names import checkpoint_name, database_name
from pagestore.client.page import AsyncPageClient
from pagestore.client.points import Point
from pagestore.client.walservice import WalService
from pagestore.control import credentials
from pagestore.control.computes import Computes, Slotted
from pagestore.control.history import BranchPoint, History
from pagestore.control.ports import Ports
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
from pagestore.control.undo import Marks
from pagestore.errors import AlreadyExists, FailedPrecondition
from pagestore.ids import TenantId, TimelineId, format_lsn

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Restored:
    database: DatabaseRecord
    kept: CheckpointRecord
    summary: str


class ControlPlane:
    def __init__(
        self,
        state: ControlState,
        pages: AsyncPageClient,
        wal: WalService,
        computes: Computes,
        ports: Ports,
        *,
        on_delete: Callable[[TimelineId], None] = lambda timeline: None,
    ) -> None:
        self.state = state
        self.computes = computes
        self.history = History(state, pages, wal)
        self._pages = pages
        self._wal = wal
        self._ports = ports
        self._locks: defaultdict[Slotted, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._running: set[asyncio.Task[Any]] = set()
        self._timelines = Timelines(state, pages, wal, on_delete)

    # The verbs

    async def create(
        self, tenant: TenantId, name: str, *, if_not_exists: bool = False
    ) -> tuple[DatabaseRecord, bool]:
        """An empty database; the record, and whether it is new."""
        name = database_name(name)
        return await self._to_its_end(self._create(tenant, name, if_not_exists))

    async def branch(
        self,
        tenant: TenantId,
        source: str,
        name: str,
        at: Point,
        *,
        if_not_exists: bool = False,
        leave_stopped: bool = False,
    ) -> tuple[DatabaseRecord, bool]:
        """A new name on a branch of `source` at a point; the record, and whether it is new."""
        source, name = database_name(source), database_name(name)
        return await self._to_its_end(
            self._branch(tenant, source, name, at, if_not_exists, not leave_stopped)
        )

    async def checkpoint(
        self, tenant: TenantId, database: str, name: str, git_commit: str = ""
    ) -> CheckpointRecord:
        """Names the commit LSN of now."""
        database, name = database_name(database), checkpoint_name(name)
        async with self._locks[tenant, database]:
            record = self.state.view().known_database(tenant, database)
            existing = self.state.view().checkpoint(tenant, database, name)
            if existing is not None:
                await self._refuse_other_checkpoint(record, existing, git_commit)
                return existing
            head = await self.history.head(record.timeline)
            made = CheckpointRecord(
                name=name,
                timeline=record.timeline,
                lsn=head.lsn,
                git_commit=git_commit,
                created_micros=now_micros(),
            )
            with self.state.change() as change:
                change.put_checkpoint(tenant, database, made)
                change.add_event(tenant, database, _checkpoint_event(made))
            return made

    async def restore(self, tenant: TenantId, database: str, at: Point) -> Restored:
        """Moves the name to a branch at a point of its past."""
        return await self._to_its_end(self._restore(tenant, database_name(database), at))

    async def undo(self, tenant: TenantId, database: str) -> Restored:
        """Goes back to where undo.py says.

        Raises:
            FailedPrecondition: NOTHING_TO_UNDO.
        """
        return await self._to_its_end(self._undo(tenant, database_name(database)))

    async def remove(self, tenant: TenantId, database: str, *, if_exists: bool = False) -> bool:
        """Deletes the name, its checkpoints and its log; whether there was one."""
        return await self._to_its_end(self._remove(tenant, database_name(database), if_exists))

    async def wake(self, tenant: TenantId, database: str) -> DatabaseRecord:
        """Starts the compute unless it runs."""
        database = database_name(database)
        async with self._locks[tenant, database]:
            return await self._started(self.known(tenant, database))

    async def stop(self, tenant: TenantId, database: str) -> DatabaseRecord:
        """Stops the compute; nothing starts it but a wake."""
        database = database_name(database)
        async with self._locks[tenant, database]:
            record = self._want(tenant, database, wanted=False)
            await self.computes.stop((tenant, record.name))
            return record

    async def begin_import(self, tenant: TenantId, name: str) -> TimelineId:
        """A timeline id for an import, remembered as pending."""
        name = database_name(name)
        self._refuse_existing(tenant, name)
        record = TimelineRecord(
            timeline=TimelineId.generate(),
            tenant=tenant,
            state=TimelineState.PENDING,
            database=name,
            parent=None,
            branch_lsn=0,
            imported=True,
            created_micros=now_micros(),
        )
        with self.state.change() as change:
            change.put_timeline(record)
        return record.timeline

    async def register(
        self,
        tenant: TenantId,
        name: str,
        timeline: TimelineId,
        *,
        prev_record_lsn: int,
        system_id: int,
        postgres_database: str = "",
    ) -> DatabaseRecord:
        """Gives an imported timeline its name."""
        name = database_name(name)
        return await self._to_its_end(
            self._register(tenant, name, timeline, prev_record_lsn, system_id, postgres_database)
        )

    def known(self, tenant: TenantId, database: str) -> DatabaseRecord:
        """
        Raises:
            InvalidInput: INVALID_NAME.
            NotFound: DATABASE_NOT_FOUND.
        """
        return self.state.view().known_database(tenant, database_name(database))

    # At start and in the background

    async def recover(self) -> None:
        """Finishes or cleans up what an earlier process left, and starts what should run."""
        self._timelines.drop_unfinished()
        databases = self.state.view().databases()
        await self.computes.adopt(databases)
        for record in databases:
            if record.wanted:
                self.computes.start_soon(record)
        self._background(self._timelines.collect())

    async def collect(self) -> int:
        """Deletes timelines that nobody needs any more."""
        return await self._timelines.collect()

    async def close(self) -> None:
        """Lets verbs under way end, leaves computes running."""
        if self._running:
            await asyncio.wait(self._running, timeout=10)
        await self.computes.close()

    # How they are done

    async def _create(
        self, tenant: TenantId, name: str, if_not_exists: bool
    ) -> tuple[DatabaseRecord, bool]:
        async with self._locks[tenant, name]:
            existing = self._existing(tenant, name, if_not_exists)
            if existing is not None:
                return await self._started(existing), False
            template = self.state.view().template()
            if template is None:
                raise FailedPrecondition("NO_TEMPLATE", "The empty template is not made yet.")
            parent = self.state.view().known_timeline(template.timeline)
            point = BranchPoint(parent, template.lsn, template.prev_record_lsn)
            timeline = await self._timelines.branch(tenant, name, point)
            record = DatabaseRecord(
                tenant=tenant,
                name=name,
                timeline=timeline.timeline,
                branch_lsn=point.lsn,
                created_micros=now_micros(),
                password=credentials.new_password(),
                postgres_database=credentials.inner_name(name),
                port=self._ports.choose(),
            )
            try:
                compute = await self.computes.start(record)
                await credentials.make_ready(compute.conninfo, record)
                head = await self.history.head(record.timeline)
            except BaseException:
                await self._abandon(record)
                raise
            record = record.model_copy(update={"port": compute.port})
            self._publish(record, timeline, Verb.CREATE, usable_lsn=head.lsn)
            return record, True

    async def _branch(
        self,
        tenant: TenantId,
        source: str,
        name: str,
        at: Point,
        if_not_exists: bool,
        start: bool,
    ) -> tuple[DatabaseRecord, bool]:
        async with self._locks[tenant, name]:
            existing = self._existing(tenant, name, if_not_exists)
            if existing is not None:
                return (await self._started(existing) if start else existing), False
            parent = self.state.view().known_database(tenant, source)
            point = await self.history.resolve(parent, at)
            timeline = await self._timelines.branch(tenant, name, point)
            record = parent.model_copy(
                update={
                    "name": name,
                    "timeline": timeline.timeline,
                    "parent": parent.name,
                    "branch_lsn": point.lsn,
                    "created_micros": now_micros(),
                    "port": self._ports.choose(),
                    "wanted": start,
                }
            )
            if start:
                try:
                    compute = await self.computes.start(record)
                except BaseException:
                    await self._abandon(record)
                    raise
                record = record.model_copy(update={"port": compute.port})
            self._publish(record, timeline, Verb.BRANCH, f"of {parent.name} at {at}")
            return record, True

    async def _restore(self, tenant: TenantId, database: str, at: Point) -> Restored:
        async with self._locks[tenant, database]:
            record = self.state.view().known_database(tenant, database)
            point = await self.history.resolve(record, at)
            done = await self._moved_already(record, point)
            return done or await self._move(record, point, Verb.RESTORE, f"{at}")

    async def _undo(self, tenant: TenantId, database: str) -> Restored:
        async with self._locks[tenant, database]:
            record = self.state.view().known_database(tenant, database)
            marks = Marks.of(self.state.view().events(tenant, record.name))
            mark = marks.latest
            if mark is not None and await self.history.last_commit(record.timeline) > mark.lsn:
                point = await self.history.at_lsn(mark.timeline, mark.lsn)
                return await self._move(record, point, Verb.UNDO, marks.words(mark))
            if marks.last_move is None:
                raise marks.nothing_to_undo(record.name)
            name = marks.last_move.checkpoint
            kept = self.state.view().checkpoint(tenant, record.name, name)
            assert kept is not None, "a move and its automatic checkpoint are one transaction"
            point = await self.history.at_lsn(kept.timeline, kept.lsn)
            words = f"where it was before the {marks.last_move.verb} ({kept.name})"
            return await self._move(record, point, Verb.UNDO, words)

    async def _moved_already(self, record: DatabaseRecord, point: BranchPoint) -> Restored | None:
        """What the last restore or undo did, if it went to `point` and nothing was committed
        since: a restore that is sent again is one restore, and one undo takes it back."""
        marks = Marks.of(self.state.view().events(record.tenant, record.name))
        here = self.state.view().known_timeline(record.timeline)
        at_point = (here.parent, here.branch_lsn) == (point.timeline.timeline, point.lsn)
        if marks.last_move is None or marks.latest is not marks.last_move or not at_point:
            return None
        if await self.history.last_commit(record.timeline) > point.lsn:
            return None
        name = marks.last_move.checkpoint
        kept = self.state.view().checkpoint(record.tenant, record.name, name)
        assert kept is not None, "a move and its automatic checkpoint are one transaction"
        summary = f"{record.name} is at LSN {format_lsn(point.lsn)} already."
        return Restored(await self._started(record), kept, summary)

    async def _move(
        self, record: DatabaseRecord, point: BranchPoint, verb: Verb, words: str
    ) -> Restored:
        """Makes a branch at `point`, then swings the name to it; the old position is kept."""
        key = (record.tenant, record.name)
        timeline = await self._timelines.branch(record.tenant, record.name, point)
        try:
            async with self.computes.moving(key):
                head = await self.history.head(record.timeline)
                moved = self._swing(record, timeline, point, head, verb, words)
        except BaseException:
            await self._drop(timeline.timeline)
            if record.wanted:
                self.computes.start_soon(record)
            raise
        await self.computes.start(moved.database)
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
        with self.state.change() as change:
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

    async def _remove(self, tenant: TenantId, database: str, if_exists: bool) -> bool:
        async with self._locks[tenant, database]:
            record = self.state.view().database(tenant, database)
            if record is None and if_exists:
                return False
            record = record or self.state.view().known_database(tenant, database)
            with self.state.change() as change:
                change.remove_database(record)
            await self.computes.forget((tenant, record.name))
            self._ports.release(record.port)
            self._background(self._timelines.collect())
        return True

    async def _register(
        self,
        tenant: TenantId,
        name: str,
        timeline: TimelineId,
        prev_record_lsn: int,
        system_id: int,
        postgres_database: str,
    ) -> DatabaseRecord:
        async with self._locks[tenant, name]:
            self._refuse_existing(tenant, name)
            begun = self.state.view().known_timeline(timeline)
            under_way = begun.state is TimelineState.PENDING and begun.imported
            if not under_way or begun.database != name:
                raise FailedPrecondition(
                    "NOT_AN_IMPORT", f"Timeline {timeline} is not an import of {name!r} under way."
                )
            info = await self._pages.get_timeline(tenant, timeline)
            await self._wal.create_timeline(
                tenant,
                timeline,
                info.branch_lsn,
                prev_record_lsn=prev_record_lsn,
                system_id=system_id,
            )
            record = DatabaseRecord(
                tenant=tenant,
                name=name,
                timeline=timeline,
                branch_lsn=info.branch_lsn,
                created_micros=now_micros(),
                password=credentials.new_password(),
                postgres_database=postgres_database or credentials.ROLE,
                port=self._ports.choose(),
            )
            made = begun.model_copy(update={"branch_lsn": info.branch_lsn, "system_id": system_id})
            try:
                compute = await self.computes.start(record)
                inner = await credentials.adopt_import(compute.conninfo, record, postgres_database)
                head = await self.history.head(timeline)
            except BaseException:
                await self._abandon(record)
                raise
            record = record.model_copy(update={"port": compute.port, "postgres_database": inner})
            self._publish(record, made, Verb.IMPORT, usable_lsn=head.lsn)
            return record

    def _publish(
        self,
        record: DatabaseRecord,
        timeline: TimelineRecord,
        verb: Verb,
        detail: str = "",
        usable_lsn: int = 0,
    ) -> None:
        now = now_micros()
        live = timeline.model_copy(
            update={
                "state": TimelineState.LIVE,
                "usable_lsn": usable_lsn,
                "created_micros": now,
            }
        )
        event = EventRecord(
            verb=verb,
            timeline=record.timeline,
            lsn=usable_lsn or record.branch_lsn,
            created_micros=now,
            detail=detail,
        )
        with self.state.change() as change:
            change.put_timeline(live)
            change.put_database(record)
            change.add_event(record.tenant, record.name, event)

    async def _abandon(self, record: DatabaseRecord) -> None:
        """A database that did not come to be: nothing of it stays."""
        await self.computes.forget((record.tenant, record.name))
        self._ports.release(record.port)
        await self._drop(record.timeline)

    async def _drop(self, timeline: TimelineId) -> None:
        self._timelines.abandon(timeline)
        self._background(self._timelines.collect())

    def _existing(self, tenant: TenantId, name: str, if_not_exists: bool) -> DatabaseRecord | None:
        if if_not_exists:
            return self.state.view().database(tenant, name)
        self._refuse_existing(tenant, name)
        return None

    def _refuse_existing(self, tenant: TenantId, name: str) -> None:
        if self.state.view().database(tenant, name) is not None:
            raise AlreadyExists(
                "DATABASE_EXISTS",
                f"There is a database {name!r} already.",
                "Choose another name, or say --if-not-exists.",
            )

    async def _started(self, record: DatabaseRecord) -> DatabaseRecord:
        """Running, and wanted so; the record of afterwards, which may have another port."""
        await self.computes.start(self._want(record.tenant, record.name, wanted=True))
        return self.state.view().known_database(record.tenant, record.name)

    async def _refuse_other_checkpoint(
        self, record: DatabaseRecord, existing: CheckpointRecord, git_commit: str
    ) -> None:
        """Unless `existing` is what would be made now: nothing was committed since."""
        same = existing.timeline == record.timeline and existing.git_commit == git_commit
        if same and await self.history.last_commit(record.timeline) <= existing.lsn:
            return
        lsn = format_lsn(existing.lsn)
        raise AlreadyExists(
            "CHECKPOINT_EXISTS",
            f"{record.name!r} has a checkpoint {existing.name!r} already, at {lsn}.",
            "Choose another name.",
        )

    def _want(self, tenant: TenantId, database: str, *, wanted: bool) -> DatabaseRecord:
        with self.state.change() as change:
            record = change.known_database(tenant, database)
            if record.wanted is not wanted:
                record = record.model_copy(update={"wanted": wanted})
                change.put_database(record)
        return record

    async def _to_its_end(self, verb: Coroutine[Any, Any, _T]) -> _T:
        """Runs a verb so that a caller who hangs up does not cut it short."""
        task = asyncio.create_task(verb)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def _background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning("clean-up will be tried again later", error=str(task.exception()))


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
