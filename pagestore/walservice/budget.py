"""How much WAL that nobody needs stays, of all timelines together.

It is kept for whoever has use for it though nothing depends on it: an LSN of the past is aligned
with a record's end by it, a page server that lost its disk reads it. A timeline that grows gets
what the others leave of the budget, and drops by whole segments. Where that is not enough, those
at rest let go of all they have, the longest at rest first (`Safekeeper.rest`): a log whose every
byte has been consumed and which nobody writes to needs no file at all until it goes on.
"""

from __future__ import annotations

from collections import OrderedDict

from pagestore.walservice.watch import TimelineKey

KEEP_BYTES = 256 << 20
REST_SECONDS = 60.0
"""Without news, until a timeline counts as at rest."""


class Budget:
    """Pure: times are whatever clock the caller has."""

    def __init__(self, keep_bytes: int) -> None:
        self.keep_bytes = keep_bytes
        self.total = 0
        """Bytes of files that nobody needs."""
        self._spare: OrderedDict[TimelineKey, tuple[int, float]] = OrderedDict()

    def share(self, key: TimelineKey, spare: int, at: float) -> int:
        """Notes that a timeline has moved and has so many bytes to spare; how many may stay."""
        self.forget(key)
        others = self.total
        if spare > 0:
            self._spare[key] = spare, at
            self.total += spare
        return max(self.keep_bytes - others, 0)

    def forget(self, key: TimelineKey) -> None:
        self.total -= self._spare.pop(key, (0, 0.0))[0]

    def put_off(self, key: TimelineKey, at: float) -> None:
        """It could not let go: it is asked again after the others, and a while."""
        spare, _ = self._spare.get(key, (0, at))
        self.share(key, spare, at)

    def to_rest(self, at: float) -> TimelineKey | None:
        """Who is to let go next, if too much is kept: the longest at rest."""
        if self.total <= self.keep_bytes or not self._spare:
            return None
        key, (_, since) = next(iter(self._spare.items()))
        return key if at - since >= REST_SECONDS else None
