"""PageClient: the page server's calls for programs without an event loop.

Every call runs on one event loop in a daemon thread, which all clients of the process share, so
that the retries and streams of :class:`AsyncPageClient` serve both. That loop is never closed:
grpc.aio goes on delivering events to a loop that it has once seen.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from pagestore.client.closing import BlockingClosing
from pagestore.client.credentials import Credentials
from pagestore.client.page import AsyncPageClient, ReadLsn, Rel
from pagestore.client.retrying import DEFAULT_TIMEOUT
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import page_pb2 as pb

_T = TypeVar("_T")


_starting = threading.Lock()


def _shared_loop() -> asyncio.AbstractEventLoop:
    with _starting:
        return _start_loop()


@functools.cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="pagestore-client", daemon=True).start()
    return loop


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
        self._loop = _shared_loop()
        self._closed = False

        async def connect() -> AsyncPageClient:
            return AsyncPageClient(address, timeout=timeout, credentials=credentials)

        self._client = self._run(connect())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

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

    def get_rel_size(
        self, tenant: TenantId, timeline: TimelineId, lsn: int | ReadLsn, rel: Rel
    ) -> int | None:
        """Blocks of a relation's fork, or None where it does not exist."""
        return self._run(self._client.get_rel_size(tenant, timeline, lsn, rel))

    def get_db_size(
        self, tenant: TenantId, timeline: TimelineId, lsn: int | ReadLsn, db_oid: int
    ) -> int:
        """Bytes of all relations of a database."""
        return self._run(self._client.get_db_size(tenant, timeline, lsn, db_oid))

    def get_slru_segment(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int | ReadLsn,
        kind: pb.SlruKind,
        segment: int,
    ) -> bytes:
        """The pages of an SLRU segment, up to 32 of 8192 bytes."""
        return self._run(self._client.get_slru_segment(tenant, timeline, lsn, kind, segment))

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

    def lease(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int,
        ttl_seconds: int,
        *,
        wait_ms: int = 0,
    ) -> int:
        """Keeps `lsn` readable, once it is; returns when the lease expires, in Unix seconds."""
        return self._run(self._client.lease(tenant, timeline, lsn, ttl_seconds, wait_ms=wait_ms))

    def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        parent: TimelineId,
        branch_lsn: int,
        *,
        wait_ms: int = 0,
    ) -> pb.TimelineInfo:
        """Branches `parent` at `branch_lsn`, the end of a record. Idempotent."""
        return self._run(
            self._client.create_timeline(tenant, timeline, parent, branch_lsn, wait_ms=wait_ms)
        )

    def delete_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        self._run(self._client.delete_timeline(tenant, timeline))

    def get_timeline(self, tenant: TenantId, timeline: TimelineId) -> pb.TimelineInfo:
        return self._run(self._client.get_timeline(tenant, timeline))

    def list_timelines(self, tenant: TenantId) -> list[pb.TimelineInfo]:
        return self._run(self._client.list_timelines(tenant))

    def import_timeline(self, chunks: Iterable[pb.ImportChunk]) -> pb.TimelineInfo:
        """Sends a stopped cluster; the timeline is durable on return."""
        return self._run(self._client.import_timeline(chunks))

    def lsn_by_time(
        self, tenant: TenantId, timeline: TimelineId, unix_micros: int
    ) -> pb.GetLsnByTimeResponse:
        return self._run(self._client.lsn_by_time(tenant, timeline, unix_micros))

    def last_commit(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> int:
        return self._run(self._client.last_commit(tenant, timeline, lsn))

    def flush(self, tenant: TenantId, timeline: TimelineId) -> pb.TimelineInfo:
        """Returns when everything ingested is in files."""
        return self._run(self._client.flush(tenant, timeline))


async def _following(chunks: AsyncIterator[_T]) -> _T | None:
    return await anext(chunks, None)
