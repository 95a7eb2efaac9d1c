"""On which port a server listens, where other hosts are to reach it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pagestore.postgres.listening import free_port, is_free
from pagestore.postgres.server_log import ServerFailed
from pagestore.postgres.settings import SOCKET_PORT

TRIES = 3
_T = TypeVar("_T")


async def at_a_port(host: str, start: Callable[[int], Awaitable[_T]]) -> _T:
    """A start at a port that is free now; if somebody takes that first, at another one.

    Args:
        host: where it listens; empty for its own socket alone, of which nobody takes the name.

    Raises:
        ServerFailed: as `start` does, for another reason or too often.
    """
    for left in reversed(range(TRIES)):
        port = free_port(host) if host else SOCKET_PORT
        try:
            return await start(port)
        except ServerFailed:
            if not (left and host) or is_free(port, host):
                raise
    raise AssertionError("the last try returns or raises")
