"""A compute as the agent has it: with somebody who looks after its safekeepers while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping

import psycopg

from pagestore import tasks
from pagestore.agent.entering import Entering
from pagestore.agent.measuring import Measured, Measuring
from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.client.walservice import WalService
from pagestore.compute.running import RunningCompute, StopResult
from pagestore.quorum.client import QuorumClient
from pagestore.quorum.keeper import Keeper
from pagestore.quorum.lookout import Lookout

LOOK_SECONDS = 2.0
FENCED = "another compute of this timeline was started, so this one was ended"


class WatchedCompute:
    """It is looked after until it ends; `why` says then why it did."""

    def __init__(
        self,
        running: RunningCompute,
        pages: AsyncPageClient,
        wal: WalService,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.running = running
        self.entering = Entering(running, pages, wal)
        self._measuring = Measuring(running.directory, running.record)
        self._measured_end = not running.alive
        self._looking = asyncio.Lock()
        self.fenced = False
        self.blame = ""
        """Why it was ended from here, if it was."""
        self.why = ""
        self.lock = asyncio.Lock()
        """Held by whoever stops or discards it."""
        self._wal = wal
        self._on_end = on_end
        self._keeper = _keeper(running, wal, self._fence) if running.alive else None
        work = self._keeper.run() if self._keeper is not None else None
        name = f"safekeepers of {running.record.timeline}"
        self._keeping = tasks.errand(work, name) if work is not None else None
        self._minding = tasks.endless(self._mind_who_enters(), f"who enters {self.name}")
        self._ending = tasks.errand(self._see_end(), f"end of {running.record.timeline}")

    @property
    def name(self) -> str:
        return self.running.record.name or self.running.directory.name

    @property
    def alive(self) -> bool:
        return not self.why

    @property
    def complaint(self) -> str:
        return self._keeper.complaint if self._keeper is not None and self.alive else ""

    @property
    def measured(self) -> Measured:
        """What it had cost when that was last looked at."""
        return self._measuring.latest

    def user_settings(self) -> Mapping[str, str] | None:
        return self.running.user_settings()

    async def shut_down(self) -> StopResult:
        """See :meth:`RunningCompute.shut_down`."""
        await self._end_keeping()
        # Processes that are gone tell no more of their CPU; what they told is written at the end.
        await self.measure(write=False)
        try:
            return await self.running.shut_down(self._wal)
        finally:
            await self.measure()

    async def measure(self, *, write: bool = True) -> None:
        """Looks what it has cost by now; once after its end, and then no more."""
        async with self._looking:
            if not self._measured_end:
                ended = not self.running.alive
                await asyncio.to_thread(self._measuring.look, write=write or ended)
                self._measured_end = ended

    async def discard(self) -> None:
        """Nobody asks any more what it has cost."""
        self._measured_end = True
        await self._end_keeping()
        await self.running.kill()
        await asyncio.to_thread(self.running.remove)

    async def close(self) -> None:
        """Lets it go on unwatched."""
        self._ending.cancel()
        await asyncio.gather(self._ending, return_exceptions=True)
        await self._end_keeping()
        self.running.release()

    async def _see_end(self) -> None:
        code = await self.running.wait_exit()
        await self.measure()
        self.why = self.blame or _words(code, self.fenced)
        await self._end_keeping()
        self._on_end()

    async def _mind_who_enters(self) -> None:
        """A safekeeper that takes no WAL may have been refused, as our own sessions would be."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.complaint:
                with contextlib.suppress(psycopg.Error, OSError):
                    await self.entering.conninfo()

    async def end(self, why: str) -> None:
        """At once, for a reason that is said."""
        self.blame = why
        await asyncio.shield(self.running.kill())

    async def _fence(self) -> None:
        self.fenced = True
        await asyncio.shield(self.running.kill())

    async def _end_keeping(self) -> None:
        """Before anything is detached, so that nothing is attached anew."""
        self._minding.cancel()
        await asyncio.gather(self._minding, return_exceptions=True)
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


def _words(code: int | None, fenced: bool) -> str:
    if fenced:
        return FENCED
    if code is None:
        return "Postgres ended"
    if code < 0:
        return f"Postgres was killed by {signal.Signals(-code).name}"
    return f"Postgres ended with exit status {code}"


def _keeper(
    running: RunningCompute, wal: WalService, fence: Callable[[], Awaitable[None]]
) -> Keeper | Lookout | None:
    if isinstance(wal, QuorumClient):
        return Keeper(wal, running, fence)
    if isinstance(wal, WalClient):
        record = running.record
        key = record.tenant, record.timeline
        return Lookout(wal, key, record.term, running.for_safekeepers, fence)
    return None
