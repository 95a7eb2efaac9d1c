"""The log's files as a worker thread treats them: found at an open, cut, appended to.

`base_lsn` is the first position whose WAL is kept: the log's start, or where it was dropped up
to (pagestore.walservice.horizon).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pagestore._native import NativeError, WalWriter
from pagestore.consensus.acceptor import State, WalPosition
from pagestore.errors import (
    DataLoss,
    InvalidInput,
    PagestoreError,
    ResourceExhausted,
    Unavailable,
)
from pagestore.walservice import control_file, horizon, segments
from pagestore.walservice.horizon import Horizon

_CORRUPT, _NO_SPACE = -3, -8
"""Codes of native/core/status.h."""


class Loaded(NamedTuple):
    """`state` has the log's end; `stored` is what the control file says, `clean` whether it
    knew that end."""

    state: State
    stored: State
    clean: bool
    horizon: Horizon


def load(directory: Path) -> Loaded:
    """Reads the control file, and searches the log's end where it does not say it.

    Raises:
        FileNotFoundError: there is no timeline.
        DataLoss: CONTROL_DAMAGED, SEGMENT_DAMAGED.
    """
    stored, clean = control_file.read(directory)
    kept = horizon.read(directory)
    base_lsn = kept.base_lsn(stored)
    end_lsn = stored.position.flush_lsn
    if not clean and end_lsn >= base_lsn:
        end = segments.find_end(directory, stored.position, base_lsn)
        return Loaded(replace(stored, position=end), stored, False, kept)
    if end_lsn > base_lsn:
        segments.read_range(directory, end_lsn - 1, end_lsn)
    return Loaded(stored, stored, clean, kept)


def cut(directory: Path, base_lsn: int, position: WalPosition) -> None:
    """Opening a log for writing makes zeros of all that is behind its end."""
    try:
        _open(directory, base_lsn, position).close()
    except NativeError as error:
        raise _failure(error, DataLoss, "SEGMENT_DAMAGED") from error


def begin(directory: Path, position: WalPosition) -> None:
    """Forgets the log's files: it goes on at `position`."""
    cut(directory, position.flush_lsn, position)
    segments.remove_before(directory, position.flush_lsn)


def append(directory: Path, base_lsn: int, end: WalPosition, lsn: int, data: bytes) -> WalPosition:
    """Appends whole records behind `end`, durably; returns the log's new end."""
    try:
        writer = _open(directory, base_lsn, end)
    except NativeError as error:
        raise _failure(error, DataLoss, "SEGMENT_DAMAGED") from error
    try:
        writer.append(lsn, data)
        return WalPosition(*writer.position[:2])
    except NativeError as error:
        raise _failure(error, InvalidInput, "NOT_WAL") from error
    finally:
        writer.close()


def _open(directory: Path, base_lsn: int, end: WalPosition) -> WalWriter:
    return WalWriter(str(directory), base_lsn, end.flush_lsn, end.prev_record_lsn)


def _failure(
    error: NativeError, corrupt: type[PagestoreError], corrupt_reason: str
) -> PagestoreError:
    """What a failed append means to its caller."""
    code, text = error.args
    if code == _CORRUPT:
        return corrupt(corrupt_reason, f"Nothing was appended: {text}.")
    if code == _NO_SPACE:
        return ResourceExhausted(
            "STORE_FULL", f"No space for WAL: {text}.", "Free space, then append again."
        )
    return Unavailable("WAL_WRITE_FAILED", f"WAL was not made durable: {text}.")
