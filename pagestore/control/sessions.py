"""What becomes of a database's sessions when its compute is about to end.

The proxy is told before: it parts the sessions from their backends and keeps those that can be
carried, which enter the next compute. It is told of what happens, for the others to hear. A proxy
that does not answer soon keeps nobody from moving: then sessions end with their compute.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import structlog

from pagestore.client.carrying import CarryingClient
from pagestore.control.places import place_of
from pagestore.control.records import DatabaseRecord
from pagestore.errors import PagestoreError
from pagestore.v1 import proxy_pb2 as pb

REST_SECONDS = 1.0
"""For a session at work to come to rest."""
ANSWER_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Sessions(Protocol):
    async def carry_out(
        self, record: DatabaseRecord, message: str, hint: str = "", *, end_all: bool = False
    ) -> None:
        """The caller has the turn of the database's name, and ends its compute next.

        Args:
            message: what sessions that cannot be carried are told.
            end_all: the database goes away, and every session of it.
        """
        ...


class NoSessions:
    """Where there is no proxy."""

    async def carry_out(
        self, record: DatabaseRecord, message: str, hint: str = "", *, end_all: bool = False
    ) -> None:
        pass


class ProxiedSessions:
    def __init__(self, proxy: CarryingClient) -> None:
        self._proxy = proxy

    async def carry_out(
        self, record: DatabaseRecord, message: str, hint: str = "", *, end_all: bool = False
    ) -> None:
        place = place_of(record)
        request = pb.CarryOutRequest(
            place=pb.Place(id=place.id, name=place.name, point=place.point),
            message=message,
            hint=hint,
            wait_ms=int(REST_SECONDS * 1000),
            end_all=end_all,
        )
        try:
            await self._proxy.carry_out(request, ANSWER_SECONDS)
        except PagestoreError as error:
            _log.warning("the proxy was not told", name=record.name, error=str(error))


@contextlib.asynccontextmanager
async def proxied(address: str) -> AsyncIterator[Sessions]:
    """
    Args:
        address: of the proxy's service; empty where there is none.
    """
    if not address:
        yield NoSessions()
        return
    async with CarryingClient(address, timeout=0) as proxy:
        yield ProxiedSessions(proxy)
