"""Databases come, get a place to run, and go: create, branch, import, rename, remove; wake, stop.

What makes a database goes the same way each time:

1. enter its timeline as pending, in a transaction;
2. make it at the page server and, if something is started on it, at the WAL service;
3. start its compute, where the verb has something to do inside;
4. in one transaction: the name points at the timeline, the log says so, it is live.

What fails before 4 leaves nothing (timelines.py). Killed before 4, nothing has happened, and the
next start deletes the timeline; killed after it, everything has.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from pagestore.client.names import database_name, new_database_name
from pagestore.client.page import AsyncPageClient
from pagestore.client.points import Head, Point
from pagestore.client.walservice import WalService
from pagestore.control import credentials
from pagestore.control.compute import Compute, Owner
from pagestore.control.computes import Computes, Slotted
from pagestore.control.history import BranchPoint, History
from pagestore.control.keeping import set_aside_event
from pagestore.control.operator_key import OperatorKey
from pagestore.control.records import (
    DatabaseRecord,
    EventRecord,
    TemplateRecord,
    TimelineRecord,
    TimelineState,
    UserSettings,
    Verb,
)
from pagestore.control.sessions import Sessions
from pagestore.control.setting_aside import unproved
from pagestore.control.state import ControlState, now_micros
from pagestore.control.tenants import Tenants
from pagestore.control.timelines import Making, Timelines
from pagestore.control.turns import Turns
from pagestore.errors import AlreadyExists, FailedPrecondition
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.pgformat import versions
from pagestore.postgres.template import OWNER_ROLE
from pagestore.postgres.user_settings import allowed

TemplateOf = Callable[[TenantId, int], Awaitable[TemplateRecord]]
"""A tenant's template of a major; with 0, of the newest."""


