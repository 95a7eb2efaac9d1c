"""What the proxy asks: who may log in where, and places that are woken and put to sleep.

A *place* is where sessions run: a database as it is now, known by an id that outlives a change of
its name, or at a moment of its past (moments.py). Whoever wakes one waits for the turn of its name:
a start that is asked for while the name moves brings the compute of afterwards.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from pagestore.client.names import database_name, split_tenant
from pagestore.control.compute import Compute
from pagestore.control.computes import Computes
from pagestore.control.moments import Moment, Moments, slot_of
from pagestore.control.records import DatabaseRecord
from pagestore.control.roles import Roles
from pagestore.control.state import ControlState
from pagestore.control.turns import Turns
from pagestore.errors import InvalidInput, NotFound, PagestoreError
from pagestore.ids import DEFAULT_TENANT, TenantId
from pagestore.postgres.owner_role import owner_fault
from pagestore.postgres.roles import RoleEntry
from pagestore.postgres.template import OWNER_ROLE
from pagestore.proxy.target import Target

FAULT_SECONDS = 2.0
"""For what is only a remark."""


@dataclass(frozen=True, slots=True)
class PlaceName:
    id: str
    name: str
    """Of the database, when it was last seen."""
    point: str = ""
    """Empty for now; else a Moment."""


@dataclass(frozen=True, slots=True)
class Found:
    place: PlaceName
    inner: str
    """The database inside Postgres."""
    idle: float | None
    """Seconds until it sleeps; infinity for never, None for as long as any."""


@dataclass(frozen=True, slots=True)
class Awake:
    place: PlaceName
    compute: Compute
    idle: float | None = None
    """As in Found."""


def idle_of(record: DatabaseRecord) -> float | None:
    """As in Found."""
    return math.inf if record.idle == 0 else record.idle


def place_of(record: DatabaseRecord, moment: Moment | None = None) -> PlaceName:
    point = str(moment) if moment is not None else ""
    return PlaceName(f"{record.tenant}/{record.created_micros}", record.name, point)


class Places:
    def __init__(
        self,
        state: ControlState,
        computes: Computes,
        moments: Moments,
        roles: Roles,
        turns: Turns,
    ) -> None:
        self._state = state
        self._moments = moments
        self._computes = computes
        self._roles = roles
        self._turns = turns

    async def role(self, target: str, user: str) -> RoleEntry | None:
        """The role by which a login is judged; None also where there is no such database, for
        which as much is read."""
        found = self._named(target)
        if found is not None:
            record = found[0]
            return (await self._roles.of(record.tenant, record.timeline)).get(user)
        template = next(iter(self._state.view().templates().values()), None)
        if template is not None:
            await self._roles.of(DEFAULT_TENANT, template.timeline, target[:64])
        return None

    async def find(self, target: str) -> Found:
        """What a client names.

        Raises:
            NotFound: DATABASE_NOT_FOUND, CHECKPOINT_NOT_FOUND, INNER_DATABASE_NOT_FOUND.
            InvalidInput, OutOfRange: no such point.
        """
        found = self._named(target)
        if found is None:
            raise _no_such(target)
        record, asked = found
        point = asked.point
        moment = None if point is None else await self._moments.find(record, point)
        inner = asked.inner or record.postgres_database
        if inner != record.postgres_database:
            await self._check_inner(record, moment, inner)
        return Found(place_of(record, moment), inner, None if moment else idle_of(record))

    async def _check_inner(self, record: DatabaseRecord, moment: Moment | None, inner: str) -> None:
        """Nobody is woken for a database inside that there is not. A server that runs says so
        itself, of what was made a moment ago, too.

        Raises:
            NotFound: INNER_DATABASE_NOT_FOUND.
        """
        if moment is not None:
            found = await self._roles.databases(record.tenant, moment.timeline, moment.lsn)
        elif self._computes.runs((record.tenant, record.name)):
            return
        else:
            found = await self._roles.databases(record.tenant, record.timeline)
        if inner not in found:
            raise NotFound(
                "INNER_DATABASE_NOT_FOUND",
                f'database "{inner[:80]}" does not exist inside {record.name!r}',
                "`\\l` in `pagestore psql` lists those that do, and CREATE DATABASE makes one.",
            )

    async def url_fault(self, record: DatabaseRecord, secret: str) -> str:
        """Why the owner cannot log in by this password; empty where it can, or is not known to be
        unable. Nobody is woken for it."""
        try:
            async with asyncio.timeout(FAULT_SECONDS):
                role = (await self._roles.of(record.tenant, record.timeline)).get(OWNER_ROLE)
        except (PagestoreError, TimeoutError):
            return ""
        fault = _fault(role, secret)
        return fault and f"{fault} `pagestore password {record.name} --reset` mends that."

    async def start(self, place: PlaceName) -> Compute:
        """Its compute; the first query works.

        Raises:
            NotFound: DATABASE_NOT_FOUND; it was removed.
            PagestoreError: why it does not start.
        """
        return await self._turns.to_its_end(self._start(place))

    async def stop(self, place: PlaceName) -> str:
        """Stops its compute, unless somebody is in there; words for who is."""
        return await self._turns.to_its_end(self._stop(place))

    def awake(self) -> list[Awake]:
        """Those with a compute that runs."""
        past = self._moments.running()
        found = [Awake(place_of(record, moment), compute) for record, moment, compute in past]
        for tenant, name in self._computes.names():
            compute = self._computes.running_compute((tenant, name))
            if compute is None:
                continue  # thousands have slept since they last ran; their records are not read
            record = self._state.view().database(tenant, name)
            if record is not None:
                found.append(Awake(place_of(record), compute, idle_of(record)))
        return found

    async def _start(self, place: PlaceName) -> Compute:
        if place.point:
            return await self._moments.start(self._known(place), Moment.parse(place.point))
        while True:
            record = self._known(place)
            async with self._turns.on(record.tenant, record.name):
                # While one waited it may have been given another name, or been removed.
                current = self._state.view().database(record.tenant, record.name)
                if current is not None and place_of(current).id == place.id:
                    return await self._computes.start(current)

    async def _stop(self, place: PlaceName) -> str:
        if place.point:
            return await self._stop_moment(place)
        try:
            record = self._known(place)
        except NotFound:
            return ""
        slot = (record.tenant, record.name)
        async with self._turns.on(*slot):
            compute = self._computes.running_compute(slot)
            others = await _others(compute) if compute is not None else ""
            if others:
                return others
            await self._computes.stop(slot)
        return ""

    async def _stop_moment(self, place: PlaceName) -> str:
        tenant, _, created = place.id.partition("/")
        slot = slot_of(TenantId.parse(tenant), created, Moment.parse(place.point))
        compute = self._computes.running_compute(slot)
        others = await _others(compute) if compute is not None else ""
        if not others:
            await self._moments.stop(slot)
        return others

    def _named(self, target: str) -> tuple[DatabaseRecord, Target] | None:
        """A name may have an @ in it that was given before that meant a point."""
        whose, rest = split_tenant(target)
        tenant = self._state.view().tenant(whose)
        if tenant is None:
            return None
        for asked in (Target(rest, tenant=whose), Target.parse(target)):
            try:
                name = database_name(asked.name)
            except InvalidInput:
                continue
            record = self._state.view().database(tenant.tenant, name)
            if record is not None:
                return record, asked
        return None

    def _known(self, place: PlaceName) -> DatabaseRecord:
        view = self._state.view()
        tenant = TenantId.parse(place.id.partition("/")[0])
        record = view.database(tenant, place.name)
        if record is not None and place_of(record).id == place.id:
            return record
        for other in view.databases(tenant):
            if place_of(other).id == place.id:
                return other
        raise _no_such(place.name)


def _fault(role: RoleEntry | None, secret: str) -> str:
    if role is None:
        return owner_fault(None, valid=False, verifier="", secret=secret)
    valid = not role.expired(time.time())
    return owner_fault(role.can_login, valid=valid, verifier=role.password or "", secret=secret)


async def _others(compute: Compute) -> str:
    """Who is in there that did not come through the proxy, in words; empty for nobody."""
    count = await compute.strangers()
    return f"sessions past the proxy: {count}" if count else ""


def _no_such(name: str) -> NotFound:
    return NotFound("DATABASE_NOT_FOUND", f"There is no database {name[:80]!r}.")
