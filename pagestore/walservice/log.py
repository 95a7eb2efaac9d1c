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
from pagestore.ids import format_lsn
from pagestore.walservice import control_file, horizon, segments, witness
from pagestore.walservice.control_file import Control
from pagestore.walservice.horizon import Horizon
from pagestore.walservice.owner import Owner
from pagestore.walservice.witness import Witness

_CORRUPT, _NO_SPACE = -3, -8
"""Codes of native/core/status.h."""


class Loaded(NamedTuple):
    """`state` has the log's end; `control` is what the file says."""

    state: State
    control: Control
    horizon: Horizon


class LogFiles(NamedTuple):
    """A log's segments, from `base_lsn` on. What is written is witnessed in `epoch`."""

    directory: Path
    base_lsn: int
    epoch: int

    def open(self, end: WalPosition) -> WalWriter:
        """For writing behind `end`: what stands there is made zeros."""
        fields = (self.base_lsn, end.flush_lsn, end.prev_record_lsn, self.epoch)
        return WalWriter(str(self.directory), *fields)


def load(directory: Path, owner: Owner) -> Loaded:
    """Reads the control file, and searches the log's end where it does not say it.

    Raises:
        FileNotFoundError: there is no timeline.
        DataLoss: CONTROL_MISSING, CONTROL_DAMAGED, CONTROL_FOREIGN, CONTROL_OUTDATED, the same of
            HORIZON, SEGMENT_DAMAGED.
    """
    control = control_file.read(directory, owner)
    kept = horizon.read(directory, owner)
    seen = witness.read(directory, owner)
    state = control.state
    base_lsn, noted = kept.base_lsn(state), state.position
    if noted.flush_lsn >= base_lsn:
        segments.check_record(directory, noted, base_lsn, control.record_crc)
        if not control.clean:
            end = segments.find_end(directory, noted, base_lsn)
            state = replace(state, position=end)
    if seen is not None and seen.epoch == control.epoch and seen.position > noted:
        _check_witnessed(directory, seen, state.position, base_lsn)
    return Loaded(state, control, kept)


def _check_witnessed(directory: Path, seen: Witness, end: WalPosition, base_lsn: int) -> None:
    if end.flush_lsn < seen.position.flush_lsn:
        path = segments.segment_path(directory, end.flush_lsn)
        raise DataLoss(
            "SEGMENT_DAMAGED",
            f"The log ends at {format_lsn(end.flush_lsn)} in {path}, but was durable up to "
            f"{format_lsn(seen.position.flush_lsn)}: another copy of the file stands there, or "
            "the disk has lost what it had confirmed.",
            "Restore the newest copy of the file. Nothing was cut.",
        )
    segments.check_record(directory, seen.position, base_lsn, seen.record_crc)


def cut(files: LogFiles, position: WalPosition) -> None:
    """Opening a log for writing makes zeros of all that is behind its end."""
    try:
        files.open(position).close()
    except NativeError as error:
        raise _failure(error, DataLoss, "SEGMENT_DAMAGED") from error


def begin(files: LogFiles, position: WalPosition) -> None:
    """Forgets the log's files: it goes on at `position`."""
    cut(files._replace(base_lsn=position.flush_lsn), position)
    segments.remove_before(files.directory, position.flush_lsn)


def append(files: LogFiles, end: WalPosition, lsn: int, data: bytes) -> WalPosition:
    """Appends whole records behind `end`, durably; returns the log's new end."""
    try:
        writer = files.open(end)
    except NativeError as error:
        raise _failure(error, DataLoss, "SEGMENT_DAMAGED") from error
    try:
        writer.append(lsn, data)
        return WalPosition(*writer.position[:2])
    except NativeError as error:
        raise _failure(error, InvalidInput, "NOT_WAL") from error
    finally:
        writer.close()


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
