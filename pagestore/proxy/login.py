"""From a client's first byte to the proof that it is who it says.

The order is Postgres's own: perhaps a request for encryption, the StartupMessage, SCRAM. Nothing
about a database is said before the proof: who has no password for a role hears the same words,
at the same moment, whether the role or the database exists or not.

What comes before the proof is read by :mod:`pagestore.pgwire` alone, which is bounded.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from pagestore.pgwire import messages, scram
from pagestore.pgwire.messages import Message, MessageReader, ProtocolViolation
from pagestore.pgwire.startup import (
    TLS_RECORD,
    CancelRequest,
    GssRequest,
    Startup,
    StartupReader,
    TlsRequest,
    negotiated,
)
from pagestore.proxy.needs import BeginTls, FindRole, Need, Read, Role, Send
from pagestore.proxy.target import Target

_NONCE_BYTES = 18
_PHYSICAL = frozenset({"true", "on", "yes", "1", "t", "y"})
_NO_REPLICATION = frozenset({"", "false", "off", "no", "0", "f", "n"})


@dataclass(frozen=True, slots=True)
class Security:
    """What the proxy itself has to offer."""

    certificate_hash: bytes | None
    """None: there is no TLS."""
    tls_required: bool = False
    """Where the address is not loopback: nobody logs in in plain text."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody proved to be a role."""

    target: Target
    startup: Startup
    version: tuple[int, int]
    """Of the protocol, as it was agreed upon."""
    keys: scram.Keys = field(repr=False)
    """With which to log in to the backend as this role."""
    rest: bytes = field(default=b"", repr=False)
    """What the client said after its proof already."""


@dataclass(frozen=True, slots=True)
class Refused:
    """To be closed, after it has been told."""

    told: bytes = field(repr=False)
    sqlstate: str
    message: str
    user: str = ""
    """Who tried, for the log; empty when it was not that far."""


Outcome = Admitted | Refused | CancelRequest
Login = Generator[Need, Any, Outcome]


class _Connection:
    """The bytes of one client while it logs in."""

    def __init__(self) -> None:
        self.secure = False
        self.messages = MessageReader()

    def message(self) -> Generator[Need, Any, Message]:
        # One at a time: behind the proof may stand a query of any length.
        while (found := self.messages.pop()) is None:
            self.messages.push((yield Read()))
        return found


def login(security: Security) -> Login:
    """One client's. Never raises for what a client says: that is an outcome."""
    user = ""
    try:
        connection = _Connection()
        packet = yield from _first_packet(connection, security)
        if isinstance(packet, CancelRequest):
            return packet
        user = packet.user
        _check_startup(packet, connection, security)
        version, told = negotiated(packet)
        if told:
            yield Send(told)
        target = Target.parse(packet.database)
        role: Role = yield FindRole(target, user)
        keys = yield from _prove(connection, security, role.verifier)
        if keys is None and role.failure is not None:
            return _refused(*role.failure, user)
        if keys is None:
            return _refused("28P01", f'password authentication failed for user "{user}"', user)
        if role.refusal is not None:
            return _refused(*role.refusal, user)
        return Admitted(target, packet, version, keys, connection.messages.take_rest())
    except ProtocolViolation as error:
        return _refused(error.sqlstate, error.message, user)


def _first_packet(
    connection: _Connection, security: Security
) -> Generator[Need, Any, Startup | CancelRequest]:
    reader = StartupReader()
    data: bytes = yield Read()
    if data[0] == TLS_RECORD and security.certificate_hash is not None:
        yield BeginTls(data)
        connection.secure = True
        data = yield Read()
    while True:
        packet = reader.feed(data)
        match packet:
            case Startup():
                connection.messages.push(reader.take_rest())
                return packet
            case CancelRequest():
                return packet
            case TlsRequest() if security.certificate_hash is not None and not connection.secure:
                yield Send(b"S")
                yield BeginTls()
                connection.secure = True
            case TlsRequest() | GssRequest():
                yield Send(b"N")
        data = yield Read()


def _check_startup(startup: Startup, connection: _Connection, security: Security) -> None:
    if security.tls_required and not connection.secure:
        raise ProtocolViolation("28000", "this address asks for TLS: connect with sslmode=require")
    replication = startup.parameters.get("replication", "").lower()
    if replication in _PHYSICAL:
        raise ProtocolViolation(
            "0A000",
            "physical replication from a pagestore database is not possible: its files are a "
            "cache. `pagestore export` writes a plain data directory.",
        )
    if replication not in _NO_REPLICATION | {"database"}:
        raise ProtocolViolation(
            "22023", f'invalid value for parameter "replication": "{replication}"'
        )


def _prove(
    connection: _Connection, security: Security, verifier: scram.Verifier
) -> Generator[Need, Any, scram.Keys | None]:
    binding = security.certificate_hash if connection.secure else None
    offered = [scram.PLUS, scram.PLAIN] if binding is not None else [scram.PLAIN]
    yield Send(messages.sasl_mechanisms(offered))
    mechanism, data = messages.read_sasl_initial((yield from _password(connection)))
    if mechanism not in offered:
        raise ProtocolViolation("08P01", "client selected an invalid SASL authentication mechanism")
    nonce = base64.b64encode(secrets.token_bytes(_NONCE_BYTES)).decode()
    exchange = scram.ServerExchange(verifier, nonce, binding)
    yield Send(messages.sasl_continue(exchange.first(mechanism, data)))
    done = exchange.final((yield from _password(connection)))
    if done is None:
        return None
    keys, final = done
    yield Send(messages.sasl_final(final))
    return keys


def _password(connection: _Connection) -> Generator[Need, Any, bytes]:
    """The body of a password message, which is what SASL answers come in."""
    message = yield from connection.message()
    if message.kind != b"p":
        raise ProtocolViolation(
            "08P01", f"expected a SASL response, got message type {message.kind[0]}"
        )
    return message.body


def _refused(sqlstate: str, message: str, user: str) -> Refused:
    return Refused(messages.error_response(sqlstate, message), sqlstate, message, user)
