"""One session: a client that has logged in, and the backend that serves it at the time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field

from pagestore.pgwire import messages
from pagestore.pgwire.messages import ProtocolViolation
from pagestore.pgwire.startup import cancel_packet
from pagestore.proxy.backend import Declined, Ready, backend_login
from pagestore.proxy.cancels import CancelKey
from pagestore.proxy.carrying import CarryFailed, Hindrance, State, dehydrate, rehydrate
from pagestore.proxy.links import Link, LinkEnded, Links, drive
from pagestore.proxy.login import Admitted
from pagestore.proxy.places import Address, Destination

BACKEND_SECONDS = 30.0
"""For a backend's login: it is awake."""
CANCEL_SECONDS = 10.0
CARRY_SECONDS = 5.0
"""For a session to come to rest and be written down."""
GONE = messages.error_response("57P01", "the database's server has ended")
"""What a client is told whose session ended with its backend."""
_GONE = ("57P01", "57P02", "57P03")
"""What a server says that stops, crashed, or has not yet started."""


class BackendGone(Exception):
    """Nobody listens at the address any more, or what does is about to end."""


@dataclass(slots=True, eq=False)
class Session:
    """`eq=False`: a session is itself, and nothing else."""

    client: Link
    admitted: Admitted
    destination: Destination
    cancel_key: CancelKey
    attempt: int = 0
    """Of the start of the place at which its backend is; 0 without one."""
    address: Address | None = None
    backend: Ready | None = field(default=None, repr=False)
    """How its backend is cancelled; None without one."""
    backend_link: Link | None = None
    state: State | None = None
    """What it was when it last was taken down; of use while its client says nothing."""
    tried: bool = False
    """Whether its state was asked for since its client last spoke."""
    going_down: bool = False
    spoke: bool = False
    """Whether the client has spoken while it was being taken down."""
    entering: bool = False
    """Whether somebody brings it to a backend just now."""
    told: bool = False
    """Whether the client has heard that it is in."""

    async def enter(self, links: Links, address: Address, attempt: int) -> Declined | None:
        """Logs in to a backend, makes it what the session was, and joins the client with it.

        Raises:
            CarryFailed: the backend cannot be made what the session was.
            BackendGone: the place has to be woken anew.
            LinkEnded: the client is gone.
        """
        parameters = {**self.admitted.startup.parameters, "database": self.destination.inner}
        link = await _connect(links, address, self.client)
        try:
            async with asyncio.timeout(BACKEND_SECONDS):
                outcome = await drive(backend_login(parameters, self.admitted.keys), link)
                if self.state is not None and isinstance(outcome, Ready):
                    await drive(rehydrate(self.state), link)
        except CarryFailed:
            link.close()
            raise
        except (LinkEnded, ProtocolViolation, TimeoutError) as error:
            link.close()
            raise BackendGone(str(error)) from error
        if isinstance(outcome, Declined):
            link.close()
            if outcome.sqlstate in _GONE:
                raise BackendGone(outcome.message)
            return outcome
        self._welcome(outcome)
        self.address, self.attempt, self.backend = address, attempt, outcome
        self.backend_link = link
        self.client.join(link, b"" if self.state is not None else self.admitted.rest)
        return None

    async def take_down(self, seconds: float = CARRY_SECONDS) -> str:
        """Parts it from its backend and writes its state down; why not, where that cannot be.

        Afterwards either :meth:`go_on` with the same backend, or :meth:`let_go` of it.
        """
        assert self.backend_link is not None, "a session without a backend is down already"
        assert not self.going_down, "one takes a session down at a time"
        self.tried, self.going_down, self.spoke = True, True, False
        backend, parted = self.backend_link, False
        try:
            async with asyncio.timeout(seconds):
                unnamed = await self.client.part()
                if unnamed is None:
                    return ""  # its backend has left, which the front was told
                parted = True
                outcome = await drive(dehydrate(unnamed), backend)
        except TimeoutError:
            self.state = None
            if parted:  # its answer may still come, and would reach the client
                self.lose(GONE)
                return ""
            return "a query or a transaction"
        except CarryFailed as error:
            self.state = None
            return str(error)
        except LinkEnded:
            if parted and not self.client.ended:
                self.lose(GONE)
            return ""
        finally:
            self.going_down = False
        self.state = None if isinstance(outcome, Hindrance) else outcome
        return outcome.words if isinstance(outcome, Hindrance) else ""

    def go_on(self) -> None:
        """Joins it with its backend again, from which it was parted."""
        self.spoke = False
        if self.backend_link is not None:
            self.client.join(self.backend_link)

    def lose(self, words: bytes) -> None:
        """Ends it: its backend has gone, and what it was is not known."""
        self.let_go()
        self.client.send(words)
        self.client.close()

    def let_go(self) -> None:
        """Ends its backend; the session lives on in its state."""
        if self.backend_link is not None:
            self.backend_link.send(messages.Message(b"X", b"").encode())
            self.backend_link.close()
        self.backend, self.backend_link, self.address = None, None, None

    def _welcome(self, ready: Ready) -> None:
        if self.told:
            return
        self.told = True
        key = messages.backend_key(self.cancel_key.process, self.cancel_key.key)
        self.client.send(ready.told + key + messages.ready_for_query())

    async def cancel(self) -> None:
        """Cancels what its backend does now; returns when the backend's server has heard it."""
        if self.backend is None or self.address is None:
            return
        packet = cancel_packet(self.backend.process, self.backend.key)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                reader, writer = await _open(self.address)
                writer.write(packet)
                # The server closes once it has signalled: not before may the client go on, or
                # its next query could be the one that is hit.
                await reader.read()
                writer.close()


async def _open(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.socket is not None:
        return await asyncio.open_unix_connection(str(address.socket))
    return await asyncio.open_connection(address.host, address.port)


async def _connect(links: Links, address: Address, beside: Link) -> Link:
    """
    Raises:
        BackendGone: nobody listens there.
        LinkEnded: the relay has no room.
    """
    family = socket.AF_UNIX if address.socket is not None else socket.AF_INET
    where = str(address.socket) if address.socket is not None else (address.host, address.port)
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(connection, where)
    except OSError as error:
        connection.close()
        raise BackendGone(f"{where}: {error.strerror}") from error
    return links.adopt(connection, beside)
