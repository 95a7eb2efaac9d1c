"""Looks after the only safekeeper of a running compute.

There is nobody to choose or to bring in. But its clients wait in their commits while it is away or
its disk fails, and for ever once somebody else has been promised a higher term. The one is said;
the other ends the compute, so that its clients get an error instead. One that does not believe
the compute's address any more, since the keys have changed twice, is told it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from pagestore.client.wal import WalClient
from pagestore.errors import PagestoreError
from pagestore.quorum.safekeepers import Key
from pagestore.v1 import wal_pb2 as pb

AMISS_SECONDS = 1.0
WELL_SECONDS = 5.0
ANSWER_SECONDS = 2.0
_log = structlog.get_logger(__name__)


class Lookout:
    """Of one compute, which writes in `term`.

    Args:
        address: where it is found, signed as of now.
        fenced: called once, when the compute cannot commit any more.
    """

    def __init__(
        self,
        wal: WalClient,
        key: Key,
        term: int,
        address: Callable[[], str],
        fenced: Callable[[], Awaitable[None]],
    ) -> None:
        self.complaint = ""
        self._wal, self._key, self._term = wal, key, term
        self._address, self._fenced = address, fenced

    async def run(self) -> None:
        """Until cancelled, or the compute is fenced."""
        while True:
            status, complaint = await self._ask()
            if status is not None and status.term > self._term:
                _log.warning("a compute is fenced", timeline=str(self._key[1]), term=self._term)
                await self._fenced()
                return
            if complaint and complaint != self.complaint:
                _log.info("safekeeper is amiss", timeline=str(self._key[1]), error=complaint)
            self.complaint = complaint
            await asyncio.sleep(AMISS_SECONDS if complaint else WELL_SECONDS)

    async def _ask(self) -> tuple[pb.WalTimelineStatus | None, str]:
        """What it says, and what is amiss."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await self._wal.get_status(*self._key)
        except TimeoutError:
            address = self._wal.address
            return None, f"The safekeeper {address} has not answered within {ANSWER_SECONDS:g} s."
        except PagestoreError as error:
            return None, str(error)
        if status.receiving or not status.last_error:
            return status, ""
        if status.term == self._term:
            with contextlib.suppress(PagestoreError):
                # Nothing, where it is known there, word by word.
                await self._wal.attach_compute(
                    *self._key, self._term, self._address(), status.flush_lsn
                )
        return status, f"Commits wait: the safekeeper takes no WAL: {status.last_error}."
