"""The control plane's state in the object store, behind its verbs and never in their way.

Each verb is a transaction; what it changed is put into the journal `control/state` within about a
second, several together. While the object store is away verbs go on, and `status` says how far the
journal is behind. What it holds is what the state holds: passwords sealed, the key nowhere.

At its start the control plane claims a generation. It waits for the store no more than a few
seconds, then goes on claiming in the background. One that learns that another has taken over ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future

import structlog

from pagestore import threads_aside
from pagestore.control.state import ControlState
from pagestore.errors import DataLoss, FailedPrecondition, PagestoreError
from pagestore.objects.claims import claim
from pagestore.objects.mirror import Mirror
from pagestore.objects.store import ObjectStore
from pagestore.pauses import Pauses
from pagestore.v1 import page_pb2

PART, JOURNAL = "control", "state"
FIRST_CLAIM_SECONDS = 5.0
PACE_SECONDS = 1.0
"""Between objects, while verbs come one after another."""
LAST_SECONDS = 10.0
"""For what is not there yet, when the control plane stops."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
_log = structlog.get_logger(__name__)


class Archive:
    """
    Raises:
        InvalidInput: OBJECT_STORE_URL
    """

    def __init__(self, state: ControlState, url: str, environ: Mapping[str, str]) -> None:
        self._state = state
        self._store = ObjectStore.open(url, environ)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._running: Future[bool] | None = None
        self._mirror = Mirror(state.storage, self._wake)
        self._error = ""
        # It counts once, and the store may be away until after that.
        self._accepted = state.accepted

    async def begin(self) -> None:
        """Claims a generation, if the store answers soon.

        Raises:
            FailedPrecondition: GENERATION_SUPERSEDED, OBJECT_STORE_CLAIMED, OBJECT_STORE_FOREIGN.
            DataLoss: OBJECT_STORE_AHEAD, OBJECT_CORRUPT.
        """
        try:
            async with asyncio.timeout(FIRST_CLAIM_SECONDS):
                await self._once()
        except TimeoutError:
            self._error = "the object store does not answer"
        except PagestoreError as error:
            self._failed(error)

    async def run(self) -> None:
        """Until cancelled.

        Raises:
            FailedPrecondition: GENERATION_SUPERSEDED and others as of `begin`.
        """
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                if not await self._once():
                    await self._news.wait()
                self._news.clear()
                pauses.reset()
                await asyncio.sleep(PACE_SECONDS)
            except PagestoreError as error:
                self._failed(error)
                await pauses.sleep()

    async def finish(self) -> None:
        """What verbs have changed is there, if the store answers soon."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                while self._mirror.journal is not None and self._mirror.behind_seconds:
                    await self._once()
        except (TimeoutError, PagestoreError) as error:
            _log.warning("the object store lacks the last changes", error=str(error))

    def status(self) -> page_pb2.ObjectStoreStatus:
        journal = self._mirror.journal
        return page_pb2.ObjectStoreStatus(
            url=self._store.url,
            generation=journal.claim.generation if journal is not None else 0,
            behind_bytes=self._mirror.behind,
            behind_seconds=self._mirror.behind_seconds,
            last_error=self._error,
        )

    async def _once(self) -> bool:
        """Whether there is more to do at once."""
        # It goes on when nobody waits for it any more, and then nothing else is begun meanwhile.
        if self._running is None:
            self._running = threads_aside.begin(self._step)
        running = self._running
        try:
            more = await asyncio.shield(asyncio.wrap_future(running))
        finally:
            if running.done():
                self._running = None
        self._error = ""
        return more

    def _step(self) -> bool:
        if self._mirror.journal is None:
            made = claim(self._store, PART, self._state.directory)
            self._mirror.begin(made, JOURNAL, accept_older=self._accepted)
        return self._mirror.step()

    def _failed(self, error: PagestoreError) -> None:
        """
        Raises:
            PagestoreError: what no other attempt will change.
        """
        if (
            isinstance(error, FailedPrecondition | DataLoss)
            and error.reason != "OBJECT_STORE_DENIED"
        ):
            raise error
        if not self._error:
            _log.warning("the object store is behind", error=str(error))
        self._error = str(error)

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._news.set)
