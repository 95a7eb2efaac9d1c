"""PageClient: the page server's calls for programs without an event loop.

Its methods are made from those of :class:`AsyncPageClient`, whose retries and streams serve both
(shared_loop.py).
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload

import numpy as np
import numpy.typing as npt

from pagestore.client import shared_loop
from pagestore.client.closing import BlockingClosing
from pagestore.client.credentials import Credentials
from pagestore.client.page import AsyncPageClient, ReadLsn, Rel
from pagestore.client.retrying import DEFAULT_TIMEOUT
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import page_pb2 as pb

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _blocking(
    method: Callable[Concatenate[AsyncPageClient, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[PageClient, _P], _T]:
    """The same method, which returns when it has its answer."""

    @functools.wraps(method)
    def call(client: PageClient, /, *args: _P.args, **options: _P.kwargs) -> _T:
        return client._run(method(client._client, *args, **options))

    return call


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

    get_rel_size = _blocking(AsyncPageClient.get_rel_size)
    get_db_size = _blocking(AsyncPageClient.get_db_size)
    get_slru_segment = _blocking(AsyncPageClient.get_slru_segment)
    lease = _blocking(AsyncPageClient.lease)
    create_timeline = _blocking(AsyncPageClient.create_timeline)
    delete_timeline = _blocking(AsyncPageClient.delete_timeline)
    get_timeline = _blocking(AsyncPageClient.get_timeline)
    list_timelines = _blocking(AsyncPageClient.list_timelines)
    import_timeline = _blocking(AsyncPageClient.import_timeline)
    lsn_by_time = _blocking(AsyncPageClient.lsn_by_time)
    last_commit = _blocking(AsyncPageClient.last_commit)
    flush = _blocking(AsyncPageClient.flush)


async def _following(chunks: AsyncIterator[_T]) -> _T | None:
    return await anext(chunks, None)
