"""Damaged segments of a safekeeper's log, replaced by what somebody else has of them.

Only what is committed and lies in whole segments below the commit LSN that this log's own control
file knows: there all logs agree, nobody writes any more, and a file can be given another content
under the safekeeper that reads it, which opens it for each read. The segment that is being written
is left alone.

A copy is tried out before it is believed: over a directory of links to the log's files, with the
new segment among them, every record of it must hold, with its length, checksum and link. So what a
copy lacks may come from the damaged file. Then, segment by segment: the new file is durable beside
its place, the damaged one is moved to lost+found, the new one takes its name. Killed in between it
leaves a segment that is missing, and the next scrub does the same again.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pagestore import durable, locks, lost_found
from pagestore.errors import DataLoss, PagestoreError, Unavailable, of_disk
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.walservice import control_file, horizon, segments
from pagestore.walservice.owner import Owner
from pagestore.walservice.scrub import Damage, durable_end, first_damage
from pagestore.walservice.segments import SEGMENT

LOCK = "mending-lock"
_SEGMENT_NAME = re.compile("[0-9A-F]{24}")


class Copy(Protocol):
    """Somebody who may have committed WAL."""

    name: str

    def read(
        self, tenant: TenantId, timeline: TimelineId, start: int, end: int
    ) -> Iterable[tuple[int, bytes]]:
        """What there is of [start, end), by LSN. Raises PagestoreError."""
        ...


@dataclass(frozen=True, slots=True)
class Mended:
    """One segment. `what`: what of it did not hold; `moved_to`: where it lies, if it was there."""

    path: Path
    what: str
    source: str
    moved_to: Path | None


@dataclass(frozen=True, slots=True)
class _Log:
    """What is known of a log; `sealed`: the LSN below which its segments do not change."""

    directory: Path
    owner: Owner
    control: control_file.Control
    start: int
    end: int
    sealed: int

    @classmethod
    def of(cls, directory: Path, owner: Owner) -> _Log:
        control = control_file.read(directory, owner)
        start = horizon.read(directory, owner).base_lsn(control.state)
        end = durable_end(directory, owner, control)
        committed = end if control.state.alone else min(control.state.known_commit_lsn, end)
        return cls(directory, owner, control, start, end, committed // SEGMENT * SEGMENT)

    def first_damage(self, directory: Path, known: Damage | None = None) -> Damage | None:
        at = known.at if known is not None and known.at.flush_lsn > self.start else None
        return first_damage(directory, self.control.state.start, self.start, self.end, at)


def mend(
    root: Path, directory: Path, owner: Owner, copies: Sequence[Copy], now: float
) -> tuple[list[Mended], PagestoreError | None]:
    """All damage of a log, from the front on; what was mended, and why the rest was not.

    Args:
        root: the safekeeper's data directory.
        now: Unix seconds.
    """
    mended: list[Mended] = []
    lock = locks.take(root / LOCK)
    if lock is None:
        return mended, Unavailable("SCRUB_UNDER_WAY", f"Another scrub repairs files in {root}.")
    try:
        log = _Log.of(directory, owner)
        while (damage := log.first_damage(directory)) is not None:
            mended += _mend(root, log, damage, copies, now)
    except PagestoreError as error:
        return mended, error
    except OSError as error:
        return mended, of_disk(error, str(error))
    finally:
        os.close(lock)
    return mended, None


def _mend(
    root: Path, log: _Log, damage: Damage, copies: Sequence[Copy], now: float
) -> list[Mended]:
    failures = []
    for copy in copies:
        try:
            made = _tried_out(log, damage, copy)
        except PagestoreError as error:
            failures.append(error.message)
            continue
        try:
            return [
                Mended(path, damage.error.message, copy.name, _put_in_place(root, path, now))
                for path in made
            ]
        finally:
            _remove(made)
    lsn = damage.at.flush_lsn
    if lsn >= log.sealed:
        raise DataLoss(
            "SEGMENT_DAMAGED",
            f"The WAL at {format_lsn(lsn)} in {segments.segment_path(log.directory, lsn)} lies in "
            "a segment that is still written, or is not known to be committed.",
        )
    raise DataLoss(
        "WAL_INCOMPLETE",
        f"Nobody else has the WAL at {format_lsn(lsn)}: "
        f"{'; '.join(failures) or 'there is no other safekeeper and no object store'}",
    )


def _tried_out(log: _Log, damage: Damage, copy: Copy) -> list[Path]:
    """The segments that are to be replaced; new ones are beside them, durable, and hold.

    Raises:
        DataLoss: WAL_INCOMPLETE: they do not hold with this copy. Besides, as of the copy.
    """
    first = damage.at.flush_lsn // SEGMENT * SEGMENT
    made: list[Path] = []
    try:
        with tempfile.TemporaryDirectory(prefix="ps-mending-") as name:
            trial = Path(name)
            for path in log.directory.iterdir():
                if _SEGMENT_NAME.fullmatch(path.name):
                    (trial / path.name).symlink_to(path.absolute())
            # A record may go on in the next segment, and be damaged there.
            for segment in range(first, log.sealed, SEGMENT):
                path = segments.segment_path(log.directory, segment)
                if _made_beside(log, path, segment, copy):
                    made.append(path)
                    link = trial / path.name
                    link.unlink(missing_ok=True)
                    link.symlink_to(_beside(path).absolute())
                left = log.first_damage(trial, damage)
                if left is None or left.at.flush_lsn >= segment + SEGMENT:
                    return made
        raise DataLoss("WAL_INCOMPLETE", f"{copy.name} has not all of it, or not whole")
    except BaseException:
        _remove(made)
        raise


def _made_beside(log: _Log, path: Path, segment: int, copy: Copy) -> bool:
    """Whether it is another one than there is."""
    there = path.read_bytes() if path.is_file() else b""
    content = bytearray(there if len(there) == SEGMENT else SEGMENT)
    begin = max(segment, log.control.state.start.flush_lsn)
    for lsn, data in copy.read(log.owner.tenant, log.owner.timeline, begin, segment + SEGMENT):
        content[lsn - segment : lsn - segment + len(data)] = data
    if content == there:
        return False
    owner = log.directory.stat()
    with durable.begin(_beside(path)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if os.geteuid() == 0:  # the safekeeper may be another user's
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    return True


def _put_in_place(root: Path, path: Path, now: float) -> Path | None:
    moved_to = lost_found.move_aside(root, path, now) if path.exists() else None
    durable.publish(_beside(path), path)
    return moved_to


def _beside(path: Path) -> Path:
    return path.with_name(path.name + durable.SUFFIX)


def _remove(made: Iterable[Path]) -> None:
    for path in made:
        _beside(path).unlink(missing_ok=True)
