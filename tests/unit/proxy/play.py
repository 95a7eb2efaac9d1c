"""Drives a login with scripted peers, without a socket."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pagestore.pgwire import messages, scram
from pagestore.pgwire.messages import MessageReader
from pagestore.pgwire.scram import Keys
from pagestore.pgwire.startup import startup_packet
from pagestore.proxy.needs import BeginTls, FindRole, Need, Read, Role, Send
from pagestore.proxy.target import Target

_T = TypeVar("_T")
SALT = bytes(range(16))
PASSWORD = "correct horse"
KEYS = Keys.of_password(PASSWORD, SALT, 4096)
VERIFIER = KEYS.verifier(SALT, 4096)
CERTIFICATE_HASH = hashlib.sha256(b"a certificate").digest()


class Gone(Exception):
    """The peer had nothing more to say."""


@dataclass
class Peer:
    """Gives its pieces one a Read, and answers what it hears through `heard`."""

    pieces: list[bytes]
    heard: Callable[[bytes], bytes] = lambda data: b""
    role: Role = field(default_factory=lambda: Role(VERIFIER))
    sent: bytearray = field(default_factory=bytearray)
    asked: list[tuple[Target, str]] = field(default_factory=list)
    tls: list[bytes] = field(default_factory=list)

    def play(self, generator: Generator[Need, Any, _T]) -> _T:
        answer: Any = None
        try:
            while True:
                answer = self._answer(generator.send(answer))
        except StopIteration as stop:
            result: _T = stop.value
            return result

    def _answer(self, need: Need) -> Any:
        match need:
            case Read():
                if not self.pieces:
                    raise Gone
                return self.pieces.pop(0)
            case Send(data):
                self.sent += data
                if reply := self.heard(data):
                    self.pieces.append(reply)
            case BeginTls(early):
                self.tls.append(early)
            case FindRole(target, user):
                self.asked.append((target, user))
                return self.role
        return None


class ScramClient:
    """A client's side of a login, with a password."""

    def __init__(self, password: str = PASSWORD, *, plus: bytes | None = None) -> None:
        self._password = password
        self._plus = plus
        self._header = b"p=tls-server-end-point,," if plus is not None else b"n,,"
        self.rest = b""

    def __call__(self, data: bytes) -> bytes:
        out = b""
        for message in MessageReader().feed(data) if data[:1] == b"R" else []:
            code, body = int.from_bytes(message.body[:4], "big"), message.body[4:]
            if code == 10:
                name = scram.PLUS if self._plus is not None else scram.PLAIN
                out += messages.sasl_initial_response(name, self._header + b"n=,r=abc")
            elif code == 11:
                out += messages.sasl_response(self._final(body.decode())) + self.rest
        return out

    def _final(self, server_first: str) -> bytes:
        facts = dict(part.split("=", 1) for part in server_first.split(","))
        salt, iterations = base64.b64decode(facts["s"]), int(facts["i"])
        keys = Keys.of_password(self._password, salt, iterations)
        channel = base64.b64encode(self._header + (self._plus or b"")).decode()
        bare = f"c={channel},r={facts['r']}"
        message = f"n=,r=abc,{server_first},{bare}".encode()
        stored = hashlib.sha256(keys.client_key).digest()
        signature = hmac.digest(stored, message, "sha256")
        proof = bytes(a ^ b for a, b in zip(keys.client_key, signature, strict=True))
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()


def startup(database: str = "app", user: str = "ann", **more: str) -> bytes:
    return startup_packet({"user": user, "database": database, **more})
