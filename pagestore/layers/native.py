"""The native store's failures, in words of pagestore.errors."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager

from pagestore._native import NativeError
from pagestore.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)


class LayerKind(enum.IntEnum):
    """See native/core/layer/format.h."""

    DELTA = 1
    IMAGE = 2


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


FULL_HINT = "Make room on the disk; reads go on, and writing resumes by itself."


def store_error(error: NativeError) -> PagestoreError:
    """What a failure of a layer, a snapshot or an open layer means."""
    code, text = error.args
    match code:
        case Status.CORRUPT:
            return DataLoss("LAYER_CORRUPT", text, "Restore this file; nothing of it was served.")
        case Status.NOT_FOUND:
            return DataLoss("PAGE_MISSING", text)
        case Status.NO_SPACE:
            return ResourceExhausted("STORE_FULL", text, FULL_HINT)
        case Status.NOMEM:
            return ResourceExhausted("OUT_OF_MEMORY", text)
        case Status.INVALID:
            return InvalidInput("INVALID_VALUES", text)
        case Status.CLOSED:
            return FailedPrecondition("LAYER_FROZEN", text)
        case Status.REDO | Status.UNSUPPORTED:
            return PagestoreError("REDO_FAILED", text)
        case _:
            return Unavailable("IO_ERROR", text)


@contextmanager
def store_errors() -> Iterator[None]:
    """Raises the native store's failures as PagestoreError."""
    try:
        yield
    except NativeError as error:
        raise store_error(error) from error
