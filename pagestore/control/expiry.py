"""Databases that were made for a time go by themselves when it is over.

Their records say when (unix time, an index of its own finds the next: `ControlState`), so it holds
over restarts; what fell due while nothing ran goes at the start. What goes is what `rm` removes:
branches of it stay whole. Whoever extends the time in the last moment wins or comes too late, under
the turn of the name: it is looked at again there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import structlog

from pagestore.client import durations
from pagestore.control.databases import Databases
from pagestore.control.state import ControlState, now_micros
from pagestore.errors import InvalidInput, PagestoreError
from pagestore.pauses import Pauses

LOOK_SECONDS = 1.0
LONGEST_PAUSE = 60.0
"""Between tries to remove what cannot be removed."""
LONGEST_TTL = 100 * 365 * 86400.0

_log = structlog.get_logger(__name__)


def expiry_of(ttl: float | None, micros: int) -> int:
    """When a time that begins at `micros` is over; 0 for never.

    Args:
        ttl: seconds; None for ever.

    Raises:
        InvalidInput: INVALID_TTL.
    """
    if ttl is None:
        return 0
    if math.isnan(ttl) or not 0 < ttl <= LONGEST_TTL:
        raise InvalidInput(
            "INVALID_TTL",
            f"{durations.words(ttl) if ttl > 0 else ttl} is no time to live: it has to be more "
            f"than 0, and at most {durations.words(LONGEST_TTL)}.",
            "Write a time as 30m, 1h or 7d; leave it away for what is to stay.",
        )
    return micros + max(1, int(ttl * 1e6))


async def remove_expired(
    state: ControlState, databases: Databases, clock: Callable[[], int] = now_micros
) -> None:
    """Until cancelled.

    Args:
        clock: unix time in microseconds.
    """
    pauses = Pauses(LOOK_SECONDS, LONGEST_PAUSE, spread=False)
    while True:
        failed = False
        for tenant, name in state.view().expired(clock()):
            try:
                if await databases.remove_expired(tenant, name, clock):
                    _log.info("a database's time was over", name=name, tenant=str(tenant))
            except (PagestoreError, OSError) as error:
                failed = True
                _log.warning("an expired database is left", name=name, error=str(error))
        if not failed:
            pauses.reset()
        await pauses.sleep()
