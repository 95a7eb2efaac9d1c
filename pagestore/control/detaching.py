"""A branch becomes independent: ``pagestore detach``.

The page server copies what the branch reads of its parent, aside, while everybody works on. When
that is done the state says so in one transaction. Whatever is killed between, the verb sent again
goes on: the page server that has done it says so. An independent database has no history before the
LSN at which it was branched, and nobody holds its parent's any more.
"""

from __future__ import annotations

from typing import NamedTuple

from pagestore.client.names import database_name
from pagestore.client.page import AsyncPageClient
from pagestore.control.records import DatabaseRecord
from pagestore.control.state import ControlState
from pagestore.control.timelines import Timelines
from pagestore.control.turns import Turns
from pagestore.ids import TenantId

WAIT_MS = 10_000
"""Less than a client waits for its answer."""


class Detached(NamedTuple):
    """``done``: it is independent by now. ``changed``: it was not before."""

    record: DatabaseRecord
    done: bool
    changed: bool


class Detaching:
    def __init__(
        self, state: ControlState, pages: AsyncPageClient, timelines: Timelines, turns: Turns
    ) -> None:
        self._state = state
        self._pages = pages
        self._timelines = timelines
        self._turns = turns

    async def detach(self, tenant: TenantId, name: str) -> Detached:
        """Waits for a while. The empty template that a database began as is nobody's, and stays."""
        name = database_name(name)
        record = self._state.view().known_database(tenant, name)
        if not self._is_branch(record):
            return Detached(record, done=True, changed=False)
        if not await self._pages.detach_timeline(tenant, record.timeline, wait_ms=WAIT_MS):
            return Detached(record, done=False, changed=True)
        async with self._turns.on(tenant, name):
            with self._state.change() as change:
                change.detach_timeline(record.timeline)
                now = change.database(tenant, name)
                if now is not None and now.timeline == record.timeline:
                    now = now.model_copy(update={"parent": "", "parent_timeline": None})
                    change.put_database(now)
        self._timelines.collect_soon()
        return Detached(now or record, done=True, changed=True)

    def _is_branch(self, record: DatabaseRecord) -> bool:
        view = self._state.view()
        timeline = view.known_timeline(record.timeline)
        parent = view.timeline(timeline.parent) if timeline.parent is not None else None
        return parent is not None and bool(parent.database)
