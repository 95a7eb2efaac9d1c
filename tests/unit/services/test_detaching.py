"""A detach that fails is told to all who wait, and holds nothing afterwards."""

from __future__ import annotations

import asyncio
import weakref

from pagestore.errors import NotFound
from pagestore.ids import DEFAULT_TENANT
from pagestore.services.page_detaching import Detaching
from tests.unit.garbage import uncollected
from tests.unit.timeline.model import timeline_id


class Timeline:
    """As much of one as is asked for."""

    tenant_id, timeline_id = DEFAULT_TENANT, timeline_id(1)


class Access:
    def timeline(self, tenant: bytes, timeline: bytes) -> Timeline:
        raise NotFound("TIMELINE_NOT_FOUND", "It was removed meanwhile.")


def test_a_detach_that_fails_keeps_no_timeline() -> None:
    async def main() -> None:
        detaching = Detaching(Access())  # type: ignore[arg-type]
        timeline = Timeline()
        known = weakref.ref(timeline)
        waiting = [detaching.detach(timeline, 1000) for _ in range(2)]  # type: ignore[arg-type]
        del timeline
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(failure) for failure in told] == [NotFound, NotFound]
        del waiting, told
        await asyncio.sleep(0)
        assert known() is None

    with uncollected():
        asyncio.run(main())
