"""A relay with sockets on both sides, driven by a test step by step."""

from __future__ import annotations

import enum
import os
import select
import socket
import ssl
import subprocess
from pathlib import Path
from types import TracebackType

from pagestore._native import Relay, TlsContext

SECONDS = 20.0
FULL = b"too many"
GONE = b"E\0\0\0\x09gone\0"


class Kind(enum.IntEnum):
    ACCEPTED = 1
    DATA = 2
    SECURE = 3
    AT_REST = 4
    LEFT = 5
    READABLE = 6
    ENDED = 7


Event = tuple[int, Kind, bytes]


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


READY = message(b"Z", b"I")


class Driver:
    """`clients` and `backends` are the far ends of what the relay holds."""

    def __init__(self, threads: int = 1, max_connections: int = 100, max_logins: int = 100) -> None:
        self._notify = os.eventfd(0, os.EFD_NONBLOCK)
        self.relay = Relay(threads, self._notify, max_connections, max_logins, FULL, GONE)
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = listener.getsockname()
        self.relay.listen(listener.detach())
        self._waiting: list[Event] = []

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.relay.shut_down()
        os.close(self._notify)

    def event(self, seconds: float = SECONDS) -> Event:
        while not self._waiting:
            assert self._is_told(seconds), "no event came"
            os.eventfd_read(self._notify)
            self._waiting += [
                (number, Kind(kind), data) for number, kind, data in self.relay.take()
            ]
        return self._waiting.pop(0)

    def expect(self, connection: int, kind: Kind) -> bytes:
        found = self.event()
        assert found[:2] == (connection, kind), found
        return found[2]

    def expect_end_of(self, *connections: int) -> None:
        """That these end next, in whatever order."""
        found = [self.event() for _ in connections]
        assert sorted(event[:2] for event in found) == [
            (c, Kind.ENDED) for c in sorted(connections)
        ]

    def quiet(self, seconds: float = 0.05) -> bool:
        return not self._waiting and not self._is_told(seconds)

    def _is_told(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._notify, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def client(self) -> tuple[int, socket.socket]:
        """A client that was accepted: its id, and its own end."""
        far = socket.create_connection(self.address)
        far.settimeout(SECONDS)
        client, kind, data = self.event()
        assert kind is Kind.ACCEPTED
        assert data.decode() == "{}:{}".format(*far.getsockname())
        return client, far

    def backend(self, beside: int) -> tuple[int, socket.socket]:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.settimeout(SECONDS)
        return self.relay.adopt(near.detach(), beside), far

    def pair(self) -> tuple[int, socket.socket, int, socket.socket]:
        client, client_far = self.client()
        backend, backend_far = self.backend(client)
        self.relay.join(client, backend, 0, b"")
        return client, client_far, backend, backend_far


def receive(far: socket.socket, length: int) -> bytes:
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < length:
        piece = far.recv(length - len(data))
        assert piece, f"ended after {bytes(data)!r}"
        data += piece
    return bytes(data)


def make_certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "server.crt", directory / "server.key"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        ["openssl", "req", *options.split(), *names, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return certificate, key


def tls_client(certificate: Path, protocols: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    if protocols is not None:
        context.set_alpn_protocols(protocols)
    return context


def tls_server(certificate: Path, key: Path) -> TlsContext:
    return TlsContext(str(certificate), str(key))
