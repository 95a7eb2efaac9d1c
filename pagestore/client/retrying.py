"""What the asynchronous clients share: a channel to one service, and calls that wait for it.

A call that finds the service away is repeated, with growing pauses, until `timeout` seconds have
passed. So every call made through it must be idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

import grpc

from pagestore.client.backoff import passes, patiently
from pagestore.client.channels import open_channel
from pagestore.client.closing import Closing
from pagestore.client.credentials import Credentials, default
from pagestore.client.errors import from_rpc_error
from pagestore.errors import PagestoreError, Unavailable

DEFAULT_TIMEOUT = 30.0
LONGEST_PAUSE = 0.25
"""Seconds between two attempts: a service that is back is found by then."""

_T = TypeVar("_T")


class RetryingClient(Closing):
    """A channel to `address` ("host:port"). Use it from one event loop.

    Args:
        timeout: seconds for which a service that is away is waited for.
        credentials: what is shown to it; this process's by default.
    """

    answer_timeout: ClassVar[float] = 60.0
    """Seconds for one answer, once the call has reached the service."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: Credentials | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.credentials = credentials or default()
        self._channel = open_channel(address, self.credentials)

    async def close(self) -> None:
        await self._channel.close()

    async def _call(
        self,
        method: Any,
        request: Any,
        answer: type[_T],
        *,
        answer_timeout: float | None = None,
        patience: float | None = None,
    ) -> _T:
        """One unary call, repeated while the service is away.

        Args:
            patience: seconds for that, where they are not the client's own.
        """

        async def once() -> _T:
            try:
                response = await method(request, timeout=answer_timeout or self.answer_timeout)
            except grpc.RpcError as error:
                raise from_rpc_error(error, self.address) from error
            assert isinstance(response, answer)
            return response

        return await self._retried(once, patience)

    def _may_pass(self, error: Unavailable) -> bool:
        """Whether a call that failed by this is repeated."""
        return passes(error)

    async def _retried(
        self, call: Callable[[], Awaitable[_T]], patience: float | None = None
    ) -> _T:
        seconds = self.timeout if patience is None else patience
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            return await patiently(call, deadline, longest=LONGEST_PAUSE, may_pass=self._may_pass)
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
            raise PagestoreError("CLOSED", "The client is closed.") from error
