"""Has a store kept in the object store, in the background: a few layers at a time, and its journal.

It holds up nobody: what is written waits in the backlog, which `behind` tells. What fails by the
world's doing is tried again after pauses that grow, and is told in the log once and in `failure`
until something succeeds. Who has been superseded ends the process: another one writes there now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pagestore.errors import FailedPrecondition, NotFound, PagestoreError, Unavailable
from pagestore.maintenance.offsite import Offsite
from pagestore.pauses import Pauses
from pagestore.threads_aside import Aside

TOGETHER = 4
LOOK_SECONDS = 1.0
CHECK_SECONDS = 30.0
"""How often one who writes nothing looks whether he has been superseded."""
SWEEP_SECONDS = 86400.0
RETRY_SECONDS, MOST_RETRY_SECONDS = 1.0, 60.0
CLOSE_SECONDS = 5.0
SUPERSEDED, DENIED = "GENERATION_SUPERSEDED", "OBJECT_STORE_DENIED"
_log = structlog.get_logger(__name__)


class Uploader:
    """Of one event loop.

    Args:
        make: it, which calls what it is given when there is something to do.
    """

    def __init__(self, make: Callable[[Callable[[], object]], Offsite]) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self.offsite = make(self._wake)
        self._threads = Aside()
        self._started = asyncio.Event()
        self._failures: dict[str, str] = {}
        self._checked_at = self._swept_at = 0.0

    @property
    def failure(self) -> str:
        """Why what was tried last failed; empty when all is well."""
        return next(iter(self._failures.values()), "")

    async def run(self) -> None:
        """Until cancelled. Claims the next generation, as soon as the object store answers.

        Raises:
            FailedPrecondition: GENERATION_SUPERSEDED, OBJECT_STORE_CLAIMED, OBJECT_STORE_FOREIGN,
                OBJECT_STORE_UNCONDITIONAL. DataLoss: OBJECT_STORE_AHEAD.
        """
        pauses = Pauses(RETRY_SECONDS, MOST_RETRY_SECONDS)
        while not self._started.is_set():
            try:
                await self._loop.run_in_executor(self._threads, self.offsite.start)
                self._started.set()
            except (Unavailable, NotFound, FailedPrecondition) as error:
                # Credentials or a bucket that are gone must not keep a page server from serving.
                if isinstance(error, FailedPrecondition) and error.reason != DENIED:
                    raise
                self._note("claim", error)
                await pauses.sleep()
        self._failures.pop("claim", None)
        workers = [self._journal(), *(self._upload() for _ in range(TOGETHER))]
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)

    async def started(self) -> bytes:
        """The object store's id, once a generation is claimed."""
        await self._started.wait()
        return self.offsite.store_id

    async def settle(self, seconds: float) -> bool:
        """Waits until all is there that was written before; False: it took too long."""
        try:
            async with asyncio.timeout(seconds):
                await self._started.wait()
                while not self.offsite.is_whole:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Waits a moment for requests that are under way; a store may be silent for minutes."""
        if not await asyncio.to_thread(self._threads.finish, CLOSE_SECONDS):
            _log.warning("the object store has not answered, and is not waited for")

    def _wake(self) -> None:
        """On any thread."""
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            return  # the loop has ended: nobody waits

    async def _wait(self) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._news.wait()
        except TimeoutError:
            return

    async def _journal(self) -> None:
        pauses = Pauses(RETRY_SECONDS, MOST_RETRY_SECONDS)
        while True:
            try:
                done = await self._loop.run_in_executor(self._threads, self._step)
            except (PagestoreError, OSError) as error:
                self._note("journal", error)
                await pauses.sleep()
                continue
            pauses.reset()
            self._failures.pop("journal", None)
            if done:
                self._news.set()
            else:
                await self._wait()

    def _step(self) -> bool:
        offsite, now = self.offsite, self._loop.time()
        done = offsite.take()
        done |= offsite.journal()
        offsite.clean()
        offsite.mend()
        if not done and now - self._checked_at > CHECK_SECONDS:
            self._checked_at = now
            offsite.check()
        if not done and now - self._swept_at > SWEEP_SECONDS:
            self._swept_at = now
            swept = offsite.sweep(time.time())
            if swept:
                _log.warning("objects that no record names were deleted", objects=swept)
        return done

    async def _upload(self) -> None:
        pauses = Pauses(RETRY_SECONDS, MOST_RETRY_SECONDS)
        while True:
            key = self.offsite.next_layer()
            if key is None:
                await asyncio.sleep(0)
                await self._wait()
                continue
            try:
                await self._loop.run_in_executor(self._threads, self.offsite.upload, key)
            except (PagestoreError, OSError) as error:
                self.offsite.give_back(key)
                self._note("layers", error)
                await pauses.sleep()
            else:
                pauses.reset()
                self._failures.pop("layers", None)

    def _note(self, what: str, error: Exception) -> None:
        if isinstance(error, PagestoreError) and error.reason == SUPERSEDED:
            raise error
        message = error.message if isinstance(error, PagestoreError) else str(error)
        if self._failures.get(what) != message:
            _log.warning("not in the object store yet, and tried again", what=what, error=message)
        self._failures[what] = message
