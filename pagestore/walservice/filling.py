"""Filling a log from a peer that is elected in the same term.

The donor gives bytes, cut anywhere; what is appended are whole records, in large pieces, each a
message of its own to the acceptor: a higher term that is promised meanwhile ends the filling.
What one donor does not give is asked of the next, from where the log then ends.

Donors may have dropped what this one lacks, if it lost its disk: then everybody who may ask for
that WAL has it, and the log begins where the donors' does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from pagestore import _native
from pagestore.client.wal import WalClient
from pagestore.client.walservice import WalPiece
from pagestore.consensus.acceptor import WalPosition
from pagestore.errors import FailedPrecondition, OutOfRange, PagestoreError
from pagestore.ids import format_lsn
from pagestore.walservice.segments import PAGE
from pagestore.walservice.timeline import WalTimeline
from pagestore.walservice.watch import TimelineKey

PIECE = 8 << 20
"""Bytes made durable at once, about."""
DONOR_SILENCE = 5.0
"""Seconds after which a donor that says nothing is given up."""


class DonorFailed(Exception):
    """What a donor answered, or that it did not."""

    def __init__(self, cause: PagestoreError) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def fill(
    key: TimelineKey, timeline: WalTimeline, term: int, end_lsn: int, donors: Sequence[str]
) -> int:
    """Appends what `donors` (addresses, the best first) have up to `end_lsn`; returns the flush
    LSN, which is there or beyond.

    Raises:
        FailedPrecondition: NOT_FILLED; what came is kept.
        PagestoreError: the log itself refused what came, or could not write it.
    """
    async with timeline.filling:
        failures: list[PagestoreError] = []
        for from_where_kept in (False, True):
            for address in donors:
                try:
                    await _fill_from(key, timeline, term, end_lsn, address, from_where_kept)
                except DonorFailed as error:
                    failures.append(error.cause)
                if timeline.state.position.flush_lsn >= end_lsn:
                    return timeline.state.position.flush_lsn
            if not any(_is_dropped(error) for error in failures):
                break
    raise FailedPrecondition(
        "NOT_FILLED",
        f"The log ends at {format_lsn(timeline.state.position.flush_lsn)}, not at "
        f"{format_lsn(end_lsn)}: {failures[-1].message if failures else 'nobody gave more'}",
        "Ask again, or name other donors.",
    )


def _is_dropped(error: PagestoreError) -> bool:
    return isinstance(error, OutOfRange) and error.reason == "LSN_TOO_OLD"


async def _fill_from(
    key: TimelineKey,
    timeline: WalTimeline,
    term: int,
    end_lsn: int,
    address: str,
    from_where_kept: bool,
) -> None:
    start_lsn = 0 if from_where_kept else timeline.state.position.flush_lsn
    buffer, wanted = bytearray(), PIECE
    async with WalClient(address) as client:
        stream = _read(client.read_log(*key, term, start_lsn, end_lsn, silence=DONOR_SILENCE))
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if not buffer and from_where_kept:
                    await timeline.begin_at(term, chunk.lsn)
                    from_where_kept = False
                if chunk.lsn != timeline.state.position.flush_lsn + len(buffer):
                    return
                buffer += chunk.data
                if len(buffer) >= wanted:
                    before = len(buffer)
                    await _append(timeline, term, buffer)
                    wanted = PIECE if len(buffer) < before else 2 * wanted
        if buffer:
            await _append(timeline, term, buffer)


async def _read(chunks: AsyncIterator[WalPiece]) -> AsyncGenerator[WalPiece, None]:
    try:
        async for chunk in chunks:
            yield chunk
    except PagestoreError as error:
        raise DonorFailed(error) from error


async def _append(timeline: WalTimeline, term: int, buffer: bytearray) -> None:
    """Appends the whole records at the buffer's beginning, and takes them out of it."""
    at = timeline.state.position
    end = await asyncio.to_thread(_last_end, at, buffer)
    length = end - at.flush_lsn
    if length > 0:
        await timeline.append(term, at.flush_lsn, bytes(buffer[:length]))
        del buffer[:length]


def _last_end(at: WalPosition, buffer: bytearray) -> int:
    into_page = at.flush_lsn % PAGE
    page = at.flush_lsn - into_page
    data = bytes(into_page) + buffer
    found = _native.wal_align(data, page, page + len(data), at.flush_lsn, at.prev_record_lsn)
    return found[0] if found is not None else at.flush_lsn
