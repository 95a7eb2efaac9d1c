"""Where a timeline's cutoff may go: a pure function of what is durable.

A *window* says how much history is kept below the head: so much time, and so many bytes of WAL,
whichever is less. Both count back from what is in files: what a crash may take back is no
ground to drop anything. The cutoff lies at a commit's end, so that whoever is told of it as the
oldest LSN can branch there; an LSN so many bytes back lies within a record. The last minutes
always stay, for whoever is about to branch, lease or name what it has just seen.

What commits nothing has no time. So where all commits are older than the window, what comes behind
the last of them (a checkpoint record at a compute's end, as a rule) is past only once it was seen
to lie there for as long (`Quiet`). A compute that was started before it, and reads there, has long
leased what it reads by then.

The cutoff never goes back: what was below it may be gone. A window that is made longer grows with
time. Points that are kept below it (retained.py) do not hold it: they hold themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagestore.ids import MAX_LSN, Lsn
from pagestore.timeline.entries import Holder, Horizon

DAY = 86400
DEFAULT_SECONDS = 7 * DAY
LONGEST_SECONDS = 100 * 365 * DAY
LEAST_SECONDS = 300
"""Of history that stays, whatever is asked for."""


@dataclass(frozen=True, slots=True)
class Window:
    """``wal_bytes``: of WAL before the head; 0: as many as there are in the time."""

    seconds: int = DEFAULT_SECONDS
    wal_bytes: int = 0

    def begins(self, now: float, least_seconds: int = LEAST_SECONDS) -> int:
        """The Unix microsecond from which on all is kept."""
        return int((now - max(self.seconds, least_seconds)) * 1e6)

    def bytes_begin(self, durable_lsn: int) -> int:
        """The LSN before which nothing is kept for its bytes; 0 without such a bound."""
        return max(durable_lsn - self.wal_bytes, 0) if self.wal_bytes else 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What is durable of a timeline.

    ``window_lsn``: the last commit at or before the window's begin, as an LSN; 0 when there is
    none. ``bytes_lsn``: the last commit at or before where its bytes begin; 0 likewise, and where
    it has no such bound. ``recent_lsn``: the same of the last minutes that stay in any case.
    ``quiet_lsn``: what has been durable for longer than both.
    """

    first_lsn: Lsn  # where its own history begins
    durable_lsn: Lsn
    window_lsn: int
    recent_lsn: int
    before: Horizon | None = None
    quiet_lsn: int = 0
    bytes_lsn: int = 0


class Quiet:
    """The LSN up to which a timeline has been durable for some time, as far as it was looked at.
    It follows by twice that time at most."""

    def __init__(self) -> None:
        self._lsn = 0
        self._next: tuple[float, int] | None = None
        self._latest: tuple[float, int] | None = None

    def seen(self, now: float, durable_lsn: int, seconds: float) -> int:
        """
        Args:
            now: Unix seconds. One at which it was set back only makes this slower.

        Returns:
            What was durable so many seconds ago; 0 if nobody looked then.
        """
        if self._latest is None or durable_lsn > self._latest[1]:
            self._latest = now, durable_lsn
        if self._next is None:
            self._next = self._latest
        if now - self._next[0] >= seconds:
            self._lsn, self._next = self._next[1], self._latest
            if now - self._next[0] >= seconds:
                self._lsn = self._next[1]
        return self._lsn


def horizon(facts: Facts, now: float) -> Horizon:
    """Where the cutoff is now; `facts.before` itself, if it does not move."""
    before = facts.before.lsn if facts.before is not None else Lsn(0)
    wanted = min(max(facts.window_lsn, facts.bytes_lsn), facts.recent_lsn, facts.durable_lsn)
    cutoff = Lsn(max(before, wanted, min(facts.quiet_lsn, facts.durable_lsn)))
    if cutoff <= max(before, facts.first_lsn):
        return facts.before or Horizon(Lsn(0))
    return Horizon(cutoff, Holder.WINDOW, None, int(now * 1e6))


def nothing_but_points(now: float) -> Horizon:
    """Of a timeline that nobody names any more: what children and leases read of it stays."""
    return Horizon(MAX_LSN, Holder.NOTHING, None, int(now * 1e6))
