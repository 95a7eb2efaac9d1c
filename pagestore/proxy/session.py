"""One session: a client that has logged in, and the backend that serves it at the time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field

from pagestore.pgwire import messages
from pagestore.pgwire.messages import Message, MessageReader, ProtocolViolation
from pagestore.pgwire.startup import cancel_packet
from pagestore.proxy.backend import Declined, Ready, backend_login
from pagestore.proxy.cancels import CancelKey
from pagestore.proxy.carrying import CarryFailed, Hindrance, State, dehydrate, overhear, rehydrate
from pagestore.proxy.links import Link, LinkEnded, Links, drive
from pagestore.proxy.login import Admitted
from pagestore.proxy.places import Address, Destination

BACKEND_SECONDS = 30.0
"""For a backend's login: it is awake."""
FULL_QUEUE_SECONDS = 0.005
CANCEL_SECONDS = 10.0
REPLICATES = "a logical replication connection"
WORKS = "a query or a transaction"
CARRY_SECONDS = 5.0
"""For a session to come to rest."""
WRITE_SECONDS = 60.0
"""For its state to be written down."""
GONE = messages.error_response(
    "57P01",
    "the database's server has ended",
    hint="What was not committed is undone. Connect anew: that starts another server.",
)
"""What a client is told whose session ended with its backend."""
_GONE = ("57P01", "57P02")
"""What a server says that stops, or crashed."""
_ROLE_REFUSED = "28"
"""The class of what one says to a role that it does not let in."""
_NO_INNER = "3D000"
"""What one says that has no such database inside."""
_NOT_NOW = "57P03"
"""What it says that starts, recovers, or stops."""


_PARAMETER = b"S"


class BackendGone(Exception):
    """Nobody listens at the address any more, or what does is about to end."""


class NotReady(Exception):
    """What listens there takes nobody in yet: it recovers from the crash of one of its own."""


class NoRoom(Exception):
    """The relay has as many connections as it can have."""


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
    coming: asyncio.Task[None] | None = None
    """Who brings it back to a backend just now."""
    parameters: dict[bytes, bytes] | None = field(default=None, repr=False)
    """What its backend said first of its settings; None while the client has not heard that it
    is in."""

    @property
    def replicates(self) -> bool:
        return self.admitted.startup.parameters.get("replication", "").lower() == "database"

    async def enter(
        self, links: Links, address: Address, attempt: int, said: bytes
    ) -> Declined | None:
        """Logs in to a backend, makes it what the session was, and joins the client with it.

        Args:
            said: by the client, and read already.

        Raises:
            CarryFailed: the backend cannot be made what the session was.
            BackendGone: the place has to be woken anew.
            NotReady: it may be ready in a moment.
            NoRoom: there are too many connections.
        """
        parameters = {**self.admitted.startup.parameters, "database": self.destination.inner}
        link = await _connect(links, address, self.client)
        heard: list[Message] = []
        try:
            async with asyncio.timeout(BACKEND_SECONDS):
                outcome = await drive(backend_login(parameters, self.admitted.keys), link)
                if self.state is not None and isinstance(outcome, Ready):
                    await drive(rehydrate(self.state, heard.append), link)
        except CarryFailed as error:
            link.close()
            if error.sqlstate in _GONE:
                raise BackendGone(str(error)) from error
            raise
        except (LinkEnded, ProtocolViolation, TimeoutError) as error:
            link.close()
            raise BackendGone(str(error)) from error
        if isinstance(outcome, Declined):
            link.close()
            if outcome.sqlstate == _NOT_NOW:
                raise NotReady(outcome.message)
            if outcome.sqlstate in _GONE:
                raise BackendGone(outcome.message)
            if self.state is not None:
                _refuse_return(outcome)
            return outcome
        self._welcome(outcome, heard)
        self.address, self.attempt, self.backend = address, attempt, outcome
        self.backend_link = link
        self.client.join(link, said)
        return None

    async def take_down(
        self, seconds: float = CARRY_SECONDS, patience: float = WRITE_SECONDS
    ) -> str:
        """Parts it from its backend and writes its state down; why not, where that cannot be.

        Args:
            seconds: for it to come to rest.
            patience: for its backend to answer, which may have to wait for a page server that
                starts anew; a session whose backend does not is lost.

        Afterwards either :meth:`go_on` with the same backend, or :meth:`let_go` of it.
        """
        assert self.backend_link is not None, "a session without a backend is down already"
        assert not self.going_down, "one takes a session down at a time"
        if self.replicates:  # whose backend takes no messages of ours either
            self.tried = True
            return REPLICATES
        self.tried, self.going_down, self.spoke = True, True, False
        backend, parted = self.backend_link, False
        try:
            async with asyncio.timeout(seconds) as limit:
                rest = await self.client.part()
                if rest is None:
                    return ""  # its backend has left, which the front was told
                parted = True
                if rest.spoken:
                    self.state = None
                limit.reschedule(asyncio.get_running_loop().time() + patience)
                outcome = await drive(dehydrate(rest.unnamed, self._hear), backend)
        except TimeoutError:
            self.state = None
            if parted:  # its answer may still come, and would reach the client
                self.lose(GONE)
                return ""
            return WORKS
        except CarryFailed as error:
            if error.sqlstate in _GONE and not self.client.ended:
                self._fall_back()
                return ""
            self.state = None
            return str(error)
        except LinkEnded:
            if parted and not self.client.ended:
                self._fall_back()
            return ""
        finally:
            self.going_down = False
        self.state = None if isinstance(outcome, Hindrance) else outcome
        return outcome.words if isinstance(outcome, Hindrance) else ""

    def _fall_back(self) -> None:
        """Its backend has gone instead of answering: what it was before holds, if it is known."""
        if self.state is None:
            self.lose(GONE)
        else:
            self.let_go()

    async def hear_all(self) -> None:
        """Of a session that was taken down: its backend's notifications, before it goes."""
        if self.state is None or not self.state.listens or self.backend_link is None:
            return
        with contextlib.suppress(LinkEnded, TimeoutError):
            async with asyncio.timeout(CARRY_SECONDS):
                await drive(overhear(self._hear), self.backend_link)

    def go_on(self) -> None:
        """Joins it with its backend again, from which it was parted."""
        if self.backend_link is not None:
            self.spoke = False
            self.client.join(self.backend_link)

    def lose(self, words: bytes) -> None:
        """Ends it: its backend has gone, and what it was is not known."""
        # In this order: while it is joined, the end of its backend would be its own.
        self.client.dismiss(words)
        self.let_go()

    def let_go(self) -> None:
        """Ends its backend; the session lives on in its state."""
        if self.backend_link is not None:
            self.backend_link.send(messages.Message(b"X", b"").encode())
            self.backend_link.close()
        self.backend, self.backend_link, self.address = None, None, None

    def _welcome(self, ready: Ready, heard: list[Message]) -> None:
        """
        Args:
            heard: while its state was restored: settings are then what the client made them.
        """
        before, self.parameters = self.parameters, _parameters(ready.told)
        if before is None:
            key = messages.backend_key(self.cancel_key.process, self.cancel_key.key)
            self.client.send(ready.told + key + messages.ready_for_query())
            return
        restored = {_name(message) for message in heard if message.kind == _PARAMETER}
        for name, body in self.parameters.items():
            if name not in restored and before.get(name) != body:
                self._hear(Message(_PARAMETER, body))  # another default than when it came
        for message in heard:
            if message.kind != _PARAMETER:
                self._hear(message)

    def _hear(self, message: Message) -> None:
        self.client.send(message.encode())

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


