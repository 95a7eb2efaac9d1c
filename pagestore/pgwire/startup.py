"""The packets that come before a session: what a client may say first.

A packet is a length (4 bytes, itself included), a code (4 bytes) and a body. Four codes are
known: three requests with a fixed code, and the protocol version of a StartupMessage, whose body
is a list of NUL-terminated names and values with an empty name behind the last.

A client may ask for TLS, for GSSAPI encryption, or both in turn, each once, and begins its
session inside what it got. Nothing may follow a request for encryption in plain text: what
somebody slipped in there would be read as if it had come encrypted (CVE-2021-23214).

Invariant: whatever the bytes, at most :data:`MAX_PACKET_BYTES` of them are kept.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field

from pagestore.pgwire.messages import ProtocolViolation

MAX_PACKET_BYTES = 10_000
"""As Postgres's own bound of a StartupMessage."""
CANCEL_KEY_BYTES = range(4, 257)
TLS_RECORD = 0x16
"""The first byte of a TLS handshake; no packet begins with it, since none is that long."""

OLDEST, NEWEST = (3, 0), (3, 2)
"""Protocol versions that are spoken: (major, minor)."""

_HEAD = struct.Struct(">II")
_EXTENSION = "_pq_."


class _Code(enum.IntEnum):
    CANCEL = 80877102
    TLS = 80877103
    GSS = 80877104


TLS_REQUEST = _HEAD.pack(_HEAD.size, _Code.TLS)
"""As a client sends it."""


@dataclass(frozen=True, slots=True)
class TlsRequest:
    """Answered by one byte: S, and TLS follows, or N."""


@dataclass(frozen=True, slots=True)
class GssRequest:
    """GSSAPI encryption; answered by N."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    process: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Startup:
    version: tuple[int, int]
    """As the client asked for it; see :func:`negotiated`."""
    parameters: dict[str, str]
    """Names in the client's order, without those of protocol extensions."""
    extensions: tuple[str, ...]
    """Names of the protocol extensions it asked for (``_pq_.…``); none is known."""

    @property
    def user(self) -> str:
        return self.parameters["user"]

    @property
    def database(self) -> str:
        """As Postgres has it: the user's name where none is given."""
        return self.parameters.get("database") or self.user


Packet = TlsRequest | GssRequest | CancelRequest | Startup


class StartupReader:
    """Takes bytes as they come, gives packets; one a connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._asked: set[type[Packet]] = set()

    def feed(self, data: bytes) -> Packet | None:
        """The next packet; None while it is not whole.

        Raises:
            ProtocolViolation: 08P01, 0A000; the connection is to be closed.
        """
        self._buffer += data
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if not _HEAD.size <= length <= MAX_PACKET_BYTES:
            raise ProtocolViolation("08P01", "invalid length of startup packet")
        if len(self._buffer) < length:
            return None
        packet = _parse(bytes(self._buffer[:length]))
        del self._buffer[:length]
        self._check_order(packet)
        return packet

    def take_rest(self) -> bytes:
        """What came behind a Startup: it belongs to the login."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _check_order(self, packet: Packet) -> None:
        if not isinstance(packet, TlsRequest | GssRequest):
            return
        if type(packet) in self._asked:
            raise ProtocolViolation("08P01", "encryption was asked for twice")
        if self._buffer:
            raise ProtocolViolation(
                "08P01", "received unencrypted data after a request for encryption"
            )
        self._asked.add(type(packet))


def negotiated(startup: Startup) -> tuple[tuple[int, int], bytes]:
    """The version that is spoken, and what tells the client so; no bytes where it got its wish."""
    spoken = min(startup.version, NEWEST)
    if spoken == startup.version and not startup.extensions:
        return spoken, b""
    names = b"".join(name.encode(errors="surrogateescape") + b"\0" for name in startup.extensions)
    body = struct.pack(">HHI", *spoken, len(startup.extensions)) + names
    return spoken, b"v" + (len(body) + 4).to_bytes(4, "big") + body


def startup_packet(parameters: dict[str, str], version: tuple[int, int] = OLDEST) -> bytes:
    """A StartupMessage, as a client sends it."""
    pairs = "".join(f"{name}\0{value}\0" for name, value in parameters.items())
    body = struct.pack(">HH", *version) + pairs.encode(errors="surrogateescape") + b"\0"
    return (len(body) + 4).to_bytes(4, "big") + body


def cancel_packet(process: int, key: bytes) -> bytes:
    """A CancelRequest, as a client sends it."""
    return struct.pack(">III", 12 + len(key), _Code.CANCEL, process) + key


def _parse(packet: bytes) -> Packet:
    length, code = _HEAD.unpack_from(packet)
    body = packet[_HEAD.size :]
    match code:
        case _Code.TLS | _Code.GSS if length != _HEAD.size:
            raise ProtocolViolation("08P01", "invalid length of startup packet")
        case _Code.TLS:
            return TlsRequest()
        case _Code.GSS:
            return GssRequest()
        case _Code.CANCEL:
            if len(body) - 4 not in CANCEL_KEY_BYTES:
                raise ProtocolViolation("08P01", "invalid length of cancel request packet")
            return CancelRequest(int.from_bytes(body[:4], "big"), body[4:])
    return _startup((code >> 16, code & 0xFFFF), body)


def _startup(version: tuple[int, int], body: bytes) -> Startup:
    if version[0] != OLDEST[0]:
        raise ProtocolViolation(
            "0A000",
            f"unsupported frontend protocol {version[0]}.{version[1]}: server supports "
            f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}",
        )
    pairs = _pairs(body)
    extensions = tuple(name for name in pairs if name.startswith(_EXTENSION))
    parameters = {name: value for name, value in pairs.items() if name not in extensions}
    if not parameters.get("user"):
        raise ProtocolViolation("28000", "no PostgreSQL user name specified in startup packet")
    return Startup(version, parameters, extensions)


def _pairs(body: bytes) -> dict[str, str]:
    """The list of a StartupMessage; of a name that comes twice the last value, as in Postgres."""
    layout = ProtocolViolation(
        "08P01", "invalid startup packet layout: expected terminator as last byte"
    )
    if body == b"\0":
        return {}
    if not body.endswith(b"\0\0"):
        raise layout
    words = body[:-2].split(b"\0")
    if len(words) % 2 or b"" in words[::2]:
        raise layout
    # Not all clusters are in UTF-8: what is not comes out again as it came in.
    decoded = [word.decode(errors="surrogateescape") for word in words]
    return dict(zip(decoded[::2], decoded[1::2], strict=True))
