"""The native relay as asyncio sees it: connections that can be waited for.

The relay's threads tell what happens through one eventfd; here each event finds its
:class:`Link`. While a client logs in, a task waits at its link; once it is joined with a backend
nobody waits, no task exists, and what happens is told to the link's ``watcher``.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import socket
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from pagestore._native import TAKEN_AT_ONCE, Relay, TlsContext
from pagestore.proxy.needs import BeginTls, Need, Read, Send

_T = TypeVar("_T")


QUIET_MS = 10_000
"""Of a session that has been at rest for longer there is nothing new to tell."""


class Event(enum.IntEnum):
    """ps_relay_kind of native/core/relay/relay.h."""

    ACCEPTED = 1
    DATA = 2
    SECURE = 3
    AT_REST = 4
    LEFT = 5
    READABLE = 6
    ENDED = 7


_SAID = frozenset({Event.DATA})
_SECURED = frozenset({Event.SECURE})
_READABLE = frozenset({Event.READABLE})
_PARTED = frozenset({Event.AT_REST, Event.LEFT})
_LEFT = frozenset({Event.LEFT, Event.ENDED})


@dataclass(frozen=True, slots=True)
class Rest:
    """A session between two messages, outside a transaction."""

    spoken: bool
    """Whether its client has said anything since it was joined."""
    unnamed: bytes
    """The body of the Parse message of its unnamed statement."""


class LinkEnded(Exception):
    """The peer has gone, or the relay ended the connection; the text says why, if it is known."""


Watcher = Callable[["Link", Event, bytes], None]


class Link:
    """One connection of the relay. At most one task waits at it."""

    __slots__ = ("_answers", "_ended", "_future", "_relay", "meter", "number", "watcher")

    def __init__(self, relay: Relay, number: int) -> None:
        self.number = number
        self.meter = 0
        """Where its queries are counted."""
        self.watcher: Watcher | None = None
        self._relay = relay
        self._future: asyncio.Future[tuple[Event, bytes]] | None = None
        self._answers: frozenset[Event] = frozenset()
        self._ended: str | None = None

    @property
    def ended(self) -> bool:
        return self._ended is not None

    async def read(self) -> bytes:
        """What the peer says next, at least a byte.

        Raises:
            LinkEnded: it says nothing more.
        """
        _, data = await self._after(_SAID, self._relay.read, self.number)
        return data

    async def ask(self, data: bytes) -> bytes:
        """Sends, and gives what the peer says next. Raises as `read` does."""
        _, answer = await self._after(_SAID, self._relay.ask, self.number, data)
        return answer

    async def begin_tls(self, tls: TlsContext, early: bytes) -> None:
        await self._after(_SECURED, self._relay.begin_tls, self.number, tls, early)

    async def readable(self) -> None:
        """Until the peer says something, which stays unread."""
        await self._after(_READABLE, self._relay.watch, self.number)

    async def part(self) -> Rest | None:
        """Of a joined client: until its session is at rest and parted from its backend, for the
        Parse of its unnamed statement; None if its backend has ended meanwhile.

        Who gives up waiting leaves them joined.
        """
        try:
            event, data = await self._after(_PARTED, self._relay.hold, self.number, False)
        except asyncio.CancelledError:
            self._relay.release(self.number)
            raise
        return Rest(data[:1] == b"\1", data[1:]) if event is Event.AT_REST else None

    def send(self, data: bytes) -> None:
        self._relay.send(self.number, data)

    def join(self, backend: Link, rest: bytes = b"") -> None:
        self._relay.join(self.number, backend.number, self.meter, rest)

    def close(self) -> None:
        self._relay.close(self.number)

    def dismiss(self, words: bytes) -> None:
        """Of a client: closes it after last words, which it hears once what its backend is just
        saying is whole."""
        self._relay.dismiss(self.number, words)

    async def _after(
        self, answers: frozenset[Event], order: Callable[..., None], *arguments: Any
    ) -> tuple[Event, bytes]:
        """The first of `answers` that the relay tells after an order."""
        if self._ended is not None:
            raise LinkEnded(self._ended)
        assert self._future is None, "one waits at a link at a time"
        self._future, self._answers = asyncio.get_running_loop().create_future(), answers
        try:
            order(*arguments)
            return await self._future
        finally:
            self._future = None

    def told(self, event: Event, data: bytes) -> None:
        """An event of the relay's."""
        if event is Event.ENDED:
            self._ended = data.decode(errors="replace")
        answered = self._answer(event, data)
        # That one of the two has left concerns more than whoever waits for them to come to rest.
        if self.watcher is not None and (not answered or event in _LEFT):
            self.watcher(self, event, data)

    def _answer(self, event: Event, data: bytes) -> bool:
        """Whether somebody waited for just this event."""
        future = self._future
        if future is None or future.done():
            return False
        if event is Event.ENDED:
            future.set_exception(LinkEnded(self._ended))
            return True
        if event not in self._answers:
            return False  # brought by an order that was given up
        future.set_result((event, data))
        return True


