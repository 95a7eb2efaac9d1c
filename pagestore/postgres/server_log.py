"""What a server's log says of one start: the one line that matters.

The log of a timeline goes on from start to start, and its content is the server's, so a tenant's:
it is read from where this start began, bounded, as text. The line that matters is the first that
is FATAL, PANIC or ERROR; sessions that were turned away because of the start itself write such
lines too, and are passed over.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pagestore.errors import Unavailable

_READ_BYTES = 1 << 18
_LONGEST_LINE = 400
_TAIL_LINES = 12
_LOG_MODE = 0o600
_SEVERE = re.compile(r"(?:^|\s)(?P<severity>PANIC|FATAL|ERROR):  (?P<text>.*\S)")
_BYSTANDERS = (
    "the database system is ",
    "terminating connection due to ",
    "no pg_hba.conf entry",
    "canceling authentication due to timeout",
)
_SEE_ABOVE = re.compile(r"configuration file .* contains errors|could not create any .* sockets")
_FAULT_ABOVE = re.compile(r"(?:^|\s)LOG:  (?P<text>.*\S)")


@dataclass(frozen=True, slots=True)
class ServerLog:
    """
    Args:
        begin: where in the file this start began, in bytes.
    """

    path: Path
    begin: int = 0

    @classmethod
    def from_now(cls, path: Path) -> ServerLog:
        """What is written from now on."""
        try:
            return cls(path, path.stat().st_size)
        except OSError:
            return cls(path)

    def lines(self) -> list[str]:
        try:
            with open(self.path, "rb", opener=_without_waiting) as file:
                file.seek(self.begin)
                return _printable(file.read(_READ_BYTES))
        except OSError:
            return []

    @property
    def complaint(self) -> str:
        """The one line that matters; the last one where none is severe, empty where none is."""
        return complaint(self.lines())

    @property
    def place(self) -> str:
        """A hint."""
        return f"The server's log is {self.path}."


def open_log(path: Path) -> BinaryIO:
    """A log to append to, for its owner's eyes: statements and their data stand in it."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, _LOG_MODE)
    os.fchmod(descriptor, _LOG_MODE)
    return os.fdopen(descriptor, "ab")


def complaint(lines: list[str]) -> str:
    """See :attr:`ServerLog.complaint`."""
    before = ""
    for line in lines:
        found = _SEVERE.search(line)
        if found is None:
            other = _FAULT_ABOVE.search(line)
            before = other["text"] if other else before
        elif _SEE_ABOVE.search(line) and before:
            return before[:_LONGEST_LINE]
        elif not found["text"].startswith(_BYSTANDERS):
            return found["text"][:_LONGEST_LINE]
    said = [line for line in lines if line.strip()]
    return said[-1].strip()[:_LONGEST_LINE] if said else ""


def log_tail(log: Path) -> str:
    """The last lines of a server's log, for an error message."""
    try:
        with open(log, "rb", opener=_without_waiting) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _READ_BYTES))
            lines = _printable(file.read(_READ_BYTES))
    except OSError:
        return ""
    return "\n".join(lines[-_TAIL_LINES - 1 :]).strip("\n")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _printable(content: bytes) -> list[str]:
    """Its lines, without what a terminal would obey."""
    lines = content.decode(errors="replace").split("\n")
    return ["".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in x) for x in lines]


class ServerFailed(Unavailable):
    """COMPUTE_FAILED: a server that ended instead of serving.

    Args:
        status: its exit status; None where it is not known; negative for a signal.
    """

    def __init__(self, log: ServerLog, status: int | None) -> None:
        self.complaint = log.complaint
        self.status = status
        code = "" if status is None else f" with status {status}"
        what = f": {self.complaint}" if self.complaint else " without a word."
        super().__init__("COMPUTE_FAILED", f"Postgres exited{code}{what}", log.place)

    @classmethod
    def told(cls, message: str, hint: str, *, complaint: str, status: int | None) -> ServerFailed:
        """As another process has found it."""
        error = cls.__new__(cls)
        Unavailable.__init__(error, "COMPUTE_FAILED", message, hint or None)
        error.complaint, error.status = complaint, status
        return error
