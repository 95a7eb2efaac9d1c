"""Tells parts that know timelines what the databases are called, for their logs.

Each is told all at first, then what has changed, a moment later; and now and then nothing, by which
it is seen whether it is another process meanwhile, which has to be told all. One that is away is
told all when it is back. Nothing waits for any of this, and nothing but lines of logs depends on
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pagestore.control.records import TimelineRecord
from pagestore.control.state import ControlState
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 60.0
AT_ONCE = 10_000
NOBODY = 0
"""The number of no process."""

Names = Mapping[TimelineId, str]


class Part(Protocol):
    async def tell(self, names: Names) -> int:
        """The number of the process that has heard it.

        Raises:
            PagestoreError: it has not.
        """
        ...


class Naming:
    """Of one event loop."""

    def __init__(self, state: ControlState, parts: Sequence[Part]) -> None:
        self._state = state
        self._runs: dict[Part, int | None] = dict.fromkeys(parts)
        """The process that each part was when it had been told all; None: it has not been."""
        self._changed: dict[TimelineId, TimelineRecord | None] = {}
        state.on_timeline = self._note

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        again = 0.0
        while True:
            if self._changed or clock() >= again:
                await self.tell()
                again = clock() + AGAIN_SECONDS
            await asyncio.sleep(LOOK_SECONDS)

    async def tell(self) -> None:
        changed, self._changed = self._changed, {}
        news = {timeline: self._name(record) for timeline, record in changed.items()}
        await asyncio.gather(*(self._tell(part, news) for part in self._runs))

    def _note(self, timeline: TimelineId, record: TimelineRecord | None) -> None:
        self._changed[timeline] = record

    async def _tell(self, part: Part, news: Names) -> None:
        with contextlib.suppress(PagestoreError):
            before, self._runs[part] = self._runs[part], None
            if before is None or await part.tell(news) != before:
                before = await self._tell_all(part)
            self._runs[part] = before

    async def _tell_all(self, part: Part) -> int:
        run = await part.tell({})  # before all are read: whether it is there
        for some in _parted(await asyncio.to_thread(self._all)):
            if await part.tell(some) != run:
                return NOBODY
        return run

    def _all(self) -> Names:
        return {item.timeline: self._name(item) for item in self._state.view().timelines()}

    def _name(self, record: TimelineRecord | None) -> str:
        if record is None or not record.database:
            return ""  # forgotten, or a template
        if record.tenant == DEFAULT_TENANT:
            return record.database
        tenant = self._state.view().tenant(record.tenant)
        return f"{tenant.name if tenant is not None else record.tenant}/{record.database}"


def _parted(names: Names) -> Iterator[Names]:
    left = iter(names.items())
    while some := dict(itertools.islice(left, AT_ONCE)):
        yield some
