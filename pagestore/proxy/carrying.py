"""Takes the state of an idle session out of its backend, and puts it into another.

Both are spoken to the backend in the session's own connection, at rest, in the extended protocol
and under a name of our own: a simple query would drop the client's unnamed statement.
native/postgres/session is the other side; it seals the state, so nobody but a backend makes one.

Meanwhile the backend may say what is the client's to hear, above all a notification. It is handed
on, message by message; nothing is lost between two backends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from pagestore.pgwire.messages import Message, MessageReader, read_error
from pagestore.proxy.needs import Need, Read, Send

MAX_STATE_BYTES = 16 << 20
"""Of one message: thousands of prepared statements."""
_NAME = b"_pagestore\0"
_SETTING = "pagestore_session.state"
_CLOSE = b"S" + _NAME
_HEARD = frozenset({b"A", b"N", b"S"})
"""Of messages that may come at any time, and answer nothing."""

Hear = Callable[[Message], None]


class CarryFailed(Exception):
    """A backend did not say, or did not take, the state of a session; the text says why."""

    def __init__(self, words: str, sqlstate: str = "") -> None:
        super().__init__(words)
        self.sqlstate = sqlstate


@dataclass(frozen=True, slots=True)
class State:
    """A session between two backends."""

    sealed: str = field(repr=False)
    """In hexadecimal."""
    unnamed: bytes = field(default=b"", repr=False)
    """The body of the Parse message of its unnamed statement."""
    listens: bool = False
    """Whether it waits for notifications, and so must be back before anybody can notify."""


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why a session cannot be carried now."""

    words: str


def dehydrate(unnamed: bytes, hear: Hear) -> Generator[Need, Any, State | Hindrance]:
    """
    Args:
        hear: what is the client's.

    Raises:
        CarryFailed: the backend knows nothing of sessions.
    """
    # A cancel request may have hit the last one, whose statement is still there then.
    yield Send(
        _message(b"C", _CLOSE)
        + _run(_NAME, f"SHOW {_SETTING}")
        + _message(b"C", _CLOSE)
        + _message(b"S")
    )
    text = ""
    for message in (yield from _answers(hear)):
        if message.kind == b"D":
            text = message.body[6:].decode("ascii", errors="replace")
    if text[:1] in ("+", "*"):
        return State(text[1:], unnamed, listens=text[0] == "*")
    return Hindrance(text[1:] or "it gave no state")


def rehydrate(state: State, hear: Hear) -> Generator[Need, Any, None]:
    """
    Raises:
        CarryFailed: the backend does not take the state.
    """
    yield Send(_run(b"\0", f"SET {_SETTING} = '{state.sealed}'") + _message(b"S"))
    yield from _answers(hear)
    if state.unnamed:
        yield Send(_message(b"P", state.unnamed) + _message(b"S"))
        # Where it does not fit any more, the client hears so when it binds.
        yield from _answers(hear, strict=False)


def overhear(hear: Hear) -> Generator[Need, Any, None]:
    """What a backend has to say before it goes: nothing of it comes later."""
    yield Send(_message(b"S"))
    yield from _answers(hear, strict=False)


def _run(name: bytes, text: str) -> bytes:
    """Parse, Bind and Execute, of a statement and a portal of one name."""
    return (
        _message(b"P", name + text.encode() + b"\0\0\0")
        + _message(b"B", name + name + b"\0\0\0\0\0\0")
        + _message(b"E", name + b"\0\0\0\0")
    )


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return Message(kind, body).encode()


def _answers(hear: Hear, *, strict: bool = True) -> Generator[Need, Any, list[Message]]:
    """Everything up to ReadyForQuery, and no half message behind it is left unread."""
    reader = MessageReader(MAX_STATE_BYTES)
    found: list[Message] = []
    fault: CarryFailed | None = None
    ready = False
    while not ready or reader.has_begun():
        for message in reader.feed((yield Read())):
            if message.kind in _HEARD:
                hear(message)
                continue
            if message.kind == b"E" and strict:
                said = read_error(message.body)
                fault = CarryFailed(said.get("M", "it gave an error"), said.get("C", ""))
            ready = ready or message.kind == b"Z"
            found.append(message)
    if fault is not None:
        raise fault
    return found
