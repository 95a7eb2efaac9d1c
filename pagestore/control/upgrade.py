"""A name moves to another major of Postgres: by pg_upgrade, to a new timeline.

What a database was cannot become what the new server reads by WAL, so a new root is made, and the
name swings to it as in any move (moves.py). What the name stood on stays as it is, with its
branches, its checkpoints and its own major, and is kept as an automatic checkpoint: `undo` goes
there, `redo` comes back.

The order, and what may fail at each step:

1. Refusals: the majors, as far as they are known here.
2. The new root is entered as pending.
3. The name is *held*: sessions are carried out, its compute is stopped, and whoever comes and has
   waited a while is told why he is not let in, for what follows takes as long as the database is
   large. Nobody writes from here on, so the head of now is the state that is upgraded.
4. The agent exports that, runs pg_upgrade, and brings the result to the page server.
5. The WAL service is given a log for the root; its compute starts.
6. Nobody has written to the old timeline meanwhile, or it is all for nothing.
7. One transaction: the name, the event, the automatic checkpoint, the answer; the root is live.

Whatever fails before 7, or is killed, leaves the name where it was: the pending root is dropped,
and the next connection wakes the old compute.

A dry run has pg_upgrade check a copy of the head while the database goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from pagestore.client.names import database_name, request_id
from pagestore.client.page import AsyncPageClient
from pagestore.client.walservice import WalService
from pagestore.control.computes import Computes, StartMoved
from pagestore.control.history import BranchPoint, History
from pagestore.control.moves import ONCE, Asked, Moved, Swing, answered, stayed, swing
from pagestore.control.records import DatabaseRecord, Verb
from pagestore.control.sessions import Sessions
from pagestore.control.state import ControlState, now_micros
from pagestore.control.timelines import Making, Timelines, planned
from pagestore.control.turns import Turns
from pagestore.errors import Aborted, FailedPrecondition, InvalidInput, PagestoreError
from pagestore.ids import TenantId
from pagestore.v1 import compute_pb2 as pb

Told = Callable[[str, int, int], None]
"""Called with what is being done, the bytes of it that are done, and all, 0 where not known."""


class Agent(Protocol):
    """Has both majors' programs."""

    async def upgrade(
        self, request: pb.UpgradeTimelineRequest, told: Told
    ) -> pb.UpgradedTimeline: ...


