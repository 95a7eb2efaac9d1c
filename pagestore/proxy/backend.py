"""A session's own login to a backend, with what the client's SCRAM left.

The backend asks for SCRAM, as it would of anybody who comes from another host, and is answered
from the client's keys. What it says afterwards (its parameters, notices) is the client's to hear;
its cancel key is not: the client gets one of ours, which holds over the next backend too.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from pagestore.pgwire import messages, scram
from pagestore.pgwire.messages import Message, MessageReader, ProtocolViolation, read_error
from pagestore.pgwire.startup import startup_packet
from pagestore.proxy.needs import Need, Read, Send

MAX_BACKEND_MESSAGE = 1 << 20
"""Of what comes before the first ReadyForQuery: notices of a login trigger may be long."""
_OK, _SASL, _CONTINUE, _FINAL = 0, 10, 11, 12
_NONCE_BYTES = 18


@dataclass(frozen=True, slots=True)
class Ready:
    """The first ReadyForQuery came; it is not among `told`."""

    told: bytes = field(repr=False)
    """ParameterStatus and notices, for the client."""
    process: int
    key: bytes = field(repr=False)
    """By which this backend is cancelled."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The backend's own ErrorResponse, as it came."""

    told: bytes = field(repr=False)
    sqlstate: str
    message: str


BackendLogin = Generator[Need, Any, Ready | Declined]


def backend_login(parameters: dict[str, str], keys: scram.Keys) -> BackendLogin:
    """
    Args:
        parameters: of the StartupMessage, ``user`` and ``database`` among them.

    Raises:
        ProtocolViolation: it is no Postgres, or does not know the role's verifier.
    """
    yield Send(startup_packet(parameters))
    reader = MessageReader(MAX_BACKEND_MESSAGE)
    exchange = scram.ClientExchange(
        keys, base64.b64encode(secrets.token_bytes(_NONCE_BYTES)).decode()
    )
    told = bytearray()
    process, key = 0, b""
    while True:
        for message in reader.feed((yield Read())):
            match message.kind:
                case b"R":
                    answer = _authenticate(exchange, message)
                    if answer:
                        yield Send(answer)
                case b"K":
                    process, key = int.from_bytes(message.body[:4], "big"), message.body[4:]
                case b"E":
                    fields = read_error(message.body)
                    sqlstate, text = fields.get("C", "XX000"), fields.get("M", "")
                    return Declined(bytes(told) + message.encode(), sqlstate, text)
                case b"Z":
                    return Ready(bytes(told), process, key)
                case _:
                    told += message.encode()


def _authenticate(exchange: scram.ClientExchange, message: Message) -> bytes:
    """The answer to an authentication request; none to an end of it."""
    code, data = int.from_bytes(message.body[:4], "big"), message.body[4:]
    if code == _SASL:
        if scram.PLAIN.encode() not in data.split(b"\0"):
            raise ProtocolViolation("08P01", "the backend does not offer SCRAM-SHA-256")
        return messages.sasl_initial_response(scram.PLAIN, exchange.first())
    if code == _CONTINUE:
        return messages.sasl_response(exchange.final(data))
    if code == _FINAL and not exchange.check(data):
        raise ProtocolViolation("28000", "the backend does not know the role's verifier")
    if code not in (_OK, _FINAL):
        raise ProtocolViolation("08P01", f"the backend asks for authentication method {code}")
    return b""
