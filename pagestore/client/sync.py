"""PageClient: the page server's calls for programs without an event loop.

Its methods are made from those of :class:`AsyncPageClient`, whose retries and streams serve both
(shared_loop.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from pagestore.client import shared_loop
from pagestore.client.closing import BlockingClosing
from pagestore.client.credentials import Credentials
from pagestore.client.page import AsyncPageClient, ReadLsn, Rel
from pagestore.client.retrying import DEFAULT_TIMEOUT
from pagestore.client.shared_loop import blocking
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import page_pb2 as pb

_T = TypeVar("_T")


class PageClient(BlockingClosing):
    """Calls one page server at `address` ("host:port"). Threads may share it."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: Credentials | None = None,
    ) -> None:
        self.address = address
        self._closed = False

        async def connect() -> AsyncPageClient:
            return AsyncPageClient(address, timeout=timeout, credentials=credentials)

        self._client = self._run(connect())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return shared_loop.run(work)

    def close(self) -> None:
        """Ends the connection. Repeatable."""
        if not self._closed:
            self._closed = True
            self._run(self._client.close())

    @overload
    def get_pages(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int | ReadLsn,
        rel: Rel,
        blocks: Sequence[int],
        *,
        wait_ms: int = 0,
        array: Literal[False] = False,
    ) -> list[bytes]: ...
    @overload
    def get_pages(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int | ReadLsn,
        rel: Rel,
        blocks: Sequence[int],
        *,
        wait_ms: int = 0,
        array: Literal[True],
    ) -> npt.NDArray[np.uint8]: ...
    def get_pages(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int | ReadLsn,
        rel: Rel,
        blocks: Sequence[int],
        *,
        wait_ms: int = 0,
        array: bool = False,
    ) -> list[bytes] | npt.NDArray[np.uint8]:
        """Page images in the order of `blocks`: a list of bytes, or with `array` a numpy
        array of shape (len(blocks), 8192)."""
        pages = self._run(
            self._client.get_pages(tenant, timeline, lsn, rel, blocks, wait_ms=wait_ms)
        )
        if not array:
            return pages
        return np.frombuffer(b"".join(pages), np.uint8).reshape(len(pages), 8192)

    def base_backup(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int,
        *,
        hot_pages: bool = True,
        wait_ms: int = 0,
    ) -> Iterator[pb.BaseBackupChunk]:
        """Chunks of a base backup at `lsn`."""
        chunks = self._client.base_backup(
            tenant, timeline, lsn, hot_pages=hot_pages, wait_ms=wait_ms
        )
        while (chunk := self._run(_following(chunks))) is not None:
            yield chunk

    get_rel_size = blocking(AsyncPageClient.get_rel_size)
    get_db_size = blocking(AsyncPageClient.get_db_size)
    get_slru_segment = blocking(AsyncPageClient.get_slru_segment)
    lease = blocking(AsyncPageClient.lease)
    create_timeline = blocking(AsyncPageClient.create_timeline)
    delete_timeline = blocking(AsyncPageClient.delete_timeline)
    get_timeline = blocking(AsyncPageClient.get_timeline)
    list_timelines = blocking(AsyncPageClient.list_timelines)
    import_timeline = blocking(AsyncPageClient.import_timeline)
    lsn_by_time = blocking(AsyncPageClient.lsn_by_time)
    last_commit = blocking(AsyncPageClient.last_commit)
    flush = blocking(AsyncPageClient.flush)


async def _following(chunks: AsyncIterator[_T]) -> _T | None:
    return await anext(chunks, None)
