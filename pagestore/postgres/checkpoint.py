"""The shutdown checkpoint record that a stateless start begins with.

A stopped cluster is one whose WAL ends in a CHECKPOINT_SHUTDOWN record and whose control
file names it. So a directory laid at X needs one such record at X: real WAL of the timeline,
which goes to the WAL service first and into the local segment file then (POSTGRES.md §3).
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from pagestore.pgformat import versions, wal
from pagestore.pgformat.pg_control import PgControl
from pagestore.pgformat.versions import Version
from pagestore.postgres.datadir import DataDirectory
from pagestore.postgres.prologue import Prologue
from pagestore.v1 import page_pb2 as pb


@dataclass(frozen=True, slots=True)
class StartCheckpoint:
    """``data`` is the WAL of [start_lsn, end_lsn), a prologue first if there is one; the record
    itself begins at record_lsn."""

    start_lsn: int
    record_lsn: int
    end_lsn: int
    data: bytes
    counters: pb.ControlCounters
    unix_time: int


def synthesize(
    start_lsn: int,
    prev_record_lsn: int,
    counters: pb.ControlCounters,
    settings: pb.ControlSettings,
    *,
    full_page_writes: bool,
) -> StartCheckpoint:
    """One shutdown checkpoint behind the record that ends at ``start_lsn``.

    Args:
        prev_record_lsn: the start of that record.
        full_page_writes: what the server will run with, so that it logs no change of it.
    """
    own = pb.ControlCounters()
    own.CopyFrom(counters)
    own.full_page_writes = full_page_writes
    now = int(time.time())
    data, record_lsn, end_lsn = wal.checkpoint_shutdown_bytes(
        start_lsn,
        prev_record_lsn,
        own,
        timestamp=now,
        system_id=settings.system_id,
        version=versions.of_catalog(settings.catalog_version),
        wal_level=max(settings.wal_level, LEAST_WAL_LEVEL),
    )
    return StartCheckpoint(start_lsn, record_lsn, end_lsn, data, own, now)


def after_prologue(
    prologue: Prologue,
    counters: pb.ControlCounters,
    settings: pb.ControlSettings,
    *,
    full_page_writes: bool,
) -> StartCheckpoint:
    """Both, as one piece of WAL."""
    checkpoint = synthesize(
        prologue.end_lsn,
        prologue.last_record_lsn,
        counters,
        settings,
        full_page_writes=full_page_writes,
    )
    data = prologue.data + checkpoint.data
    return dataclasses.replace(checkpoint, start_lsn=prologue.start_lsn, data=data)


def write_segments(directory: DataDirectory, checkpoint: StartCheckpoint) -> None:
    """Writes the WAL segment: two, when the record crosses into the next."""
    settings = directory.settings
    lsn, data = checkpoint.start_lsn, checkpoint.data
    for offset, header in wal.segment_prefix(
        lsn, system_id=settings.system_id, version=directory.version
    ):
        directory.write_at(_segment_path(lsn), offset, header, length=wal.SEGMENT_SIZE)
    while data:
        offset = lsn % wal.SEGMENT_SIZE
        piece = data[: wal.SEGMENT_SIZE - offset]
        directory.write_at(_segment_path(lsn), offset, piece, length=wal.SEGMENT_SIZE)
        lsn, data = lsn + len(piece), data[len(piece) :]


def write_control_file(directory: DataDirectory, checkpoint: StartCheckpoint) -> None:
    """Writes pg_control: with it, the directory can start."""
    control = PgControl.at_shutdown(
        checkpoint.counters,
        directory.settings,
        checkpoint_lsn=checkpoint.record_lsn,
        time=checkpoint.unix_time,
    )
    directory.write("global/pg_control", control.pack())


def end_of_checkpoint(record_lsn: int) -> int:
    """The end of the shutdown checkpoint record that starts at ``record_lsn``."""
    return wal.record_end(record_lsn, SHUTDOWN_RECORD_LENGTH)


def start_of_checkpoint(end_lsn: int) -> int:
    """Where a shutdown checkpoint record starts that ends at ``end_lsn``."""
    longest = wal.align8(SHUTDOWN_RECORD_LENGTH) + wal.LONG_HEADER
    for start in range(end_lsn - wal.align8(SHUTDOWN_RECORD_LENGTH), end_lsn - longest - 1, -8):
        within = start % wal.PAGE_SIZE
        is_in_header = within < wal.header_length(start - within)
        if not is_in_header and end_of_checkpoint(start) == end_lsn:
            return start
    raise ValueError(f"no record of {SHUTDOWN_RECORD_LENGTH} bytes ends at {end_lsn:#x}")


SHUTDOWN_RECORD_LENGTH = 114

LEAST_WAL_LEVEL = 1
"""Replica: no compute runs with less."""


def any_control_file(version: Version) -> bytes:
    """With it a postmaster comes as far as its libraries, where the shim lets it wait."""
    settings = pb.ControlSettings(catalog_version=version.catalog_version)
    counters = pb.ControlCounters(next_full_xid=3, next_oid=1)
    return PgControl.at_shutdown(counters, settings, checkpoint_lsn=8, time=0).pack()


def _segment_path(lsn: int) -> str:
    return f"pg_wal/{wal.segment_name(wal.TIMELINE_ID, lsn)}"
