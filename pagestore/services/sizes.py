"""What timelines take, as the page server says it, asked once for all pages of a list."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from pagestore.ids import TenantId
from pagestore.v1 import page_pb2 as pb

HELD_SECONDS = 10.0
"""Until a list whose next page nobody has asked for is let go, and asked for anew."""

Sizes = Mapping[bytes, pb.TimelineInfo]
"""By timelines' ids."""


class Listing(Protocol):
    async def list_timelines(self, tenant: TenantId | None) -> list[pb.TimelineInfo]: ...


class SizesOfPages:
    """A first page is as of now; those behind it are as of then, if that was a moment ago: to ask
    for all at each page would cost as much as there are databases, as often as there are pages."""

    def __init__(self, pages: Listing, clock: Callable[[], float] = time.monotonic) -> None:
        self._pages, self._clock = pages, clock
        self._held: dict[TenantId, tuple[float, Sizes]] = {}

    async def of(self, tenant: TenantId, *, first: bool) -> Sizes:
        """
        Args:
            first: the first page is asked for.

        Raises:
            Unavailable: the page server is away.
        """
        asked, held = self._held.get(tenant, (-math.inf, {}))
        if not first and self._clock() - asked < HELD_SECONDS:
            return held
        infos = await self._pages.list_timelines(tenant)
        return {info.timeline_id: info for info in infos}

    def hold(self, tenant: TenantId, sizes: Sizes) -> None:
        """For the next page."""
        now = self._clock()
        self._held = {key: held for key, held in self._held.items() if now - held[0] < HELD_SECONDS}
        self._held[tenant] = now, sizes