class Majors(Protocol):
    def require(self, major: int) -> None:
        """
        Raises:
            FailedPrecondition: POSTGRES_MISSING.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Upgrade:
    """One under way."""

    record: DatabaseRecord
    major: int
    to: int
    request: str
    told: Told

    @property
    def words(self) -> str:
        return f"Postgres {self.to}"


def _nobody(step: str, done: int, total: int) -> None:
    pass


class Upgrades:
    def __init__(
        self,
        state: ControlState,
        pages: AsyncPageClient,
        wal: WalService,
        computes: Computes,
        history: History,
        timelines: Timelines,
        turns: Turns,
        sessions: Sessions,
        agent: Agent,
        majors: Majors,
    ) -> None:
        self._state = state
        self._pages = pages
        self._wal = wal
        self._computes = computes
        self._history = history
        self._timelines = timelines
        self._turns = turns
        self._sessions = sessions
        self._agent = agent
        self._majors = majors

    async def upgrade(
        self,
        tenant: TenantId,
        database: str,
        major: int,
        asked: Asked = ONCE,
        told: Told = _nobody,
    ) -> Moved:
        """
        Raises:
            NotFound: DATABASE_NOT_FOUND.
            FailedPrecondition: POSTGRES_MISSING, SAME_MAJOR, LOWER_MAJOR; UPGRADE_REFUSED with
                pg_upgrade's words.
            Aborted: WRITTEN_MEANWHILE.
        """
        name = database_name(database)
        asked = replace(asked, request=request_id(asked.request))
        return await self._turns.to_its_end(self._in_turn(tenant, name, major, asked, told))

    async def _in_turn(
        self, tenant: TenantId, name: str, to: int, asked: Asked, told: Told
    ) -> Moved:
        if asked.dry_run:
            record = self._state.view().known_database(tenant, name)
            return await self._check(self._decided(record, to, asked, told))
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            before = answered(self._state, record, Verb.UPGRADE, asked.request)
            if before is not None:
                return before
            upgrade = self._decided(record, to, asked, told)
            with self._turns.held(tenant, name, _under_way(upgrade)):
                try:
                    return await self._carry_out(upgrade)
                except PagestoreError as error:
                    raise stayed(record, Verb.UPGRADE, error) from error

    def _decided(self, record: DatabaseRecord, to: int, asked: Asked, told: Told) -> _Upgrade:
        major = self._history.major(record.timeline)
        if not to:
            raise InvalidInput(
                "MAJOR_REQUIRED",
                "An upgrade needs a major version of Postgres to go to.",
                "`pagestore status` lists those that are installed.",
            )
        if to == major:
            raise FailedPrecondition(
                "SAME_MAJOR", f"{record.name!r} is of Postgres {major} already."
            )
        if to < major:
            raise FailedPrecondition(
                "LOWER_MAJOR",
                f"{record.name!r} is of Postgres {major}, and an upgrade never goes down to {to}.",
                "`pagestore undo` goes back to what it was before an upgrade; pg_dump and psql "
                "bring data to an older server.",
            )
        for needed in (to, major):
            self._majors.require(needed)
        return _Upgrade(record, major, to, asked.request, told)

    async def _check(self, upgrade: _Upgrade) -> Moved:
        record = upgrade.record
        head = await self._history.head(record.timeline)
        done = await self._agent.upgrade(_request(upgrade, head), upgrade.told)
        would = f"pg_upgrade finds nothing that keeps {record.name} from {upgrade.words}."
        return Moved(record, False, would, remarks=tuple(done.remarks))

    async def _carry_out(self, upgrade: _Upgrade) -> Moved:
        record = upgrade.record
        async with self._timelines.making(planned(record.tenant, record.name)) as making:
            await self._sessions.carry_out(
                record,
                f"{record.name} is upgraded to {upgrade.words}",
                "It takes connections again when that is done.",
            )
            async with self._computes.moving(record, to_another=True) as start:
                head = await self._history.head(record.timeline)
                made = await self._agent.upgrade(_request(upgrade, head, making), upgrade.told)
                root = await self._rooted(making, upgrade, made)
                remarks = (*made.remarks, *await self._left_behind(record))
                return await self._swing(upgrade, head, root, start, remarks)

    async def _rooted(self, making: Making, upgrade: _Upgrade, made: pb.UpgradedTimeline) -> Making:
        record = upgrade.record
        root = making.root(made.lsn, made.system_id, upgrade.to, before=record.timeline)
        with self._state.change() as change:
            change.put_timeline(root.begun)
        await self._wal.create_timeline(
            record.tenant,
            root.timeline,
            made.lsn,
            prev_record_lsn=made.prev_record_lsn,
            system_id=made.system_id,
        )
        return root

    async def _left_behind(self, record: DatabaseRecord) -> list[str]:
        """What no new cluster can take up, in words."""
        info = await self._pages.get_timeline(record.tenant, record.timeline, slots=True)
        names = ", ".join(slot.name for slot in info.slots)
        return [f"Replication slots do not go along: {names}. Make them anew."] if names else []

    async def _swing(
        self,
        upgrade: _Upgrade,
        head: BranchPoint,
        root: Making,
        start: StartMoved,
        remarks: tuple[str, ...],
    ) -> Moved:
        record = upgrade.record
        upgrade.told(f"starting {upgrade.words}", 0, 0)
        moved = record.model_copy(update={"timeline": root.timeline})
        await start(moved)
        # What the start itself committed belongs to the upgrade.
        began = await self._history.head(root.timeline)
        if await self._history.last_commit(record.timeline) > head.lsn:
            raise Aborted(
                "WRITTEN_MEANWHILE",
                "something was committed while the upgrade was under way.",
                "Type it again: what was committed is then taken into account.",
            )
        facts = {"usable_lsn": began.lsn, "created_micros": now_micros()}
        to = Swing(Verb.UPGRADE, upgrade.words, began, head, upgrade.request, facts)
        return replace(swing(self._state, record, moved, root, to), remarks=remarks)


def _request(
    upgrade: _Upgrade, head: BranchPoint, making: Making | None = None
) -> pb.UpgradeTimelineRequest:
    """Without a timeline that is made: only to check."""
    return pb.UpgradeTimelineRequest(
        tenant_id=upgrade.record.tenant.raw,
        timeline_id=upgrade.record.timeline.raw,
        lsn=head.lsn,
        prev_record_lsn=head.prev_record_lsn,
        postgres_major=upgrade.major,
        to_major=upgrade.to,
        new_timeline_id=making.timeline.raw if making is not None else b"",
    )


def _under_way(upgrade: _Upgrade) -> FailedPrecondition:
    name = upgrade.record.name
    return FailedPrecondition(
        "UPGRADE_UNDER_WAY",
        f"{name!r} is being upgraded to {upgrade.words}.",
        "It takes connections again when that is done, or has failed.",
    )
