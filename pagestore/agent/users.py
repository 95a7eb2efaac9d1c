"""Users of which each compute of this host has one of its own.

Which ones are taken, the records in the computes' directories say, so nothing else is kept: one
is free again when the last of its compute's directory is removed. They are given out in turn, from
a place in the range that the directory decides: installations of one machine seldom meet there,
and a user who was somebody's a moment ago is nobody's for a while.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pagestore.compute.record import ComputeRecord
from pagestore.errors import InvalidInput, ResourceExhausted

DEFAULT_UIDS = "1900000000-1900065535"
"""Where neither useradd, nor subordinate users, nor systemd have theirs."""
_LOWEST, _HIGHEST = 1000, 2**32 - 3
"""Users of the system are below, and nobody is above."""


class Users:
    """The users of a range; one process has them at a time, the agent of `directory`.

    Args:
        directory: of the computes' directories.
    """

    def __init__(self, uids: range, directory: Path) -> None:
        self._uids = uids
        self._directory = directory
        place = hashlib.sha256(os.fsencode(directory) + str(os.getpid()).encode()).digest()
        self._next = int.from_bytes(place[:8], "big") % len(uids)
        self._taken: set[int] = set()
        self._unlooked = 0
        """How many are still to be passed until it is looked again which are taken."""

    def take(self) -> int:
        """One that no compute's record names, and that was not given out since the last round.

        Raises:
            ResourceExhausted: NO_UID_LEFT.
        """
        for _ in range(2 * len(self._uids)):
            if self._unlooked == 0:
                self._taken, self._unlooked = self._look(), len(self._uids)
            uid = self._uids[self._next]
            self._next = (self._next + 1) % len(self._uids)
            self._unlooked -= 1
            if uid not in self._taken:
                return uid
        raise ResourceExhausted(
            "NO_UID_LEFT",
            f"All {len(self._uids)} users from {self._uids[0]} on have a compute.",
            "Set a wider range, `uids` in [computes] of pagestore.toml.",
        )

    def _look(self) -> set[int]:
        records = (ComputeRecord.load(path) for path in self._directory.glob("*-*"))
        return {record.uid for record in records if record is not None}


def range_of_uids(text: str) -> range:
    """
    Raises:
        InvalidInput: INVALID_UIDS.
    """
    first, _, last = text.partition("-")
    if first.isdecimal() and last.isdecimal():
        uids = range(int(first), int(last) + 1)
        if uids and uids[0] >= _LOWEST and uids[-1] <= _HIGHEST:
            return uids
    raise InvalidInput(
        "INVALID_UIDS",
        f"{text[:40]!r} is no range of users.",
        f"FIRST-LAST, from {_LOWEST} on, as {DEFAULT_UIDS}.",
    )
