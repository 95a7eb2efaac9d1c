"""Lists that are watched: a snapshot of a tenant's databases, then what changes, as it does.

A watcher looks every LOOK_SECONDS whether anything was committed to the state, and at the states of
the computes, which are in memory; only what was committed makes it read records again. So nobody
who changes something has to know who watches; a watcher that is slow holds back nobody, and sees
the latest of what it missed; and an idle one costs as much as its tenant has databases.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from pagestore.control.computes import Computes, ComputeStatus
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
_Known = dict[str, tuple[DatabaseRecord, ComputeStatus]]


async def watch_databases(
    state: ControlState, computes: Computes, tenant: TenantId
) -> AsyncIterator[Change]:
    """Without an end."""
    known: _Known = {}
    version, records = -1, list[DatabaseRecord]()
    told = False
    while True:
        if state.version != version:
            version, records = state.version, state.view().databases(tenant)
        now = {item.name: (item, computes.status((tenant, item.name))) for item in records}
        for name in sorted(known.keys() - now.keys()):
            yield Gone(name)
        for name, item in now.items():
            if known.get(name) != item:
                yield Seen(item[0])
        if not told:
            told = True
            yield Whole()
        known = now
        await asyncio.sleep(LOOK_SECONDS)