def _refuse_return(declined: Declined) -> None:
    """Of a session that slept: what Postgres says to who logs in explains nothing to who has been
    in for hours. Its role, or its inner database, is not where the database stands by now.

    Raises:
        CarryFailed: it is so.
    """
    if declined.sqlstate[:2] == _ROLE_REFUSED:
        raise CarryFailed(f"its role cannot log in as the database is now: {declined.message}")
    if declined.sqlstate == _NO_INNER:
        raise CarryFailed(declined.message)


def _parameters(told: bytes) -> dict[bytes, bytes]:
    """The bodies of what a backend says of its settings, by their names."""
    found = MessageReader(len(told) + 1).feed(told)
    return {_name(message): message.body for message in found if message.kind == _PARAMETER}


def _name(message: Message) -> bytes:
    return message.body.partition(b"\0")[0]


async def _open(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.socket is not None:
        return await asyncio.open_unix_connection(str(address.socket))
    return await asyncio.open_connection(address.host, address.port)


async def _connect(links: Links, address: Address, beside: Link) -> Link:
    """
    Raises:
        BackendGone: nobody listens there.
        NoRoom: the relay has none.
    """
    family = socket.AF_UNIX if address.socket is not None else socket.AF_INET
    where = str(address.socket) if address.socket is not None else (address.host, address.port)
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if address.socket is None:
            await asyncio.get_running_loop().sock_connect(connection, where)
        else:
            await _connect_unix(connection, str(where))
    except (OSError, TimeoutError) as error:
        connection.close()
        raise BackendGone(f"{where}: {error}") from error
    try:
        return links.adopt(connection, beside)
    except LinkEnded as error:
        raise NoRoom from error


async def _connect_unix(connection: socket.socket, where: str) -> None:
    """At once, or as soon as the server has taken up some of those that wait before us: a Unix
    socket whose queue is full does not tell when it is not any more."""
    try:
        connection.connect(where)
        return
    except BlockingIOError:
        pass
    async with asyncio.timeout(BACKEND_SECONDS):
        while True:
            await asyncio.sleep(FULL_QUEUE_SECONDS)
            with contextlib.suppress(BlockingIOError):
                connection.connect(where)
                return
