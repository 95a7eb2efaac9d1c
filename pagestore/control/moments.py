"""Places in the past: ``app@before-migration``, ``app@0/16B3748``, ``app@2026-11-23T10:15``.

Whoever names a point gets the read-only compute that stands at its LSN, shared by all who name a
point with the same LSN, by whatever words. It runs on a *hidden* timeline, which branches off
there: O(1), and a child holds the history that it inherits, so it is the lease. The timeline is
pending for its whole life, as one that is being made (timelines.py): nobody ever names it, it is in
no list, it goes when the place sleeps, and a control plane that starts after a crash drops it and
ends its compute, since no database stands on it.

Read-only is `default_transaction_read_only`, no more: a superuser may set it off, and then writes
to a branch that is thrown away, which harms nobody.

Not carried over: what ALTER SYSTEM set by now holds at a place in the past too, as it does after a
restore; files that no WAL holds (statistics) are not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field

from pagestore.client.points import parse_point
from pagestore.control.compute import Compute
from pagestore.control.computes import Computes, Slotted
from pagestore.control.history import History
from pagestore.control.records import DatabaseRecord, UserSettings
from pagestore.control.timelines import Making, Timelines
from pagestore.errors import InvalidInput
from pagestore.ids import TenantId, TimelineId, format_lsn, parse_lsn

READ_ONLY = {"default_transaction_read_only": "on"}
_MOMENT = re.compile(r"([0-9A-F]{1,8}/[0-9A-F]{1,8}) of ([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Moment:
    """An LSN of a timeline: where a place stands, by whatever words it was asked for."""

    timeline: TimelineId
    lsn: int

    @classmethod
    def parse(cls, text: str) -> Moment:
        """The inverse of str().

        Raises:
            InvalidInput: INVALID_PLACE.
        """
        match = _MOMENT.fullmatch(text)
        if match is None:
            raise InvalidInput("INVALID_PLACE", f"{text[:80]!r} is no place in the past.")
        return cls(TimelineId.parse(match[2]), parse_lsn(match[1]))

    def __str__(self) -> str:
        return f"{format_lsn(self.lsn)} of {self.timeline}"


@dataclass
class _Shared:
    """What all who are at a moment of a database share."""

    database: DatabaseRecord
    moment: Moment
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    held: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    """The hidden timeline; closing it lets it go."""
    record: DatabaseRecord | None = None
    """What its compute is started as; None while there is no timeline."""
    same_major: bool = True
    """As that of the present: what is set there, another one may not know."""


class Moments:
    def __init__(self, computes: Computes, history: History, timelines: Timelines) -> None:
        self._computes = computes
        self._history = history
        self._timelines = timelines
        self._shared: dict[Slotted, _Shared] = {}

    async def find(self, database: DatabaseRecord, point: str) -> Moment:
        """What a user's words mean now.

        Raises:
            InvalidInput: INVALID_POINT, INVALID_TIME, INVALID_LSN.
            NotFound: CHECKPOINT_NOT_FOUND.
            OutOfRange: LSN_BEYOND_HEAD, POINT_TOO_OLD, TIME_IN_FUTURE.
        """
        found = await self._history.resolve(database, parse_point(point))
        return Moment(found.timeline.timeline, found.lsn)

    async def start(self, database: DatabaseRecord, moment: Moment) -> Compute:
        """The compute that stands there, started unless it runs.

        Raises:
            PagestoreError: why it does not start; nothing is left of it then.
        """
        slot = slot_of(database.tenant, database.created_micros, moment)
        while True:
            shared = self._shared.setdefault(slot, _Shared(database, moment))
            async with shared.lock:
                if self._shared.get(slot) is shared:
                    return await self._started(slot, shared)
            # It ended while one waited.

    def running(self) -> list[tuple[DatabaseRecord, Moment, Compute]]:
        found = []
        for slot, shared in self._shared.items():
            compute = self._computes.running_compute(slot)
            if compute is not None:
                found.append((shared.database, shared.moment, compute))
        return found

    async def stop(self, slot: Slotted) -> None:
        """Ends the compute that stands there, and lets its timeline go; whatever became of the
        database meanwhile."""
        shared = self._shared.get(slot)
        if shared is not None:
            async with shared.lock:
                if self._shared.get(slot) is shared:
                    await self._end(slot, shared)

    async def close(self) -> None:
        """All of them end: the next control plane knows of none."""
        for slot in list(self._shared):
            await self.stop(slot)

    async def _started(self, slot: Slotted, shared: _Shared) -> Compute:
        try:
            if shared.record is None:
                moment, tenant = shared.moment, shared.database.tenant
                point = await self._history.at_lsn(moment.timeline, moment.lsn)
                branching = self._timelines.branching(tenant, "", point)
                making = await shared.held.enter_async_context(branching)
                present = self._history.major(shared.database.timeline)
                shared.same_major = making.begun.major == present
                shared.record = _as_of(shared.database, slot[1], making, moment)
                if not shared.same_major:
                    shared.record = _unproved(shared.record)
            return await self._computes.start(shared.record, strictly=shared.same_major)
        except BaseException:
            await self._end(slot, shared)
            raise

    async def _end(self, slot: Slotted, shared: _Shared) -> None:
        self._shared.pop(slot, None)
        try:
            await self._computes.forget(slot)
        finally:
            await shared.held.aclose()


def slot_of(tenant: TenantId, created: int | str, moment: Moment) -> Slotted:
    """Of a database's moment, by when the database was made. No database's name has a slash."""
    return tenant, f"{created}/{moment}"


def _as_of(database: DatabaseRecord, name: str, making: Making, moment: Moment) -> DatabaseRecord:
    """It is not the database itself: what its start must do to another's replication slots and
    subscriptions it does here; but it is the same one each time it is woken."""
    values = {**database.settings.good, **READ_ONLY}
    return database.model_copy(
        update={
            "name": name,
            "timeline": making.timeline,
            "branch_lsn": moment.lsn,
            "created_micros": database.created_micros ^ (moment.lsn << 1 | 1),
            "settings": UserSettings(wanted=values, good=values),
            "idle": None,
            "parent": "",
            "parent_timeline": None,
        }
    )


def _unproved(record: DatabaseRecord) -> DatabaseRecord:
    settings = record.settings.model_copy(update={"good": READ_ONLY})
    return record.model_copy(update={"settings": settings})
