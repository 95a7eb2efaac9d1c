"""Reads a log record by record: each one's length, checksum and link to the one before it.

A safekeeper does that when it looks for a log's end, and else only for what is asked of it. Here it
is done for all that is kept, from the files alone, beside whoever writes them: the control file and
the witness are read first, and up to the position that they say nothing changes any more, but that
segments go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pagestore import _native
from pagestore.consensus.acceptor import WalPosition
from pagestore.errors import DataLoss, PagestoreError
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.walservice import control_file, horizon, segments, witness
from pagestore.walservice.control_file import Control
from pagestore.walservice.owner import Owner

_WINDOW = 1 << 20
"""Bytes looked at in one go, unless a record is longer."""


@dataclass(frozen=True, slots=True)
class ScrubbedLog:
    """A timeline's log at one safekeeper. `failure`: what of it does not hold."""

    owner: Owner
    directory: Path
    start_lsn: int = 0
    end_lsn: int = 0
    failure: PagestoreError | None = None

    @property
    def tenant(self) -> TenantId:
        return self.owner.tenant

    @property
    def timeline(self) -> TimelineId:
        return self.owner.timeline


def scrub(data: Path, number: int) -> Iterator[ScrubbedLog]:
    """All logs of a safekeeper's data directory."""
    for tenant in sorted(data.glob("[0-9a-f]" * 32)):
        for directory in sorted(tenant.glob("[0-9a-f]" * 32)):
            owner = Owner(TenantId.parse(tenant.name), TimelineId.parse(directory.name), number)
            found = scrub_log(directory, owner)
            if found is not None:
                yield found


def scrub_log(directory: Path, owner: Owner) -> ScrubbedLog | None:
    """None: it went meanwhile."""
    start = end = 0
    try:
        control = control_file.read(directory, owner)
        start = horizon.read(directory, owner).base_lsn(control.state)
        end = durable_end(directory, owner, control)
        check_log(directory, control.state.start, start, end)
    except PagestoreError as error:
        # What was dropped since is missing, and missed by nobody.
        if not directory.exists() or _dropped(directory, owner, start):
            return None if not directory.exists() else scrub_log(directory, owner)
        return ScrubbedLog(owner, directory, start, end, error)
    return ScrubbedLog(owner, directory, start, end)


def durable_end(directory: Path, owner: Owner, control: Control) -> int:
    """Of a log that is being written the control file says less than the witness."""
    position = control.state.position.flush_lsn
    seen = witness.read(directory, owner)
    if control.clean or seen is None or seen.epoch != control.epoch:
        return position
    return max(position, seen.position.flush_lsn)


def _dropped(directory: Path, owner: Owner, start: int) -> bool:
    """Whether WAL from `start` on has been dropped since."""
    try:
        return 0 < start < horizon.read(directory, owner).oldest_lsn
    except PagestoreError:
        return False


@dataclass(frozen=True, slots=True)
class Damage:
    """`at`: the last record's end before it."""

    at: WalPosition
    error: DataLoss


def check_log(directory: Path, first: WalPosition, start: int, end: int) -> None:
    """As `first_damage`.

    Raises:
        DataLoss: SEGMENT_DAMAGED: a file is missing or short, or what it has are no records.
    """
    found = first_damage(directory, first, start, end)
    if found is not None:
        raise found.error


def first_damage(
    directory: Path, first: WalPosition, start: int, end: int, at: WalPosition | None = None
) -> Damage | None:
    """
    Args:
        first: where the log began.
        start, end: what of it is to be there; `end` is a record's.
        at: a record's end, up to which nothing is damaged.
    """
    at = at or (first if start == first.flush_lsn else None)
    try:
        if at is None:
            found = segments.first_end(directory, -(-start // segments.PAGE) * segments.PAGE, end)
            at = WalPosition(found if found is not None else end, 0)
    except DataLoss as error:
        return Damage(WalPosition(start, 0), error)
    window = _WINDOW
    while at.flush_lsn < end:
        page = at.flush_lsn // segments.PAGE * segments.PAGE
        limit = min(page + window, end)
        try:
            data = segments.read_from(directory, page, limit, start)
        except DataLoss as error:
            return Damage(at, error)
        read = _native.wal_align(data, page, limit, at.flush_lsn, at.prev_record_lsn)
        if read is not None and read[0] > at.flush_lsn:
            at, window = WalPosition(*read), _WINDOW
        elif limit < end and window < segments.MAX_RECORD:
            window *= 2
        else:
            return Damage(at, _no_records(directory, at.flush_lsn))
    return None


def _no_records(directory: Path, lsn: int) -> DataLoss:
    return DataLoss(
        "SEGMENT_DAMAGED",
        f"The WAL at {format_lsn(lsn)} in {segments.segment_path(directory, lsn)} is damaged.",
        "Restore the file from a copy. What the page server has made durable is not concerned.",
    )
