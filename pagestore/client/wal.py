"""A client of one safekeeper, for the services that use it.

A call that finds the safekeeper away is repeated, with growing pauses, until `timeout`
seconds have passed: every call is idempotent, but for a vote for "one more than the highest",
which only wastes a term. The two streams, `read_wal` and `watch_commits`, are not repeated:
whoever follows WAL for ever knows better where to resume.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from pagestore.client.errors import from_rpc_error
from pagestore.errors import Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import wal_pb2 as pb
from pagestore.v1 import wal_pb2_grpc

MAX_MESSAGE_BYTES = 64 << 20
DEFAULT_TIMEOUT = 30.0
ANSWER_TIMEOUT = 60.0

_T = TypeVar("_T")
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The services are on this machine or this network, whatever http_proxy says.
    ("grpc.enable_http_proxy", 0),
    # A server that comes back is found within a second, not after minutes of backoff.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class WalClient:
    """Calls the safekeeper at `address` ("host:port"). Use it from one event loop.

    Every call raises the PagestoreError that the safekeeper answered with; see
    docs/formats/safekeeper.md for the reasons.
    """

    def __init__(self, address: str, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.address = address
        self.timeout = timeout
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        stubs: Any = wal_pb2_grpc
        self._stub = stubs.WalServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close(None)

    async def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        start_lsn: int,
        *,
        prev_record_lsn: int = 0,
        system_id: int = 0,
    ) -> pb.WalTimelineStatus:
        """Makes a log that begins at `start_lsn`, a record's end.

        Args:
            prev_record_lsn: start of the record that ends there, 0 if unknown.
            system_id: the only cluster whose WAL is taken; 0 for any.
        """
        request = pb.WalCreateTimelineRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            start_lsn=start_lsn,
            prev_record_lsn=prev_record_lsn,
            system_id=system_id,
        )
        return await self._call(self._stub.CreateTimeline, request)

    async def delete_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        """Removes a log; one that is already gone is no error."""
        request = pb.WalDeleteTimelineRequest(tenant_id=tenant.raw, timeline_id=timeline.raw)
        await self._call(self._stub.DeleteTimeline, request)

    async def get_status(self, tenant: TenantId, timeline: TimelineId) -> pb.WalTimelineStatus:
        request = pb.WalGetStatusRequest(tenant_id=tenant.raw, timeline_id=timeline.raw)
        return await self._call(self._stub.GetStatus, request)

    async def vote(self, tenant: TenantId, timeline: TimelineId, term: int = 0) -> pb.VoteResponse:
        """Asks for the promise of `term`; 0 for one more than the highest promised."""
        request = pb.VoteRequest(tenant_id=tenant.raw, timeline_id=timeline.raw, term=term)
        return await self._call(self._stub.Vote, request)

    async def append_wal(
        self, tenant: TenantId, timeline: TimelineId, term: int, lsn: int, data: bytes
    ) -> pb.AppendWalResponse:
        """Appends whole records at the flush LSN; durable when it returns."""
        request = pb.AppendWalRequest(
            tenant_id=tenant.raw, timeline_id=timeline.raw, term=term, lsn=lsn, data=data
        )
        return await self._call(self._stub.AppendWal, request)

    async def attach_compute(
        self, tenant: TenantId, timeline: TimelineId, term: int, conninfo: str, start_lsn: int
    ) -> None:
        """Makes the safekeeper pull from this compute, until detached or a higher term."""
        request = pb.AttachComputeRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            conninfo=conninfo,
            start_lsn=start_lsn,
        )
        await self._call(self._stub.AttachCompute, request)

    async def detach_compute(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        term: int,
        *,
        wait_flush_lsn: int = 0,
        wait_ms: int = 0,
    ) -> int:
        """Ends the pulling, once `wait_flush_lsn` is durable; returns the flush LSN."""
        request = pb.DetachComputeRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            term=term,
            wait_flush_lsn=wait_flush_lsn,
            wait_ms=wait_ms,
        )
        answer: pb.DetachComputeResponse = await self._call(
            self._stub.DetachCompute, request, ANSWER_TIMEOUT + wait_ms / 1000
        )
        return answer.flush_lsn

    async def align_lsn(self, tenant: TenantId, timeline: TimelineId, lsn: int) -> tuple[int, int]:
        """The end of the last complete record at or below `lsn`, and that record's start."""
        request = pb.AlignLsnRequest(tenant_id=tenant.raw, timeline_id=timeline.raw, lsn=lsn)
        answer = await self._call(self._stub.AlignLsn, request)
        return answer.lsn, answer.prev_record_lsn

    async def read_wal(
        self, tenant: TenantId, timeline: TimelineId, start_lsn: int, *, linger_ms: int = 0
    ) -> AsyncIterator[pb.WalChunk]:
        """Committed WAL from `start_lsn` on; ends when none came for `linger_ms`."""
        request = pb.ReadWalRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            start_lsn=start_lsn,
            linger_ms=linger_ms,
        )
        async for chunk in self._stream(self._stub.ReadWal(request)):
            yield chunk

    async def watch_commits(self, consumer: str) -> AsyncIterator[pb.CommitUpdate]:
        """The commit LSN of every timeline, then every change, for ever."""
        request = pb.WatchCommitsRequest(consumer=consumer)
        async for update in self._stream(self._stub.WatchCommits(request)):
            yield update

    async def _stream(self, call: Any) -> AsyncIterator[Any]:
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        finally:
            call.cancel()

    async def _call(
        self,
        method: Callable[..., Awaitable[_T]],
        request: Any,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> _T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        pause = 0.02
        while True:
            try:
                return await method(request, timeout=answer_timeout)
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self.address)
                if not isinstance(failure, Unavailable) or loop.time() + pause > deadline:
                    raise failure from error
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, 1.0)
