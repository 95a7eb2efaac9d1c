"""The part of a log that is kept: from where on, and where records end in it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from pagestore.consensus.acceptor import WalPosition
from pagestore.errors import DataLoss, OutOfRange
from pagestore.ids import format_lsn
from pagestore.walservice import segments

INLINE_READ = 128 << 10
"""Reads up to this size are done in the event loop: the page cache has them."""


class RetainedWal(NamedTuple):
    """Of a log that began at `start`, what lies between `base_lsn` and `end`."""

    directory: Path
    start: WalPosition
    base_lsn: int
    end: WalPosition

    def check(self, lsn: int) -> None:
        """Raises OutOfRange (LSN_TOO_OLD) where there is nothing any more."""
        start_lsn = self.start.flush_lsn
        if lsn < start_lsn:
            raise OutOfRange(
                "LSN_TOO_OLD",
                f"{format_lsn(lsn)} is before the log's start, {format_lsn(start_lsn)}.",
                "Older WAL is in the timeline that this one was branched from.",
            )
        if lsn < self.base_lsn:
            raise self._dropped(lsn)

    async def read(self, lsn: int, end: int) -> bytes:
        """Raises OutOfRange (LSN_TOO_OLD), DataLoss (SEGMENT_DAMAGED)."""
        self.check(lsn)
        if end - lsn <= INLINE_READ:
            return segments.read_range(self.directory, lsn, end)
        return await asyncio.to_thread(segments.read_range, self.directory, lsn, end)

    def align(self, lsn: int) -> WalPosition:
        """The last record's end at or below `lsn`. Reads files.

        Raises:
            OutOfRange: LSN_TOO_OLD, where none is known any more.
            DataLoss: SEGMENT_DAMAGED.
        """
        first = self.first_end()
        if first is None or lsn < first.flush_lsn:
            raise self._dropped(lsn)
        return segments.align(self.directory, first, self.end, lsn)

    def first_end(self) -> WalPosition | None:
        """The first record's end: WAL that was dropped ends with a segment, a log that was begun
        later with a record. Reads files."""
        if self.base_lsn == self.start.flush_lsn:
            return self.start
        if self.base_lsn == self.end.flush_lsn:
            return self.end
        if self.base_lsn % segments.SEGMENT != 0:
            return WalPosition(self.base_lsn, 0)
        found = segments.first_end(self.directory, self.base_lsn, self.end.flush_lsn)
        return None if found is None else WalPosition(found, 0)

    def rolled_back(self, lsn: int) -> DataLoss:
        """What it means that somebody has all WAL below `lsn`, and no other safekeeper gave it."""
        return DataLoss(
            "LOG_ROLLED_BACK",
            f"Whoever asks for WAL from {format_lsn(lsn)} on has all before it, but the log in "
            f"{self.directory} ends at {format_lsn(self.end.flush_lsn)}: it is an older copy, "
            "without what was committed since.",
            "Restore the newest copy of the directory; nothing was cut.",
        )

    def _dropped(self, lsn: int) -> OutOfRange:
        return OutOfRange(
            "LSN_TOO_OLD",
            f"WAL at {format_lsn(lsn)} has been dropped; it is kept from "
            f"{format_lsn(self.base_lsn)} on.",
            "The page server has what it said.",
        )
