"""Who tells of what databases cost: computes once a minute and at their end, the proxy by itself.

A compute that runs while the control plane is away goes on being measured by its agent, and is
accounted for when the control plane is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import lmdb
import structlog

from pagestore.control.compute import Compute
from pagestore.control.computes import Computes, Slotted
from pagestore.control.state import ControlState, now_micros
from pagestore.control.usage import Told, Usage, Whose
from pagestore.errors import InvalidInput, PagestoreError
from pagestore.ids import TenantId

NOTE_SECONDS = 60.0
FORGET_SECONDS = 86_400.0
_log = structlog.get_logger(__name__)


class Metering:
    """The Meter of Computes, and what the proxy tells."""

    def __init__(self, state: ControlState) -> None:
        self.usage = Usage(state)

    def note(self, costs: Sequence[tuple[Slotted, int, Compute]]) -> None:
        told = []
        for (tenant, name), created, compute in costs:
            cost = compute.cost
            if cost.started > 0:
                whose = _whose(tenant, name, created)
                told.append((whose, compute.name, Told(cost.started, cost.until, cost.cpu)))
        self.usage.note(told)

    def note_queries(self, life: str, queries: Mapping[str, int]) -> None:
        """
        Args:
            queries: by ids of places, since this life of the proxy began.

        Raises:
            InvalidInput: INVALID_PLACE.
        """
        now = now_micros()
        told = [
            (_of_place(place), f"{life[:64]}/{place[:64]}", Told(now, now, 0, count, awake=False))
            for place, count in queries.items()
        ]
        self.usage.note(told)


async def note_costs(computes: Computes, metering: Metering) -> None:
    """Until cancelled."""
    clock = asyncio.get_running_loop().time
    forget_at = clock()
    while True:
        await asyncio.sleep(NOTE_SECONDS)
        computes.note_costs()
        if clock() >= forget_at:
            forget_at = clock() + FORGET_SECONDS
            try:
                metering.usage.forget_old()
            except (PagestoreError, OSError, lmdb.Error) as error:
                _log.warning("what databases cost long ago is kept", error=str(error))


def _whose(tenant: TenantId, name: str, created: int) -> Whose:
    """Whoever opens the past of a database uses that database (moments.slot_of)."""
    of_past, slash, _ = name.partition("/")
    return Whose(tenant, int(of_past)) if slash else Whose(tenant, created, name)


def _of_place(place: str) -> Whose:
    tenant, _, created = place.partition("/")
    try:
        return Whose(TenantId.parse(tenant), int(created))
    except ValueError as error:
        raise InvalidInput("INVALID_PLACE", f"There is no place {place[:80]!r}.") from error
