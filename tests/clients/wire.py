"""A client that says exactly what a test has it say, byte by byte."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from pagestore.pgwire.messages import Message, MessageReader, read_error
from pagestore.pgwire.startup import startup_packet
from tests.clients.client import Door
from tests.unit.proxy.play import ScramClient

SECONDS = 20.0
TLS_REQUEST = struct.pack(">II", 8, 80877103)
GSS_REQUEST = struct.pack(">II", 8, 80877104)


class Wire:
    def __init__(self, door: Door) -> None:
        self._door = door
        self.socket: socket.socket = socket.create_connection((door.host, door.port))
        self.socket.settimeout(SECONDS)
        self._reader = MessageReader(1 << 26)
        self.parameters: dict[str, str] = {}
        self.key = b""
        self.process = 0

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say(self, kind: bytes, body: bytes = b"") -> None:
        self.send(Message(kind, body).encode())

    def take(self) -> Message:
        """The next message; raises EOFError behind the last."""
        while (found := self._reader.pop()) is None:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._reader.push(data)
        return found

    def until_ready(self) -> list[Message]:
        """What comes up to ReadyForQuery, which is the last of them."""
        found = [self.take()]
        while found[-1].kind != b"Z":
            found.append(self.take())
        return found

    def error(self) -> dict[str, str]:
        """Of the next message, which is one and the last."""
        message = self.take()
        assert message.kind == b"E", message
        return read_error(message.body)

    def start_tls(self, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(self.socket, server_hostname=self._door.host)

    def log_in(
        self,
        version: tuple[int, int] = (3, 0),
        password: str = "",
        **more: str,
    ) -> list[Message]:
        """Everything that the server says up to ReadyForQuery, or its error."""
        door = self._door
        parameters = {"user": door.user, "database": door.database, **more}
        self.send(startup_packet(parameters, version))
        client = ScramClient(password or door.password)
        found: list[Message] = []
        while not found or found[-1].kind not in (b"Z", b"E"):
            found.append(self.take())
            self._note(found[-1])
            if found[-1].kind == b"R" and (answer := client(found[-1].encode())):
                self.send(answer)
        return found

    def _note(self, message: Message) -> None:
        if message.kind == b"S":
            name, value = message.body.split(b"\0")[:2]
            self.parameters[name.decode()] = value.decode()
        elif message.kind == b"K":
            self.process = int.from_bytes(message.body[:4], "big")
            self.key = message.body[4:]


@contextmanager
def wire(door: Door) -> Iterator[Wire]:
    made = Wire(door)
    try:
        yield made
    finally:
        made.socket.close()
