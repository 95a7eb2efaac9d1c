"""A server that waits for whichever database wakes next.

To execute Postgres within walls takes as long as fetching a base backup, and asks for nothing of a
database (:mod:`pagestore.compute.parked`). So after each start the next server is executed, once
the database that was woken has had its first queries; the next start finds it waiting. One a host
and major of Postgres, however many databases sleep: it has no shared memory yet, and does nothing.

None where other hosts reach computes: each has a port and a certificate of its own there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from pagestore import tasks
from pagestore.compute.parked import Parked
from pagestore.compute.start import ComputeSpec, owner_of
from pagestore.errors import PagestoreError

REST_SECONDS = 0.3
"""Until one is executed after a start."""
_log = structlog.get_logger(__name__)


class Spare:
    """Belongs to one event loop; close it at the end.

    Args:
        spec: of a server of a major, for nobody yet.
        authority: as of :meth:`Parked.begin`.
    """

    def __init__(self, spec: Callable[[int], ComputeSpec], authority: Path | None) -> None:
        self._spec = spec
        self._authority = authority
        self._waiting: dict[int, Parked] = {}
        """By major."""
        self._making: dict[int, asyncio.Task[None]] = {}
        self._closing = asyncio.Event()

    def waits(self, major: int) -> bool:
        return major in self._waiting and self._waiting[major].waits

    def has_tried(self, major: int) -> bool:
        """Whether one waits, or none could be had the last time."""
        return major in self._making and self._making[major].done()

    def take(self, wanted: ComputeSpec) -> Parked | None:
        """The one that waits, if it is of the kind that is wanted."""
        found = self._waiting.pop(wanted.major, None)
        if found is None or (found.waits and _is_like(found.spec, wanted)):
            return found
        tasks.errand(_end(found), "end a spare server")
        return None

    def prepare(self, major: int) -> None:
        """Executes one by and by, if there is none."""
        busy = major in self._making and not self.has_tried(major)
        if not (major in self._waiting or busy or self._closing.is_set()):
            self._making[major] = tasks.errand(self._make(major), "execute a spare server")

    async def close(self) -> None:
        self._closing.set()
        await asyncio.gather(*self._making.values(), return_exceptions=True)
        await asyncio.gather(*map(_end, self._waiting.values()))
        self._waiting.clear()

    async def _make(self, major: int) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), REST_SECONDS)
            return
        except TimeoutError:
            pass
        try:
            spec = self._spec(major)
            made = Parked(spec, owner_of(spec))
        except (PagestoreError, OSError) as error:
            _log.info("no spare server", error=str(error))
            return
        try:
            await asyncio.to_thread(made.begin, self._authority)
            entered = await made.enter() is not None
        except (PagestoreError, OSError) as error:
            _log.info("no spare server", error=str(error))
            entered = False
        if entered:
            self._waiting[major] = made
        else:
            await _end(made)


async def _end(parked: Parked) -> None:
    """What cannot be removed now, the next agent removes: nobody waits for it."""
    await parked.end()
    try:
        await asyncio.to_thread(parked.remove)
    except OSError as error:
        _log.warning("a spare server's directory is left", error=str(error))


def _is_like(made: ComputeSpec, wanted: ComputeSpec) -> bool:
    """Whether a server that was executed for one could as well have been for the other."""

    def of(spec: ComputeSpec) -> tuple[object, ...]:
        session = wanted.session and spec.session and spec.session.path
        return (
            *(spec.major, spec.bindir, spec.shim_library, session, spec.page_server),
            *(spec.port, spec.host, spec.walls, spec.network, spec.limits, spec.run_as),
        )

    return of(made) == of(wanted)
