"""What can go wrong, in words a user can act on.

Every error carries a stable machine-readable ``reason`` (the same string that gRPC's
ErrorInfo and in-band statuses carry), a sentence that says what happened and where, and,
where there is one, a hint: what to do about it.
"""

from __future__ import annotations


class PagestoreError(Exception):
    """The root of all errors raised by pagestore.

    ``reason`` is UPPER_SNAKE_CASE and never changes once released; ``code`` is the name of
    the google.rpc.Code that a service answers with.
    """

    code = "INTERNAL"

    def __init__(self, reason: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message


class InvalidInput(PagestoreError):
    """The caller's argument can never be right, whatever the state."""

    code = "INVALID_ARGUMENT"


class NotFound(PagestoreError):
    code = "NOT_FOUND"


class AlreadyExists(PagestoreError):
    code = "ALREADY_EXISTS"


class FailedPrecondition(PagestoreError):
    """Right in itself, but not in this state; the hint says what must come first."""

    code = "FAILED_PRECONDITION"


class OutOfRange(PagestoreError):
    """A block or an LSN beyond what exists."""

    code = "OUT_OF_RANGE"


class DeadlineExceeded(PagestoreError):
    code = "DEADLINE_EXCEEDED"


class Unavailable(PagestoreError):
    """Away for now; the same call may succeed later."""

    code = "UNAVAILABLE"


class ResourceExhausted(PagestoreError):
    """A stated limit, or the disk, is full."""

    code = "RESOURCE_EXHAUSTED"


class DataLoss(PagestoreError):
    """Bytes that are not what was written: named, and never served."""

    code = "DATA_LOSS"


class Aborted(PagestoreError):
    """Somebody with a higher term, or an earlier claim, won."""

    code = "ABORTED"


def stale_term(term: int, promised: int) -> Aborted:
    """What whoever won `term` is told, once safekeepers have promised `promised`."""
    return Aborted(
        "STALE_TERM",
        f"Term {term} is over: {promised} has been promised.",
        "Another compute of this timeline was started; this one cannot commit any more.",
    )
