"""By whom pagestore enters a compute, found anew while it runs.

A compute's pg_hba.conf and its map of peers name one superuser: over the Unix socket our own user
is that role, and nobody else. The role may lose LOGIN or SUPERUSER, get another name or go while
the server runs. Then every session of ours is refused; and so is the next stream of a safekeeper,
which logs in by the same role, so that commits would wait for ever. The server can be asked nothing
any more; the pages of pg_authid say who else is a superuser.

A new one is let in, safekeepers follow under his name, and the record says so last: whoever is
killed in the middle finds the old name there, and does it all again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import psycopg
import structlog

from pagestore.client.page import AsyncPageClient
from pagestore.client.wal import WalClient
from pagestore.client.walservice import WalService
from pagestore.compute.record import ComputeRecord
from pagestore.compute.roles import read_roles
from pagestore.compute.running import RunningCompute
from pagestore.errors import PagestoreError
from pagestore.postgres.operator_session import operator_session
from pagestore.postgres.roles import RoleEntry, roles_to_enter_as, superuser_to_enter_by

RELOAD_SECONDS = 10.0
"""For the server to read its files again."""
_POLL_SECONDS = 0.05

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Entering:
    """Of one running compute."""

    def __init__(self, running: RunningCompute, pages: AsyncPageClient, wal: WalService) -> None:
        self._running, self._pages, self._wal = running, pages, wal
        self._lock = asyncio.Lock()

    async def conninfo(self) -> str:
        """libpq keywords for a superuser who is let in now."""
        return await self.reached(_tried)

    async def reached(self, work: Callable[[str], Awaitable[_T]]) -> _T:
        """What `work` makes of libpq keywords for a superuser; it is begun again with another one's
        if it was refused and there is one.

        Raises:
            psycopg.Error: nobody else is let in either.
        """
        known = self._running.record
        try:
            return await work(known.conninfo())
        except psycopg.OperationalError:
            if not await self.found_anew(known):
                raise
        return await work(self._running.conninfo())

    async def found_anew(self, known: ComputeRecord) -> bool:
        """Whether there is another one than in `known`, who is let in when this returns.

        Raises:
            psycopg.OperationalError: the server does not let him in.
        """
        async with self._lock:
            if self._running.record != known:
                return True  # somebody else has found him meanwhile
            try:
                roles = (await self._roles()).values()
                superuser = superuser_to_enter_by(roles)
                if superuser is None or superuser == known.superuser:
                    return False
                _log.info("another superuser", compute=self._running.directory.name)
                others = roles_to_enter_as(roles, superuser)
                record = await asyncio.to_thread(self._running.let_in, superuser, others)
                await _let_in(record)
                await self._follow(record)
            except PagestoreError as error:
                _log.warning("who may enter is not known", error=str(error))
                return False
            await asyncio.to_thread(self._running.keep, record)
        return True

    async def _roles(self) -> Mapping[str, RoleEntry]:
        record = self._running.record
        status = await self._wal.get_status(record.tenant, record.timeline)
        lsn, _ = await self._wal.align_lsn(record.tenant, record.timeline, status.commit_lsn)
        return await read_roles(self._pages, record.tenant, record.timeline, lsn)

    async def _follow(self, record: ComputeRecord) -> None:
        """Of several safekeepers their keeper sees to those whose stream is broken."""
        before, now = self._running.for_safekeepers(), self._running.for_safekeepers(record)
        if isinstance(self._wal, WalClient) and now != before:
            key = record.tenant, record.timeline
            end = await self._wal.detach_compute(*key, record.term)
            await self._wal.attach_compute(*key, record.term, now, end)


async def _let_in(record: ComputeRecord) -> None:
    """Until he is."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + RELOAD_SECONDS
    while True:
        try:
            await _tried(record.conninfo())
        except psycopg.OperationalError:
            if clock() > deadline:
                raise
        else:
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _tried(conninfo: str) -> str:
    async with await operator_session(conninfo):
        return conninfo
