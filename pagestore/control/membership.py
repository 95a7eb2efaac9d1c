"""Brings every timeline to the safekeepers that shall keep it.

Who that is, this process was told when it was started. Nothing else is remembered of a change
under way: each timeline's safekeepers tell how far it is. So it goes on after any crash, and one
more change may be asked for at any time. Timelines with a compute are left to the compute's
keeper (quorum/keeper.py), who does the same while clients write; here are all others,
whose term is won without a compute, with their slot held, so that none is started meanwhile; but
for those that have no log yet (logs.py), which is made where it belongs.

Once all timelines have been seen with the right members, that is noted: an installation whose
safekeepers do not change is not looked through again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from pagestore.consensus.change import MembershipChange
from pagestore.control.computes import Computes, Slotted
from pagestore.control.logs import Logs
from pagestore.control.records import TimelineRecord
from pagestore.control.state import ControlState
from pagestore.errors import NotFound, PagestoreError
from pagestore.quorum.changing import Changing
from pagestore.quorum.client import QuorumClient
from pagestore.quorum.safekeepers import Key

AGAIN_SECONDS = 1.0
AT_ONCE = 4
"""Timelines that are looked at together."""
_log = structlog.get_logger(__name__)


@dataclass
class Progress:
    """
    Args:
        left: how many timelines have other members still, as far as is known.
        error: why one of them has.
    """

    settled: bool = False
    left: int = 0
    error: str = ""


class _Away:
    """Nobody runs: the level is the end of the elected log, which is where it was begun."""

    def __init__(self, end_lsn: int) -> None:
        self._end_lsn = end_lsn

    async def set_rule(self, rule: str) -> int:
        return self._end_lsn

    async def attach(self, number: int, lsn: int) -> None:
        """There is nothing to follow."""


@dataclass
class Membership:
    """
    Args:
        numbers: of the safekeepers that every timeline shall have.
    """

    state: ControlState
    quorum: QuorumClient
    computes: Computes
    numbers: frozenset[int]
    logs: Logs
    progress: Progress = field(default_factory=Progress)

    async def run(self) -> None:
        """Until all is settled, or for ever."""
        settled = self.state.view().members().settled
        if frozenset(settled) == self.numbers:
            self.progress.settled = True
            return
        while not (await self._look_through() and self._settle()):
            await asyncio.sleep(AGAIN_SECONDS)
        self.progress.settled = True
        _log.info("all timelines have their safekeepers", numbers=sorted(self.numbers))

    def _settle(self) -> bool:
        """Notes that it is done; not on a disk that is full, where it is tried again."""
        try:
            with self.state.change() as change:
                record = change.members()
                numbers = tuple(sorted(self.numbers))
                change.put_members(record.model_copy(update={"settled": numbers}))
        except (PagestoreError, OSError) as error:
            _log.warning("the change is not noted", error=str(error))
            return False
        return True

    async def _look_through(self) -> bool:
        """Whether all timelines have the right members."""
        view = self.state.view()
        names = {record.timeline: (record.tenant, record.name) for record in view.databases()}
        timelines = view.live_timelines()
        self.progress.left = max(self.progress.left, len(timelines))
        together = asyncio.Semaphore(AT_ONCE)

        async def one(record: TimelineRecord) -> str | None:
            async with together:
                try:
                    return await self._bring(record, names.get(record.timeline))
                except NotFound:
                    return None
                except PagestoreError as error:
                    return str(error)

        troubles = [item for item in await asyncio.gather(*map(one, timelines)) if item is not None]
        self.progress.left = len(troubles)
        self.progress.error = next((item for item in troubles if item), "")
        return not troubles

    async def _bring(self, record: TimelineRecord, name: Slotted | None) -> str | None:
        """What is missing still, in words as far as there are any; None when nothing is."""
        key = (record.tenant, record.timeline)
        if not await self.logs.is_made(record.timeline) or await self._is_right(key):
            return None
        await self._check_newcomers(key)
        if name is None:
            await self._change(key)
            return None
        async with self.computes.held(name) as compute:
            if compute is not None and compute.timeline == record.timeline:
                return compute.complaint
            await self._change(key)
        return None

    async def _is_right(self, key: Key) -> bool:
        head = await self.quorum.head(key)
        numbers = {item.number for item in head.configuration.members}
        return numbers == self.numbers and not head.configuration.joint

    async def _check_newcomers(self, key: Key) -> None:
        """No slot is held for one that is not there."""
        for number in self.numbers:
            with contextlib.suppress(NotFound):
                await self.quorum.safekeepers.status(number, key)

    async def _change(self, key: Key) -> None:
        led = await self.quorum.lead(key)
        elect, start = led.choice.elect, led.choice.start.flush_lsn
        before = elect.configuration
        change = MembershipChange(
            elect,
            led.choice.donor.start,
            led.choice.donor.system_id,
            target=self.numbers,
            lost=led.blanks,
            level=start,
            generation=self.quorum.generations(before.generation),
        )
        safekeepers = self.quorum.safekeepers
        await Changing(safekeepers, key, change, _Away(start)).run()
        self.quorum.changed(key, led.term, change.configuration)
        _log.info("members changed", timeline=str(key[1]), members=sorted(self.numbers))
        await safekeepers.retire(key, before, change.configuration)


def generations(state: ControlState, count: int = 3) -> Callable[[int], int]:
    """Gives so many away, above the one that is asked for; durable before they are used."""
    return partial(_take, state, count)


def _take(state: ControlState, count: int, above: int) -> int:
    with state.change() as change:
        return change.take_generations(count, above)
