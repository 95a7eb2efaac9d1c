"""What a compute and the control plane need of the WAL service, be it one safekeeper or several.

Two implementations: :class:`pagestore.client.wal.WalClient` for one safekeeper, which is its own
majority, and :class:`pagestore.quorum.client.QuorumClient`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import wal_pb2 as pb


class WalPiece(NamedTuple):
    """Bytes of a log from `lsn` on; taken out of their message once, since each look at a
    message's field copies it."""

    lsn: int
    data: bytes

    @property
    def end(self) -> int:
        return self.lsn + len(self.data)


@dataclass(frozen=True, slots=True)
class Won:
    """A term: nobody with a lower one can commit any more.

    Args:
        end_lsn: where the log ends; whoever won continues it there.
        prev_record_lsn: start of the record that ends there, 0 if unknown.
        needed, standbys: a commit is durable when so many of these have confirmed it.
    """

    term: int
    end_lsn: int
    prev_record_lsn: int
    needed: int
    standbys: tuple[str, ...]


class WalService(Protocol):
    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the safekeepers that new timelines are made on, ascending."""
        ...

    async def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        start_lsn: int,
        *,
        prev_record_lsn: int = 0,
        system_id: int = 0,
        members: Sequence[int] | None = None,
    ) -> pb.WalTimelineStatus:
        """Makes a log that begins at `start_lsn`, a record's end; again: without effect.

        Args:
            prev_record_lsn: start of the record that ends there, 0 if unknown.
            system_id: the only cluster whose WAL is taken; 0 for any.
            members: on these instead of `numbers`.
        """
        ...

    async def remove_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        """Ends what is attached, and removes the log everywhere; gone already is no error."""
        ...

    async def get_status(self, tenant: TenantId, timeline: TimelineId) -> pb.WalTimelineStatus:
        """Its commit LSN is that of now: at least what any client was told before."""
        ...

    async def is_committed(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> bool:
        """Whether a majority is known to have the log up to there, as far as can be told now."""
        ...

    async def win_term(self, tenant: TenantId, timeline: TimelineId) -> Won:
        """
        Raises:
            Aborted: TERM_LOST; somebody else started this timeline meanwhile.
        """
        ...

    async def check_term(self, tenant: TenantId, timeline: TimelineId, term: int) -> None:
        """
        Raises:
            Aborted: STALE_TERM; whoever has won `term` can never commit any more.
        """
        ...

    async def append_wal(
        self, tenant: TenantId, timeline: TimelineId, term: int, lsn: int, data: bytes
    ) -> pb.AppendWalResponse:
        """Whole records at the end of the log; a majority has made them durable afterwards."""
        ...

    async def attach_compute(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        conninfo: str,
        start_lsn: int,
        *,
        hold: bool = False,
    ) -> None:
        """From now on its WAL is pulled.

        Args:
            hold: only once it is attached again without this: it does not listen yet.
        """
        ...

    async def detach_compute(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        *,
        wait_flush_lsn: int = 0,
        wait_ms: int = 0,
    ) -> int:
        """Once a majority has `wait_flush_lsn`; returns the end of what a majority has."""
        ...

    def read_back(
        self, tenant: TenantId, timeline: TimelineId, start_lsn: int, end_lsn: int
    ) -> AsyncIterator[WalPiece]:
        """Committed WAL of [start_lsn, end_lsn), or what is left of it: it may begin later."""
        ...

    async def align_lsn(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> tuple[int, int]:
        """The end of the last complete record at or below `lsn`, and that record's start."""
        ...