class Databases:
    def __init__(
        self,
        state: ControlState,
        pages: AsyncPageClient,
        wal: WalService,
        computes: Computes,
        key: OperatorKey,
        history: History,
        timelines: Timelines,
        tenants: Tenants,
        turns: Turns,
        sessions: Sessions,
        template: TemplateOf | None = None,
    ) -> None:
        self._state = state
        self._template = template or self._made_template
        self._pages = pages
        self._wal = wal
        self._computes = computes
        self._key = key
        self._history = history
        self._timelines = timelines
        self._tenants = tenants
        self._turns = turns
        self._sessions = sessions

    def known(self, tenant: TenantId, name: str) -> DatabaseRecord:
        """
        Raises:
            InvalidInput: INVALID_NAME.
            NotFound: DATABASE_NOT_FOUND.
        """
        return self._state.view().known_database(tenant, database_name(name))

    async def create(
        self,
        tenant: TenantId,
        name: str,
        *,
        if_not_exists: bool = False,
        settings: Mapping[str, str] | None = None,
        major: int = 0,
        expires_micros: int = 0,
    ) -> tuple[DatabaseRecord, bool]:
        """An empty database; the record, and whether it is new. Its server starts with these
        settings, or there is none.

        Args:
            major: of Postgres; 0 for the newest that is installed.
            expires_micros: when it is removed by itself, if it is new; 0 for never.
        """
        name = self._new_name(tenant, name)
        wanted = UserSettings(wanted=dict(settings or {}))
        return await self._turns.to_its_end(
            self._create(tenant, name, if_not_exists, wanted, major, expires_micros)
        )

    async def branch(
        self,
        tenant: TenantId,
        source: str,
        name: str,
        at: Point,
        *,
        if_not_exists: bool = False,
        expires_micros: int = 0,
    ) -> tuple[DatabaseRecord, bool]:
        """A new name on a branch of `source` at a point, asleep; the record, and whether it is
        new.

        Args:
            expires_micros: as of `create`.
        """
        source, name = database_name(source), self._new_name(tenant, name)
        return await self._turns.to_its_end(
            self._branch(tenant, source, name, at, if_not_exists, expires_micros)
        )

    async def begin_import(self, tenant: TenantId, name: str) -> TimelineId:
        """A timeline id for an import, remembered as pending."""
        name = self._new_name(tenant, name)
        self._refuse_existing(tenant, name)
        await self._tenants.admit_database(tenant)
        return self._timelines.begin_import(tenant, name).timeline

    async def register(
        self,
        tenant: TenantId,
        name: str,
        timeline: TimelineId,
        *,
        prev_record_lsn: int,
        system_id: int,
        postgres_database: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> DatabaseRecord:
        """Gives an imported timeline its name. Settings may be set aside."""
        name = database_name(name)
        wanted = UserSettings(wanted=allowed(settings or {}))
        return await self._turns.to_its_end(
            self._register(
                tenant, name, timeline, prev_record_lsn, system_id, postgres_database, wanted
            )
        )

    async def rename(
        self, tenant: TenantId, old: str, new: str, *, if_exists: bool = False
    ) -> tuple[DatabaseRecord | None, bool]:
        """Another name for a database: its log, its checkpoints and its running compute go with
        it, and its branches know it by that name, which is in its URL from now on. The database
        inside Postgres keeps its own.

        Args:
            if_exists: where there is no `old`, answer what there is of `new`.

        Returns:
            The record, and whether it was renamed now.
        """
        old, new = database_name(old), self._new_name(tenant, new)
        return await self._turns.to_its_end(self._rename(tenant, old, new, if_exists))

    async def remove(self, tenant: TenantId, name: str, *, if_exists: bool = False) -> bool:
        """Deletes the name, its checkpoints and its log; whether there was one."""
        return await self._turns.to_its_end(self._remove(tenant, database_name(name), if_exists))

    async def keep(self, tenant: TenantId, name: str, expires_micros: int) -> DatabaseRecord:
        """
        Args:
            expires_micros: when it is removed by itself from now on; 0 for never.
        """
        name = database_name(name)
        async with self._turns.on(tenant, name):
            with self._state.change() as change:
                record = change.known_database(tenant, name)
                record = record.model_copy(update={"expires_micros": expires_micros})
                change.put_database(record)
            return record

    async def remove_expired(self, tenant: TenantId, name: str, clock: Callable[[], int]) -> bool:
        """Whether its time is over still, and it is gone."""
        return await self._turns.to_its_end(self._remove_expired(tenant, name, clock))

    async def wake(self, tenant: TenantId, name: str) -> DatabaseRecord:
        """Starts the compute unless it runs."""
        name = database_name(name)
        async with self._turns.on(tenant, name):
            await self._computes.start(self.known(tenant, name))
            return self.known(tenant, name)

    async def stop(self, tenant: TenantId, name: str) -> DatabaseRecord:
        """Stops the compute; the next connection wakes it."""
        name = database_name(name)
        async with self._turns.on(tenant, name):
            record = self.known(tenant, name)
            await self._sessions.carry_out(
                record, f"{name} is stopped", "It wakes with the next connection."
            )
            await self._computes.stop((tenant, record.name))
            return record

    async def stop_all(self, *, carry_sessions: bool) -> int:
        """Stops every compute, and starts none any more; how many ran.

        Args:
            carry_sessions: the proxy stays, and keeps those that can be carried.
        """
        return await self._computes.stop_all(self._part_all if carry_sessions else None)

    # How they are done

    async def _part_all(self, slot: Slotted) -> None:
        record = self._state.view().database(*slot)
        if record is not None:
            await self._sessions.carry_out(
                record, "pagestore is stopped", "It takes connections once it is up again."
            )

    async def _made_template(self, tenant: TenantId, major: int) -> TemplateRecord:
        template = self._state.view().template(tenant, major or versions.OLDEST.major)
        if template is None:
            raise FailedPrecondition("NO_TEMPLATE", "The empty template is not made yet.")
        return template

    async def _create(
        self,
        tenant: TenantId,
        name: str,
        if_not_exists: bool,
        settings: UserSettings,
        major: int,
        expires_micros: int,
    ) -> tuple[DatabaseRecord, bool]:
        async with self._turns.on(tenant, name):
            existing = self._existing(tenant, name, if_not_exists)
            if existing is not None:
                return existing, False
            await self._tenants.admit_database(tenant)
            template = await self._template(tenant, major)
            parent = self._state.view().known_timeline(template.timeline)
            point = BranchPoint(parent, template.lsn, template.prev_record_lsn)
            async with self._timelines.branching(tenant, name, point) as making:
                secret = credentials.new_password()
                record = DatabaseRecord(
                    tenant=tenant,
                    name=name,
                    timeline=making.timeline,
                    branch_lsn=point.lsn,
                    created_micros=now_micros(),
                    sealed_password=self._key.seal(tenant, secret),
                    postgres_database=credentials.inner_name(name),
                    settings=settings,
                    expires_micros=expires_micros,
                )
                async with self._first_start(record, strictly=True) as compute:
                    await compute.set_owner(record, secret, Owner.OF_NEW)
                    head = await self._history.head(record.timeline)
                    record = self._as_started(record)
                    self._publish(record, making, Verb.CREATE, usable_lsn=head.lsn)
            return record, True

    async def _branch(
        self,
        tenant: TenantId,
        source: str,
        name: str,
        at: Point,
        if_not_exists: bool,
        expires_micros: int,
    ) -> tuple[DatabaseRecord, bool]:
        async with self._turns.on(tenant, name):
            existing = self._existing(tenant, name, if_not_exists)
            if existing is not None:
                await self._refuse_other_branch(existing, source, at)
                return existing, False
            await self._tenants.admit_database(tenant)
            await self._computes.note_settings((tenant, source))
            parent = self._state.view().known_database(tenant, source)
            point = await self._history.resolve(parent, at)
            asleep = not parent.password_was_reset
            async with self._timelines.branching(tenant, name, point, asleep=asleep) as making:
                same = making.begun.major == self._history.major(parent.timeline)
                settings = parent.settings if same else unproved(parent.settings)
                record = parent.model_copy(
                    update={
                        "name": name,
                        "settings": settings,
                        "timeline": making.timeline,
                        "parent": parent.name,
                        "parent_timeline": parent.timeline,
                        "branch_lsn": point.lsn,
                        "created_micros": now_micros(),
                        "expires_micros": expires_micros,
                    }
                )
                words = f"of {parent.name} at {at}"
                if asleep:
                    self._publish(record, making, Verb.BRANCH, words)
                    return record, True
                # The point may be older than the password: a start puts that into the cluster.
                async with self._first_start(record):
                    record = self._as_started(record)
                    self._publish(record, making, Verb.BRANCH, words)
            return record, True

    async def _register(
        self,
        tenant: TenantId,
        name: str,
        timeline: TimelineId,
        prev_record_lsn: int,
        system_id: int,
        postgres_database: str,
        settings: UserSettings,
    ) -> DatabaseRecord:
        async with self._turns.on(tenant, name):
            self._refuse_existing(tenant, name)
            await self._tenants.admit_database(tenant)
            begun = self._import_under_way(name, timeline)
            async with self._timelines.making(begun) as making:
                info = await self._pages.get_timeline(tenant, timeline)
                major = info.postgres_major or versions.OLDEST.major
                root = making.root(info.branch_lsn, system_id, major)
                with self._state.change() as change:
                    change.put_timeline(root.begun)
                await self._wal.create_timeline(
                    tenant,
                    timeline,
                    info.branch_lsn,
                    prev_record_lsn=prev_record_lsn,
                    system_id=system_id,
                )
                secret = credentials.new_password()
                record = DatabaseRecord(
                    tenant=tenant,
                    name=name,
                    timeline=timeline,
                    branch_lsn=info.branch_lsn,
                    created_micros=now_micros(),
                    sealed_password=self._key.seal(tenant, secret),
                    postgres_database=postgres_database or OWNER_ROLE,
                    settings=settings,
                )
                async with self._first_start(record) as compute:
                    asked = record.model_copy(update={"postgres_database": postgres_database})
                    inner = await compute.set_owner(asked, secret, Owner.OF_IMPORT)
                    head = await self._history.head(timeline)
                    record = self._as_started(record)
                    record = record.model_copy(update={"postgres_database": inner})
                    self._publish(record, root, Verb.IMPORT, usable_lsn=head.lsn)
            return record

    async def _refuse_other_branch(self, existing: DatabaseRecord, source: str, at: Point) -> None:
        """Unless `existing` is a branch of `source` at that point. Without a point it may be any:
        the head of then is not the head of now."""
        was = f"a branch of {existing.parent}" if existing.parent else "no branch"
        if existing.parent == source:
            if isinstance(at, Head):
                return
            parent = self._state.view().known_database(existing.tenant, source)
            point = await self._history.resolve(parent, at)
            if self._history.began_at(existing) == (point.timeline.timeline, point.lsn):
                return
            was += f" at LSN {format_lsn(existing.branch_lsn)}"
        wanted = f"a branch of {source}"
        if not isinstance(at, Head):
            wanted += f" at {at}"
        raise AlreadyExists(
            "DATABASE_EXISTS",
            f"There is a database {existing.name!r} already: {was}, not {wanted}.",
            "Choose another name, or remove that one first: pagestore rm NAME.",
        )

    async def _rename(
        self, tenant: TenantId, old: str, new: str, if_exists: bool
    ) -> tuple[DatabaseRecord | None, bool]:
        async with self._turns.on(tenant, old, new):
            record = self._state.view().database(tenant, old)
            if record is None and if_exists:
                return self._state.view().database(tenant, new), False
            record = record or self._state.view().known_database(tenant, old)
            if old == new:
                return record, False
            self._refuse_existing(tenant, new)
            with self._state.change() as change:
                renamed = change.rename_database(record, new)
                event = EventRecord(
                    verb=Verb.RENAME,
                    timeline=record.timeline,
                    lsn=record.branch_lsn,
                    created_micros=now_micros(),
                    detail=f"from {old}",
                )
                change.add_event(tenant, new, event)
            await self._computes.rename((tenant, old), (tenant, new))
            return renamed, True

    def _import_under_way(self, name: str, timeline: TimelineId) -> TimelineRecord:
        begun = self._state.view().known_timeline(timeline)
        under_way = begun.state is TimelineState.PENDING and begun.imported
        if not under_way or begun.database != name:
            raise FailedPrecondition(
                "NOT_AN_IMPORT", f"Timeline {timeline} is not an import of {name!r} under way."
            )
        return begun

    async def _remove(self, tenant: TenantId, name: str, if_exists: bool) -> bool:
        async with self._turns.on(tenant, name):
            record = self._state.view().database(tenant, name)
            if record is None and if_exists:
                return False
            record = record or self._state.view().known_database(tenant, name)
            await self._take_away(record, f"{name} was removed")
        return True

    async def _remove_expired(self, tenant: TenantId, name: str, clock: Callable[[], int]) -> bool:
        async with self._turns.on(tenant, name):
            record = self._state.view().database(tenant, name)
            if record is None or not 0 < record.expires_micros <= clock():
                return False
            await self._take_away(record, f"the time of {name} was over, and it was removed")
        return True

    async def _take_away(self, record: DatabaseRecord, words: str) -> None:
        with self._state.change() as change:
            timeline = change.timeline(record.timeline)
            change.remove_database(record)
        if timeline is None or not timeline.was_never_started:
            await self._sessions.carry_out(record, words, end_all=True)
        await self._computes.forget((record.tenant, record.name))
        self._timelines.collect_soon()

    @contextlib.asynccontextmanager
    async def _first_start(
        self, record: DatabaseRecord, *, strictly: bool = False
    ) -> AsyncIterator[Compute]:
        """The compute of a database that is coming to be; it goes if the body ends by an error."""
        try:
            yield await self._computes.start(record, strictly=strictly)
        except BaseException:
            await self._computes.forget((record.tenant, record.name))
            raise

    def _as_started(self, record: DatabaseRecord) -> DatabaseRecord:
        settings = self._computes.started_with(record)
        return record.model_copy(update={"settings": settings})

    def _publish(
        self,
        record: DatabaseRecord,
        making: Making,
        verb: Verb,
        detail: str = "",
        usable_lsn: int = 0,
    ) -> None:
        now = now_micros()
        event = EventRecord(
            verb=verb,
            timeline=record.timeline,
            lsn=usable_lsn or record.branch_lsn,
            created_micros=now,
            detail=detail,
        )
        with self._state.change() as change:
            self._tenants.admit_entry(change, record.tenant)
            making.live(change, usable_lsn=usable_lsn, created_micros=now)
            change.put_database(record)
            change.add_event(record.tenant, record.name, event)
            if record.settings.set_aside and verb is not Verb.CREATE:
                aside = set_aside_event(record, record.settings, now)
                change.add_event(record.tenant, record.name, aside)

    def _new_name(self, tenant: TenantId, text: str) -> str:
        """Of a database that is to come, unless there is one of that name already: it may have
        been named before `@` was reserved."""
        name = database_name(text)
        known = self._state.view().database(tenant, name) is not None
        return name if known else new_database_name(name)

    def _existing(self, tenant: TenantId, name: str, if_not_exists: bool) -> DatabaseRecord | None:
        if if_not_exists:
            return self._state.view().database(tenant, name)
        self._refuse_existing(tenant, name)
        return None

    def _refuse_existing(self, tenant: TenantId, name: str) -> None:
        if self._state.view().database(tenant, name) is not None:
            raise AlreadyExists(
                "DATABASE_EXISTS",
                f"There is a database {name!r} already.",
                "Choose another name, or say --if-not-exists.",
            )
