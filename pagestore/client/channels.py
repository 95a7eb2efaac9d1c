"""Where every client's connection to a service is made: options, and what each call shows.

:func:`open_channel` is for an event loop, :func:`open_blocking_channel` for programs without. Both
give a :class:`Channel`, of which generated stubs are made as of one of grpc's own. A token goes
with each call as metadata; an interceptor of grpc.aio would stand between a stream and each of its
messages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from pagestore.client import tracing
from pagestore.client.addresses import is_near
from pagestore.client.credentials import Credentials
from pagestore.errors import FailedPrecondition

MAX_MESSAGE_BYTES = 64 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The services are on this machine or this network, whatever http_proxy says.
    ("grpc.enable_http_proxy", 0),
    # A server that comes back is found at once, not after minutes of backoff.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    # How long a connection may take to come about: servers on a busy machine are slow to greet.
    ("grpc.min_reconnect_backoff_ms", 1000),
    # A connection that was cut off without a word is noticed, and made anew.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 3000),
]


class Channel:
    """A channel of grpc or grpc.aio whose calls show what `credentials` have at that moment."""

    def __init__(self, channel: Any, credentials: Credentials) -> None:
        self._channel = channel
        self._credentials = credentials

    def unary_unary(self, path: str, *args: Any, **options: Any) -> Callable[..., Any]:
        return self._shown(self._channel.unary_unary(path, *args, **options))

    def unary_stream(self, path: str, *args: Any, **options: Any) -> Callable[..., Any]:
        return self._shown(self._channel.unary_stream(path, *args, **options))

    def stream_unary(self, path: str, *args: Any, **options: Any) -> Callable[..., Any]:
        return self._shown(self._channel.stream_unary(path, *args, **options))

    def stream_stream(self, path: str, *args: Any, **options: Any) -> Callable[..., Any]:
        return self._shown(self._channel.stream_stream(path, *args, **options))

    def _shown(self, method: Callable[..., Any]) -> Callable[..., Any]:
        credentials = self._credentials

        def call(*args: Any, **options: Any) -> Any:
            return method(*args, metadata=tracing.outgoing(credentials.metadata), **options)

        return call

    def close(self) -> Any:
        """To be awaited, where the channel is one of grpc.aio."""
        return self._channel.close()


def open_channel(address: str, credentials: Credentials) -> Channel:
    """To "host:port" or "unix:/path". Use it from one event loop.

    Raises:
        FailedPrecondition: AUTHORITY_UNREADABLE.
    """
    return Channel(_opened(grpc.aio, address, credentials), credentials)


def open_blocking_channel(address: str, credentials: Credentials) -> Channel:
    """To "host:port" or "unix:/path".

    Raises:
        FailedPrecondition: AUTHORITY_UNREADABLE.
    """
    return Channel(_opened(grpc, address, credentials), credentials)


def _opened(library: Any, address: str, credentials: Credentials) -> Any:
    """With TLS, where it leads to another machine."""
    if is_near(address):
        return library.insecure_channel(address, options=_OPTIONS)
    believed = credentials.believed
    try:
        roots = believed.read_bytes() if believed is not None else None
    except OSError as error:
        raise authority_unreadable(believed, error) from error
    return library.secure_channel(address, grpc.ssl_channel_credentials(roots), options=_OPTIONS)


def authority_unreadable(authority: Path | None, error: Exception) -> FailedPrecondition:
    return FailedPrecondition(
        "AUTHORITY_UNREADABLE",
        f"{authority}, by which services on other machines are known, cannot be read: {error}.",
        "Name the authority's certificate: --tls-authority or PAGESTORE_AUTHORITY.",
    )
