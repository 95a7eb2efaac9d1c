"""Which moments of a timeline's own history can still be read, and so which values are needed.

All LSNs from the *cutoff* on are kept, and below it single *points*: where children branch off,
leases, checkpoints. Reads anywhere else are refused, so a value is needed only if one of these
reads it. That falls apart into intervals: a value is read at the first kept LSN at or above it, its
boundary, and at later ones; of one key, what lies in one interval behind a newer value that stands
for all before it (an image, zeros, a tombstone) is read by nobody:

    values of a key       10  12  I20  25  |  31  33  |  I40  44 ...      I: an image
    kept                                  p=30      cutoff=35
    dead                  10  12

At 30 one needs 25 and I20, at 35 besides 31 and 33; I40 ends no chain of them. Nothing here knows
of files: who merges layers drops what is dead (native/core/store/sieve.h), who collects drops files
that nobody needs.

Times of commits are another matter: each stands under a key of its own, so the newest of a key is
never dead. Who asks for a time asks for the last commit before it, and gets an LSN: of those in one
interval below the cutoff only the last is ever an answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from pagestore.ids import MAX_LSN, Lsn

ALL = Lsn(0)
"""A cutoff below which nothing is: all history is kept."""
NOTHING = MAX_LSN
"""A cutoff of who is read at its points alone: deleted, but for children or leases."""


@dataclass(frozen=True, slots=True)
class Retained:
    """``points`` lie below the cutoff, ascending."""

    cutoff: Lsn = ALL
    points: tuple[Lsn, ...] = ()

    @classmethod
    def of(cls, cutoff: int, points: Iterable[int]) -> Self:
        below = sorted({Lsn(point) for point in points if point < cutoff})
        return cls(Lsn(cutoff), tuple(below))

    def __contains__(self, lsn: int) -> bool:
        """Whether the timeline may be read there."""
        if lsn >= self.cutoff:
            return True
        at = bisect_left(self.points, lsn)
        return at < len(self.points) and self.points[at] == lsn

    @property
    def boundaries(self) -> tuple[Lsn, ...]:
        """Ascending; of a value beyond the last nothing is dead, unless the cutoff is NOTHING:
        then all of it is."""
        if self.cutoff in (ALL, NOTHING):
            return self.points
        return (*self.points, self.cutoff)

    def interval(self, lsn: int) -> int:
        """Which one a value lies in: the number of its boundary; `len(boundaries)` beyond all."""
        return bisect_left(self.boundaries, lsn)

    def dead(self, chain: Sequence[tuple[int, bool]]) -> list[bool]:
        """Of the values of one key, the newest first, which are needed by no read.

        Args:
            chain: of each its LSN, and whether it needs nothing older (an image, zeros, a
                tombstone, a record that begins anew).
        """
        beyond = len(self.boundaries)
        told, seen, ended = [], -1, False
        for lsn, is_whole in chain:
            interval = self.interval(lsn)
            if interval == beyond:
                told.append(self.cutoff == NOTHING)
                continue
            ended = ended and interval == seen
            told.append(ended)
            seen, ended = interval, ended or is_whole
        return told

    def dead_times(self, lsns: Sequence[int]) -> list[bool]:
        """Of the times of commits, ascending by time, by the LSNs of their commits.

        What goes by itself, beyond all that is kept, takes no other's place and hides none.
        """
        beyond = len(self.boundaries) if self.cutoff == NOTHING else -1
        told, following = [], -1
        for interval in reversed([self.interval(lsn) for lsn in lsns]):
            gone = interval == beyond
            told.append(gone or (interval == following and interval < len(self.boundaries)))
            following = following if gone else interval
        return told[::-1]
