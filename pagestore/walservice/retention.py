"""Dropping the WAL of one timeline that nobody needs any more.

It goes by whole segments, in this order: the horizon is made durable, then told to readers, then
files are removed. A crash in between leaves files below the horizon, which the next drop removes.

A log at rest, of which everybody has everything, goes altogether: its horizon is its end then, and
what is appended next begins a segment's file as in a log that was begun there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from pagestore.consensus.acceptor import State, WalPosition
from pagestore.errors import ResourceExhausted, Unavailable
from pagestore.walservice import horizon, segments
from pagestore.walservice.horizon import Horizon
from pagestore.walservice.owner import Owner
from pagestore.walservice.stored import write_failure

PAUSE_SECONDS = 10.0
"""Between attempts to drop when the disk fails."""
_log = structlog.get_logger(__name__)


class Retention:
    """
    Args:
        share: told how many bytes of files nobody needs; how many of them may stay.
    """

    def __init__(
        self, directory: Path, owner: Owner, known: Horizon, share: Callable[[int], int]
    ) -> None:
        self.horizon = known
        self.lock = asyncio.Lock()
        self._directory = directory
        self._owner = owner
        self._share = share
        self._not_before = 0.0

    async def release(self, consumer: str, lsn: int) -> None:
        """A consumer needs nothing below `lsn` any more. That it exists is durable when this
        returns; how far it is may be told again after a crash.

        Raises:
            ResourceExhausted: STORE_FULL.
            Unavailable: WAL_WRITE_FAILED.
        """
        async with self.lock:
            released = self.horizon.released(consumer, lsn)
            if released.consumers.keys() != self.horizon.consumers.keys():
                await self._replace(released)
            self.horizon = released

    def due(self, state: State, stored: WalPosition) -> int:
        """The LSN below which WAL can go now; 0 when there is nothing to do, or the disk failed
        a moment ago."""
        keep_bytes = self._share(spare(state, stored, self.horizon))
        if time.monotonic() < self._not_before:
            return 0
        lsn = droppable(state, stored, self.horizon, keep_bytes)
        return lsn if lsn > self.horizon.base_lsn(state) else 0

    async def let_go(self, state: State, stored: WalPosition) -> bool:
        """Removes all there is of a log at rest, which is its owner's; whether it could.

        Raises:
            Unavailable: WAL_WRITE_FAILED. ResourceExhausted: STORE_FULL. OSError.
        """
        async with self.lock:
            if not is_consumed(state, stored, self.horizon):
                return False
            await self.keep_from(state.position.flush_lsn)
            await asyncio.to_thread(segments.remove_all, self._directory)
            return True

    async def drop(self, lsn: int) -> None:
        """Removes the WAL below `lsn`, which begins a segment. When it fails, it becomes due
        again later."""
        async with self.lock:
            if lsn <= self.horizon.oldest_lsn:
                return
            try:
                await self.keep_from(lsn)
                await asyncio.to_thread(segments.remove_before, self._directory, lsn)
            except (Unavailable, ResourceExhausted, OSError) as error:
                self._not_before = time.monotonic() + PAUSE_SECONDS
                _log.warning("not dropped", directory=str(self._directory), error=str(error))

    async def keep_from(self, lsn: int) -> None:
        """Says that there is no WAL below `lsn`. The lock is the caller's."""
        moved = dataclasses.replace(self.horizon, oldest_lsn=lsn)
        await self._replace(moved)
        self.horizon = moved

    async def _replace(self, new: Horizon) -> None:
        try:
            await asyncio.to_thread(horizon.replace, self._directory, new, self._owner)
        except OSError as error:
            raise write_failure(self._directory, error) from error


def needed(state: State, stored: WalPosition, known: Horizon) -> int:
    """The LSN below which nobody needs anything; 0 where that is not known.

    Members count by what they have of the log that this one follows; one that was never heard
    in its term holds everything back. `stored` is where the log's end would be searched from.
    """
    if not known.consumers:
        return 0
    heard = {item.member: item.flush_lsn for item in state.heard if item.term == state.writing_term}
    if any(peer not in heard for peer in state.peers):
        return 0
    return min(
        state.commit_lsn,
        stored.flush_lsn,
        state.position.flush_lsn,
        *known.consumers.values(),
        *(heard[peer] for peer in state.peers),
    )


def droppable(state: State, stored: WalPosition, known: Horizon, keep_bytes: int) -> int:
    """The segment's start below which WAL can go, so that `keep_bytes` and no whole segment more
    stay of what nobody needs."""
    return _segment(max(needed(state, stored, known) - keep_bytes - 1, 0))


def is_consumed(state: State, stored: WalPosition, known: Horizon) -> bool:
    """Whether nobody needs anything of the log, and no compute is about to go on with it."""
    end = state.position.flush_lsn
    return state.attachment is None and needed(state, stored, known) == end


def spare(state: State, stored: WalPosition, known: Horizon) -> int:
    """Bytes of segment files that nobody needs."""
    base, end = known.base_lsn(state), state.position.flush_lsn
    if base == end:
        return 0
    if is_consumed(state, stored, known):
        return _segment(end - 1) + segments.SEGMENT - _segment(base)
    return max(_segment(max(needed(state, stored, known) - 1, 0)) - _segment(base), 0)


def _segment(lsn: int) -> int:
    return lsn // segments.SEGMENT * segments.SEGMENT
