"""The safekeepers that WAL can be read from: how far each is, and which to ask.

Every one of them tells the truth about what is committed, but perhaps not the newest: it may
be behind, cut off, or frozen. So the commit LSN of a timeline is the highest that any of them
tells, and its WAL is asked of one that tells the highest. Reading the same LSN from another one
gives the same bytes, since only committed WAL is served: to fail over is to ask another for
the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from pagestore.client.walservice import WalPiece
from pagestore.errors import Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.ingest.waiters import TimelineKey
from pagestore.v1 import wal_pb2

STALL_SECONDS = 0.5
"""A stream that brings nothing for that long, although another safekeeper has more, is left."""


class WalSource(Protocol):
    """What is needed of pagestore.client.wal.WalClient."""

    address: str

    def watch_commits(
        self, consumer: str, *, silence: float | None = None
    ) -> AsyncIterator[wal_pb2.CommitUpdate]: ...
    def read_wal(
        self, tenant: TenantId, timeline: TimelineId, start_lsn: int, *, linger_ms: int = 0
    ) -> AsyncGenerator[WalPiece, None]: ...
    def read_back(
        self, tenant: TenantId, timeline: TimelineId, start_lsn: int, end_lsn: int
    ) -> AsyncGenerator[WalPiece, None]: ...
    async def get_status(
        self, tenant: TenantId, timeline: TimelineId
    ) -> wal_pb2.WalTimelineStatus: ...
    async def release_wal(
        self, consumer: str, positions: Iterable[tuple[TenantId, TimelineId, int]]
    ) -> None: ...


@dataclass(eq=False)
class Source:
    """One safekeeper, and the commit LSNs that it has told."""

    client: WalSource
    commits: dict[TimelineKey, int] = field(default_factory=dict)
    told_all: bool = False
    """Whether the present subscription has told how far everything was when it began."""
    lost: str = ""
    """Why it tells nothing at the moment."""
    unreleased: set[TimelineKey] = field(default_factory=set)
    """Of which it has not been told how far they are durable (releases.py)."""


class Sources:
    """
    Args:
        connect: makes the client of a safekeeper that another one tells of.
    """

    def __init__(
        self, clients: Iterable[WalSource], connect: Callable[[str], WalSource] | None = None
    ) -> None:
        self.all = [Source(client) for client in clients]
        self._connect = connect

    def __len__(self) -> int:
        return len(self.all)

    def learn(self, address: str) -> Source | None:
        """The source, if it is new."""
        if self._connect is None or any(item.client.address == address for item in self.all):
            return None
        self.all.append(Source(self._connect(address)))
        return self.all[-1]

    def commit_lsn(self, key: TimelineKey) -> int:
        """The highest that any has told; 0 if none told any."""
        return max((source.commits.get(key, 0) for source in self.all), default=0)

    def ahead(self, key: TimelineKey, failed: Collection[Source]) -> Source:
        """Whom to ask for a timeline's WAL: who is furthest, of those that have not `failed`."""
        # Those who are equally far share the timelines.
        first = key[1].raw[-1] % len(self.all)
        turns = (*self.all[first:], *self.all[:first])
        able = [source for source in turns if source not in failed]
        return max(able, key=lambda source: (not source.lost, source.commits.get(key, 0)))


async def unless_stalled(
    stream: AsyncGenerator[WalPiece, None], start_lsn: int, known: Callable[[], int]
) -> AsyncGenerator[WalPiece, None]:
    """`stream`, until it brings nothing for STALL_SECONDS while more is known to be committed.

    Raises:
        Unavailable: WAL_STALLED.
    """
    reached = start_lsn
    async with aclosing(stream):
        while True:
            coming = asyncio.ensure_future(anext(stream, None))
            try:
                while not (await asyncio.wait([coming], timeout=STALL_SECONDS))[0]:
                    if known() > reached:
                        raise Unavailable("WAL_STALLED", "No more WAL comes, though there is more.")
                chunk = coming.result()
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait([coming])
                del coming  # as in `joined`
            if chunk is None:
                return
            reached = chunk.end
            yield chunk
