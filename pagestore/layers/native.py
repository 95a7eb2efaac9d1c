"""The native store's failures, in words of pagestore.errors."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pagestore._native import NativeError
from pagestore.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    Meaning,
    PagestoreError,
    Status,
    native_error,
)


class LayerKind(enum.IntEnum):
    """See native/core/layer/format.h."""

    DELTA = 1
    IMAGE = 2


_HERE: Mapping[int, Meaning] = {
    Status.NOT_FOUND: (DataLoss, "PAGE_MISSING", None),
    Status.INVALID: (InvalidInput, "INVALID_VALUES", None),
    Status.CLOSED: (FailedPrecondition, "LAYER_FROZEN", None),
    Status.UNSUPPORTED: (PagestoreError, "REDO_FAILED", None),
}
"""In a layer, a snapshot or an open layer."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Raises the native store's failures as PagestoreError."""
    try:
        yield
    except NativeError as error:
        raise native_error(error, _HERE) from error
