"""What can go wrong, in words a user can act on.

Every error carries a stable machine-readable ``reason`` (the same string that gRPC's
ErrorInfo and in-band statuses carry), a sentence that says what happened and where, and,
where there is one, a hint: what to do about it.

The classes are the one table of kinds: a kind's ``code`` is its google.rpc.Code, ``exit_code`` what
the command line ends with. :data:`NATIVE` says what the core's status codes mean, and
:func:`of_exception` what anything else does that was raised: whatever crosses a border to a user (a
service's answer, the command line) is one of these.
"""

from __future__ import annotations

import enum
import errno
import sys
from collections.abc import Mapping
from typing import Self


class PagestoreError(Exception):
    """The root of all errors raised by pagestore.

    ``reason`` is UPPER_SNAKE_CASE and never changes once released; ``code`` is the name of
    the google.rpc.Code that a service answers with, ``exit_code`` the command line's status.
    """

    code = "INTERNAL"
    exit_code = 1

    def __init__(self, reason: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message

    def last_words(self) -> str:
        """Lines by which a command or a part ends."""
        hint = f"hint: {self.hint}\n" if self.hint else ""
        return f"error: {self.message}\n{hint}"

    def restated(self, *, message: str | None = None, hint: str | None = None) -> Self:
        """The same error in other words; a subclass may be made of other things than words."""
        # copy.copy would call the constructor, with the message alone.
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.message = self.message if message is None else message
        other.hint = self.hint if hint is None else hint
        other.args = (other.message,)
        return other


class InvalidInput(PagestoreError):
    """The caller's argument can never be right, whatever the state."""

    code = "INVALID_ARGUMENT"
    exit_code = 2


class NotFound(PagestoreError):
    code = "NOT_FOUND"
    exit_code = 3


class AlreadyExists(PagestoreError):
    code = "ALREADY_EXISTS"
    exit_code = 4


class FailedPrecondition(PagestoreError):
    """Right in itself, but not in this state; the hint says what must come first."""

    code = "FAILED_PRECONDITION"
    exit_code = 4


class OutOfRange(PagestoreError):
    """A block or an LSN beyond what exists."""

    code = "OUT_OF_RANGE"
    exit_code = 3


class DeadlineExceeded(PagestoreError):
    code = "DEADLINE_EXCEEDED"
    exit_code = 5


class Unavailable(PagestoreError):
    """Away for now; the same call may succeed later."""

    code = "UNAVAILABLE"
    exit_code = 5


class ResourceExhausted(PagestoreError):
    """A stated limit, or the disk, is full."""

    code = "RESOURCE_EXHAUSTED"
    exit_code = 6


class DataLoss(PagestoreError):
    """Bytes that are not what was written: named, and never served."""

    code = "DATA_LOSS"
    exit_code = 7


class Aborted(PagestoreError):
    """Somebody with a higher term, or an earlier claim, won."""

    code = "ABORTED"
    exit_code = 4


class Unauthenticated(PagestoreError):
    """Nobody knows who calls: no token, or none that holds here."""

    code = "UNAUTHENTICATED"
    exit_code = 8


class PermissionDenied(PagestoreError):
    """It is known who calls, and it is not his."""

    code = "PERMISSION_DENIED"
    exit_code = 8


KINDS: Mapping[str, type[PagestoreError]] = {
    cls.code: cls
    for cls in (
        PagestoreError,
        InvalidInput,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        OutOfRange,
        DeadlineExceeded,
        Unavailable,
        ResourceExhausted,
        DataLoss,
        Aborted,
        Unauthenticated,
        PermissionDenied,
    )
}
"""By their codes."""


class Status(enum.IntEnum):
    """See native/core/status.h."""

    NOMEM = -1
    IO = -2
    CORRUPT = -3
    INVALID = -4
    NOT_FOUND = -5
    UNSUPPORTED = -6
    REDO = -7
    NO_SPACE = -8
    CLOSED = -9
    TIMEOUT = -10
    WOULD_WAIT = -11
    REMOTE = -12
    NO_POSTGRES = -13


FULL_HINT = "Make room on the disk; reads go on, and writing resumes by itself."
READ_ONLY_HINT = "Mount it for writing; what was to be written is then, by itself."
LASTING = frozenset({"DISK_READ_ONLY"})
"""Reasons of Unavailable that say of a service which does answer what does not pass in a moment:
whoever waits for the answer is told at once, and only what works in the background tries on."""
FINAL = frozenset(
    {
        "GENERATION_SUPERSEDED",
        "OBJECT_STORE_AHEAD",
        "OBJECT_STORE_CLAIMED",
        "OBJECT_STORE_FOREIGN",
        "OBJECT_STORE_UNCONDITIONAL",
    }
)
"""Reasons for which a part ends, and by which it would end again: no other start helps before
somebody has done what the hint says."""
FAULT_HINT = "This is a fault of pagestore: please report it, with the log of the part."

Meaning = tuple[type[PagestoreError], str, str | None]
"""Kind, reason, hint."""
NATIVE: Mapping[int, Meaning] = {
    Status.NOMEM: (ResourceExhausted, "OUT_OF_MEMORY", None),
    Status.IO: (Unavailable, "IO_ERROR", None),
    Status.CORRUPT: (
        DataLoss,
        "LAYER_CORRUPT",
        "Nothing of it was served. `pagestore scrub` repairs it where it can.",
    ),
    Status.INVALID: (InvalidInput, "INVALID_ARGUMENT", None),
    Status.NOT_FOUND: (NotFound, "NOT_FOUND", None),
    Status.UNSUPPORTED: (FailedPrecondition, "UNSUPPORTED", None),
    Status.REDO: (PagestoreError, "REDO_FAILED", None),
    Status.NO_SPACE: (ResourceExhausted, "STORE_FULL", FULL_HINT),
    Status.CLOSED: (Unavailable, "CLOSED", None),
    Status.TIMEOUT: (Unavailable, "TIMEOUT", None),
    Status.WOULD_WAIT: (Unavailable, "WOULD_WAIT", None),
    Status.REMOTE: (Unavailable, "OBJECT_STORE_UNAVAILABLE", None),
    Status.NO_POSTGRES: (FailedPrecondition, "POSTGRES_MISSING", None),
}


def native_error(error: Exception, here: Mapping[int, Meaning] | None = None) -> PagestoreError:
    """What a NativeError means.

    Args:
        error: its arguments are a status code and a text.
        here: codes that mean something more exact where it was raised.
    """
    code, text = error.args
    kind, reason, hint = {**NATIVE, **(here or {})}.get(code, (PagestoreError, "INTERNAL", None))
    return kind(reason, text, hint)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOO_MANY = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)


