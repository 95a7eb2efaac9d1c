"""Messages of a session: a type (1 byte), a length (4 bytes, itself included) and a body.

Only what a login and a refusal need is known here; what a session says afterwards is moved, not
read.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_LOGIN_BYTES = 16_384
"""Of one message while somebody logs in: far more than SCRAM needs."""
_HEAD_BYTES = 5
_SASL, _SASL_CONTINUE, _SASL_FINAL = 10, 11, 12


class ProtocolViolation(Exception):
    """What a client said cannot be answered: it is told why, and the connection is closed.

    ``sqlstate`` and the message are Postgres's own where Postgres has one.
    """

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message


@dataclass(frozen=True, slots=True)
class Message:
    kind: bytes
    """One byte."""
    body: bytes

    def encode(self) -> bytes:
        return self.kind + (len(self.body) + 4).to_bytes(4, "big") + self.body


class MessageReader:
    """Takes bytes as they come, gives whole messages, none longer than its bound."""

    def __init__(self, limit: int = MAX_LOGIN_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[Message]:
        """
        Raises:
            ProtocolViolation: 08P01; a length that no message of a login has.
        """
        self.push(data)
        found = []
        while (message := self.pop()) is not None:
            found.append(message)
        return found

    def push(self, data: bytes) -> None:
        """More bytes, of which none is looked at yet."""
        self._buffer += data

    def pop(self) -> Message | None:
        """The next message, if it is whole. Raises as `feed` does."""
        if len(self._buffer) < _HEAD_BYTES:
            return None
        length = int.from_bytes(self._buffer[1:_HEAD_BYTES], "big")
        if not 4 <= length <= self._limit:
            raise ProtocolViolation("08P01", "invalid message length")
        if len(self._buffer) < length + 1:
            return None
        message = Message(bytes(self._buffer[:1]), bytes(self._buffer[_HEAD_BYTES : length + 1]))
        del self._buffer[: length + 1]
        return message

    def has_begun(self) -> bool:
        """Whether there is a part of a message that is not whole yet."""
        return bool(self._buffer)

    def take_rest(self) -> bytes:
        """What came behind the last message that was taken."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def error_response(
    sqlstate: str, message: str, *, severity: str = "FATAL", hint: str = "", detail: str = ""
) -> bytes:
    """An ErrorResponse; text that has a NUL is cut there, as nothing behind it could be read."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message, "D": detail, "H": hint}
    body = b"".join(code.encode() + _text(value) for code, value in fields.items() if value)
    return Message(b"E", body + b"\0").encode()


def read_error(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse's or NoticeResponse's body, by their letters."""
    fields = {}
    for field in body.split(b"\0"):
        if field:
            fields[chr(field[0])] = field[1:].decode(errors="replace")
    return fields


def authentication_ok() -> bytes:
    return _authentication(0)


def sasl_mechanisms(names: list[str]) -> bytes:
    """AuthenticationSASL: the mechanisms that are offered, the best first."""
    return _authentication(_SASL, b"".join(_text(name) for name in names) + b"\0")


def sasl_continue(data: bytes) -> bytes:
    return _authentication(_SASL_CONTINUE, data)


def sasl_final(data: bytes) -> bytes:
    return _authentication(_SASL_FINAL, data)


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    """What a client answers to AuthenticationSASL."""
    return Message(b"p", _text(mechanism) + len(data).to_bytes(4, "big") + data).encode()


def sasl_response(data: bytes) -> bytes:
    return Message(b"p", data).encode()


def read_sasl_initial(body: bytes) -> tuple[str, bytes]:
    """The mechanism that a client chose, and its first data.

    Raises:
        ProtocolViolation: 08P01.
    """
    name, separator, rest = body.partition(b"\0")
    length = int.from_bytes(rest[:4], "big", signed=True)
    if not separator or len(rest) < 4 or len(rest) - 4 != max(length, 0):
        raise ProtocolViolation("08P01", "invalid SASL response")
    return name.decode(errors="replace"), rest[4:]


def backend_key(process: int, key: bytes) -> bytes:
    """BackendKeyData: by what the client may cancel. `key` has 4 to 256 bytes."""
    return Message(b"K", process.to_bytes(4, "big") + key).encode()


def ready_for_query(status: bytes = b"I") -> bytes:
    return Message(b"Z", status).encode()


def _authentication(code: int, data: bytes = b"") -> bytes:
    return Message(b"R", code.to_bytes(4, "big") + data).encode()


def _text(value: str) -> bytes:
    return value.encode(errors="surrogateescape").partition(b"\0")[0] + b"\0"
