"""Lists that are watched: a snapshot of a tenant's databases, then what changes, as it does.

A watcher looks every LOOK_SECONDS whether anything was committed to the state, and at the states of
the computes, which are in memory; only what was committed makes it read records again, and only
those are decoded that have changed. So nobody who changes something has to know who watches; a
watcher that is slow holds back nobody, and sees the latest of what it missed; and an idle one costs
as much as its tenant has had computes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from pagestore.control.computes import Computes, ComputeState, ComputeStatus
from pagestore.control.records import DatabaseRecord
from pagestore.control.state import ControlState
from pagestore.ids import TenantId

LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Seen:
    """A database that is new, or other than before."""

    record: DatabaseRecord


@dataclass(frozen=True, slots=True)
class Gone:
    """There is none of that name any more: removed, or renamed."""

    name: str


@dataclass(frozen=True, slots=True)
class Whole:
    """All that there was when the watch began has been told."""


Change = Seen | Gone | Whole
_ASLEEP = ComputeStatus(ComputeState.STOPPED)


class _Watched:
    """A tenant's databases as they were when they were last looked at."""

    def __init__(self, state: ControlState, computes: Computes, tenant: TenantId) -> None:
        self._state, self._computes, self._tenant = state, computes, tenant
        self._version = -1
        self._encoded: dict[str, bytes] = {}
        self._records: dict[str, DatabaseRecord] = {}
        self._statuses: dict[str, ComputeStatus] = {}

    def look(self) -> list[Seen | Gone]:
        gone, changed = set[str](), set[str]()
        if self._state.version != self._version:
            self._version = self._state.version
            gone, changed = self._read()
        changed |= self._look_at_computes()
        told: list[Seen | Gone] = [Gone(name) for name in sorted(gone)]
        return told + [Seen(self._records[name]) for name in sorted(changed - gone)]

    def _read(self) -> tuple[set[str], set[str]]:
        """Names of those that are gone, and that are new or other than before. Decoded is only what
        is not the same bytes as before."""
        before, now = self._encoded, self._state.view().encoded_databases(self._tenant)
        self._encoded = now
        gone = before.keys() - now.keys()
        for name in gone:
            del self._records[name]
        changed = {name for name, raw in now.items() if before.get(name) != raw}
        for name in changed:
            self._records[name] = DatabaseRecord.decode(now[name], f"database {name!r}")
        return gone, changed

    def _look_at_computes(self) -> set[str]:
        """Those whose compute is in another state; most databases have none."""
        before = self._statuses
        slots = [slot for slot in self._computes.names() if slot[0] == self._tenant]
        self._statuses = {slot[1]: self._computes.status(slot) for slot in slots}
        return {
            name
            for name in (before.keys() | self._statuses.keys()) & self._records.keys()
            if before.get(name, _ASLEEP) != self._statuses.get(name, _ASLEEP)
        }


async def watch_databases(
    state: ControlState, computes: Computes, tenant: TenantId
) -> AsyncIterator[Change]:
    """Without an end."""
    watched = _Watched(state, computes, tenant)
    for change in watched.look():
        yield change
    yield Whole()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        for change in watched.look():
            yield change