@dataclass(frozen=True, slots=True)
class Activity:
    """Of one joined session."""

    client: int
    idle_seconds: float
    at_rest: bool
    spoken: bool
    """Whether its client has said anything since it was joined."""


class Links:
    """All connections of one relay; of one event loop."""

    def __init__(
        self,
        accepted: Callable[[Link, str], None],
        *,
        threads: int = 1,
        max_connections: int = 20_000,
        max_logins: int = 2_000,
        full: bytes = b"",
        gone: bytes = b"",
    ) -> None:
        self._accepted = accepted
        self._limit = max_connections * threads
        self._notify = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._relay = Relay(threads, self._notify, max_connections, max_logins, full, gone)
        self._links: dict[int, Link] = {}
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._notify, self._take)

    def __len__(self) -> int:
        return len(self._links)

    def listen(self, listener: socket.socket) -> None:
        """Takes the socket over."""
        self._relay.listen(listener.detach())

    def adopt(self, connected: socket.socket, beside: Link) -> Link:
        """A connection of ours, such as one to a backend, which can be joined with `beside`.

        Raises:
            LinkEnded: there is no room.
        """
        number = self._relay.adopt(connected.detach(), beside.number)
        if number == 0:
            raise LinkEnded("too many connections")
        link = self._links[number] = Link(self._relay, number)
        return link

    def activity(self) -> list[Activity]:
        """Of every joined session that is at work, or was a moment ago; waits for the relay's
        threads, some microseconds."""
        return [
            Activity(client, idle / 1000, at_rest, spoken)
            for client, _, idle, at_rest, spoken in self._relay.sessions(self._limit, QUIET_MS)
        ]

    def queries(self, meter: int) -> int:
        """How often clients with this meter have asked something of their backends."""
        return self._relay.queries(meter)

    def close(self) -> None:
        """Closes every connection."""
        self._closed = True
        self._loop.remove_reader(self._notify)
        self._relay.shut_down()
        os.close(self._notify)
        for link in list(self._links.values()):
            link.told(Event.ENDED, b"the proxy stops")
        self._links.clear()

    def _tell(self, link: Link, event: Event, data: bytes) -> None:
        try:
            link.told(event, data)
        except Exception as error:  # what happens to others must be told all the same
            words = "what happened at a link could not be told"
            self._loop.call_exception_handler({"message": words, "exception": error})

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._notify)
        self._tell_some()

    def _tell_some(self) -> None:
        events = self._relay.take()
        for number, kind, data in events:
            event = Event(kind)
            if event is Event.ACCEPTED:
                link = self._links[number] = Link(self._relay, number)
                self._accepted(link, data.decode())
                continue
            found = self._links.get(number)
            if event is Event.ENDED:
                self._links.pop(number, None)
            if found is not None:
                self._tell(found, event, data)
        if len(events) == TAKEN_AT_ONCE:
            # There may be more, of which nobody tells; others have their turn in between.
            self._loop.call_soon(self._tell_more)

    def _tell_more(self) -> None:
        if not self._closed:
            self._tell_some()


async def drive(
    generator: Generator[Need, Any, _T],
    link: Link,
    *,
    tls: TlsContext | None = None,
    answer: Callable[[Need], Awaitable[object]] | None = None,
) -> _T:
    """Carries out what a login needs, at its link.

    Args:
        answer: to whatever does not concern the link.

    Raises:
        LinkEnded: the peer went before the login came to an end.
    """
    reply: Any = None
    said = b""  # sent together with the next read, which is one order instead of two
    try:
        while True:
            need = generator.send(reply)
            reply = None
            match need:
                case Send(data):
                    said += data
                    continue
                case Read():
                    words, said = said, b""
                    reply = await (link.ask(words) if words else link.read())
                    continue
            if said:
                link.send(said)
                said = b""
            match need:
                case BeginTls(early):
                    assert tls is not None, "a login offers TLS only where there is a certificate"
                    await link.begin_tls(tls, early)
                case _:
                    assert answer is not None, f"nobody answers {need}"
                    reply = await answer(need)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    finally:
        if said:
            link.send(said)
        generator.close()
