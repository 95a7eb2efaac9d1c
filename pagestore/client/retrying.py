"""What the asynchronous clients share: a channel to one service, and calls that wait for it.

A call that finds the service away is repeated, with growing pauses, until `timeout` seconds have
passed. So every call made through it must be idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

import grpc

from pagestore.client.backoff import patiently
from pagestore.client.closing import Closing
from pagestore.client.errors import from_rpc_error
from pagestore.errors import PagestoreError

MAX_MESSAGE_BYTES = 64 << 20
DEFAULT_TIMEOUT = 30.0

_T = TypeVar("_T")
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The services are on this machine or this network, whatever http_proxy says.
    ("grpc.enable_http_proxy", 0),
    # A server that comes back is found within a second, not after minutes of backoff.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # How long a connection may take to come about: servers on a busy machine are slow to greet.
    ("grpc.min_reconnect_backoff_ms", 1000),
    # A connection that was cut off without a word is noticed, and made anew.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
]


class RetryingClient(Closing):
    """A channel to `address` ("host:port"). Use it from one event loop.

    Args:
        timeout: seconds for which a service that is away is waited for.
    """

    answer_timeout: ClassVar[float] = 60.0
    """Seconds for one answer, once the call has reached the service."""

    def __init__(self, address: str, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.address = address
        self.timeout = timeout
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)

    async def close(self) -> None:
        await self._channel.close(None)

    async def _call(
        self, method: Any, request: Any, answer: type[_T], *, answer_timeout: float | None = None
    ) -> _T:
        """One unary call, repeated while the service is away."""

        async def once() -> _T:
            try:
                response = await method(request, timeout=answer_timeout or self.answer_timeout)
            except grpc.RpcError as error:
                raise from_rpc_error(error, self.address) from error
            assert isinstance(response, answer)
            return response

        return await self._retried(once)

    async def _retried(self, call: Callable[[], Awaitable[_T]]) -> _T:
        deadline = asyncio.get_running_loop().time() + self.timeout
        try:
            return await patiently(call, deadline)
        except asyncio.InvalidStateError as error:
            raise PagestoreError("CLOSED", "The client is closed.") from error