def of_disk(error: OSError, text: str, reason: str = "IO_ERROR") -> PagestoreError:
    """What it means that something could not be written; `reason` where the disk itself fails."""
    if error.errno in _FULL:
        return ResourceExhausted("STORE_FULL", text, FULL_HINT)
    if error.errno == errno.EROFS:
        return Unavailable("DISK_READ_ONLY", text, READ_ONLY_HINT)
    return Unavailable(reason, text)


def of_exception(error: BaseException) -> PagestoreError:
    """Anything that was raised, in words for a user: no class name, no trace."""
    if isinstance(error, PagestoreError):
        return error
    # Where nobody has loaded the core, it has raised nothing.
    native = sys.modules.get("pagestore._native")
    if native is not None and isinstance(error, native.NativeError):
        return native_error(error)
    match error:
        case OSError(errno=number) if number in _FULL:
            return of_disk(error, f"No space left: {_words(error)}.")
        case OSError(errno=number) if number in _TOO_MANY:
            return ResourceExhausted("TOO_MANY_OPEN", f"A limit is reached: {_words(error)}.")
        case MemoryError():
            return ResourceExhausted("OUT_OF_MEMORY", "There is no memory left for this.")
        case UnicodeError():
            return InvalidInput("INVALID_TEXT", "A name or value is not text in UTF-8.")
        case OverflowError():
            return InvalidInput("OUT_OF_BOUNDS", "A number is larger than can be right.")
        case OSError():
            return of_disk(error, f"A system call failed: {_words(error)}.")
    return PagestoreError("INTERNAL", f"Something impossible: {error or 'no words'}.", FAULT_HINT)


def _words(error: OSError) -> str:
    where = f" ({error.filename!s})" if error.filename is not None else ""
    return f"{error.strerror or error}{where}"


def stale_term(term: int, promised: int) -> Aborted:
    """What whoever won `term` is told, once safekeepers have promised `promised`."""
    return Aborted(
        "STALE_TERM",
        f"Term {term} is over: {promised} has been promised.",
        "Another compute of this timeline was started; this one cannot commit any more.",
    )
