"""Who may work on a name, and until when.

One verb at a time has a name; different names do not wait for each other. A verb runs to its
end even when its caller hangs up: what is half done helps nobody, and whoever asks again waits
for the turn and finds it done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import structlog

from pagestore import tasks
from pagestore.errors import PagestoreError
from pagestore.ids import TenantId

CLOSE_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
"""Less than a proxy parks a session, or a client waits for its answer."""

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Turns:
    """Of one event loop."""

    def __init__(self) -> None:
        self._locks: defaultdict[tuple[TenantId, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._running: set[asyncio.Task[Any]] = set()
        self._held: dict[tuple[TenantId, str], PagestoreError] = {}

    @contextlib.asynccontextmanager
    async def on(self, tenant: TenantId, *names: str) -> AsyncIterator[None]:
        """Within, no other verb works on these names.

        Raises:
            PagestoreError: what holds one of them takes too long to wait for.
        """
        with contextlib.ExitStack() as stack:
            # In one order for all, so that two verbs on the same two names never wait crosswise.
            for name in sorted(set(names)):
                await self._taken((tenant, name))
                stack.callback(self._locks[tenant, name].release)
            yield

    async def _taken(self, key: tuple[TenantId, str]) -> None:
        """Waits for a lock, but no longer than a while for one who says that he will be long."""
        while True:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._locks[key].acquire()
            except TimeoutError:
                if key in self._held:
                    raise self._held[key].restated() from None
            else:
                return

    @contextlib.contextmanager
    def held(self, tenant: TenantId, name: str, why: PagestoreError) -> Iterator[None]:
        """Within, by who has the turn already and may have it for long: whoever has waited for it a
        while is told why he does not get it."""
        self._held[tenant, name] = why
        try:
            yield
        finally:
            del self._held[tenant, name]

    async def to_its_end(self, verb: Coroutine[Any, Any, _T]) -> _T:
        """Runs a verb so that a caller who hangs up does not cut it short."""
        task = asyncio.create_task(verb)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Starts what nobody waits for; what keeps it from its end is logged, and somebody tries
        again later."""
        task = tasks.errand(_logged(work), "clean up")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Lets what is under way end, within CLOSE_SECONDS."""
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_SECONDS)


async def _logged(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except (PagestoreError, OSError) as error:
        _log.warning("clean-up will be tried again later", error=str(error))
