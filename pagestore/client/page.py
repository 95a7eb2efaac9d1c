"""Clients of PageService and TimelineService.

:class:`AsyncPageClient` is the whole of it; :class:`PageClient` (pagestore.client.sync) gives
the same calls to programs without an event loop. Pages travel over bidirectional streams,
which the client opens, keeps for the next call, and opens again when they break. A call that
finds the page server away is repeated, with growing pauses, until `timeout` seconds have
passed; calls that stream to or from the server once begun are not repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

import grpc

from pagestore.client.credentials import Credentials
from pagestore.client.errors import error_from_code, from_rpc_error
from pagestore.client.retrying import DEFAULT_TIMEOUT, RetryingClient
from pagestore.errors import DataLoss, DeadlineExceeded, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.v1 import page_pb2 as pb
from pagestore.v1 import page_pb2_grpc

MAX_BLOCKS = 1024
"""Blocks of one request; get_pages splits what is longer."""
ANSWER_TIMEOUT = 75.0
"""Seconds for one answer: longer than the longest wait_ms that a server grants."""

_EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009  (grpc-stubs does not know it)
_BROKEN_PIPE = "Internal error from Core"
"""What grpc.aio says of a write to a stream whose connection is gone."""


class ReadLsn(NamedTuple):
    """Read at `request_lsn`; with `not_modified_since_lsn` set, without waiting for ingest."""

    request_lsn: int
    not_modified_since_lsn: int = 0


class Rel(NamedTuple):
    """A relation's fork: 0 main, 1 fsm, 2 vm, 3 init. `db_oid` is 0 for shared relations."""

    spc_oid: int
    db_oid: int
    rel_number: int
    fork: int = 0


def read_lsn_message(lsn: int | ReadLsn) -> pb.ReadLsn:
    at = lsn if isinstance(lsn, ReadLsn) else ReadLsn(lsn)
    return pb.ReadLsn(request_lsn=at.request_lsn, not_modified_since_lsn=at.not_modified_since_lsn)


def rel_message(rel: Rel) -> pb.RelTag:
    return pb.RelTag(
        spc_oid=rel.spc_oid, db_oid=rel.db_oid, rel_number=rel.rel_number, fork=rel.fork
    )


def check_pages(response: pb.GetPagesResponse, blocks: int) -> list[bytes]:
    """The pages of a response.

    Raises:
        PagestoreError: the in-band status.
        DataLoss: MALFORMED_RESPONSE; not `blocks` pages of 8192 bytes.
    """
    if response.HasField("status"):
        status = response.status
        raise error_from_code(status.code, status.reason, status.message)
    pages = list(response.pages)
    if len(pages) != blocks or any(len(page) != 8192 for page in pages):
        raise DataLoss(
            "MALFORMED_RESPONSE",
            f"The page server answered {len(pages)} pages for {blocks} blocks.",
        )
    return pages


class PageStream:
    """One GetPages stream: send requests ahead, receive the answers in their order."""

    def __init__(self, call: Any, peer: str) -> None:
        self._call = call
        self._peer = peer
        self._pending: list[int] = []
        self._broken = False

    async def send(self, request: pb.GetPagesRequest) -> None:
        """Queues a request; its answer comes after those of earlier ones."""
        with self._translated():
            await self._call.write(request)
        self._pending.append(len(request.blocks))

    async def receive_response(self) -> pb.GetPagesResponse:
        """The next answer, in-band status and all."""
        with self._translated():
            async with asyncio.timeout(ANSWER_TIMEOUT):
                response = await self._call.read()
            if response is _EOF:
                code = await self._call.code()
                self._broken = True
                raise Unavailable("STREAM_ENDED", f"{self._peer} ended the stream ({code.name}).")
        self._pending.pop(0)
        assert isinstance(response, pb.GetPagesResponse)
        return response

    async def receive(self) -> list[bytes]:
        """The pages of the oldest unanswered request; raises its in-band error."""
        blocks = self._pending[0]
        return check_pages(await self.receive_response(), blocks)

    @property
    def reusable(self) -> bool:
        """Nothing is under way, and nothing has failed."""
        return not (self._pending or self._broken or self._call.done())

    def cancel(self) -> None:
        self._call.cancel()

    @contextlib.contextmanager
    def _translated(self) -> Any:
        try:
            yield
        except grpc.RpcError as error:
            self._broken = True
            if error.details() == _BROKEN_PIPE:
                raise Unavailable("STREAM_ENDED", f"The stream to {self._peer} broke.") from error
            raise from_rpc_error(error, self._peer) from error
        except TimeoutError as error:
            raise DeadlineExceeded(
                "DEADLINE_EXCEEDED", f"{self._peer} did not answer in {ANSWER_TIMEOUT:.0f} s."
            ) from error
        except asyncio.InvalidStateError as error:
            raise Unavailable("STREAM_ENDED", f"The stream to {self._peer} is over.") from error


class AsyncPageClient(RetryingClient):
    """Calls one page server at `address` ("host:port"). Use it from one event loop."""

    answer_timeout = ANSWER_TIMEOUT

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: Credentials | None = None,
    ) -> None:
        super().__init__(address, timeout=timeout, credentials=credentials)
        stubs: Any = page_pb2_grpc
        self._pages = stubs.PageServiceStub(self._channel)
        self._timelines = stubs.TimelineServiceStub(self._channel)
        self._idle_streams: list[PageStream] = []
        self._request_ids = itertools.count(1)

    async def close(self) -> None:
        while self._idle_streams:
            self._idle_streams.pop().cancel()
        await super().close()

    # Pages

    def pages_request(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int | ReadLsn,
        rel: Rel,
        blocks: Iterable[int],
        wait_ms: int = 0,
    ) -> pb.GetPagesRequest:
        """A message for :meth:`PageStream.send`; at most 1,024 blocks."""
        return pb.GetPagesRequest(
            request_id=next(self._request_ids),
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            read_lsn=read_lsn_message(lsn),
            rel=rel_message(rel),
            blocks=blocks,
            wait_ms=wait_ms,
        )

    def open_stream(self) -> PageStream:
        """A stream of one's own, for pipelining; cancel it at the end."""
        return PageStream(self._pages.GetPages(), self.address)

    async def get_pages(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int | ReadLsn,
        rel: Rel,
        blocks: Sequence[int],
        *,
        wait_ms: int = 0,
    ) -> list[bytes]:
        """The blocks' page images (8192 bytes each), in the order of `blocks`."""
        parts = [blocks[i : i + MAX_BLOCKS] for i in range(0, len(blocks), MAX_BLOCKS)] or [blocks]
        requests = [self.pages_request(tenant, timeline, lsn, rel, part, wait_ms) for part in parts]
        return await self._retried(lambda: self._exchange(requests))

    async def _exchange(self, requests: list[pb.GetPagesRequest]) -> list[bytes]:
        stream = self._take_stream()
        pages: list[bytes] = []
        try:
            await stream.send(requests[0])
            for following in [*requests[1:], None]:
                if following is not None:
                    await stream.send(following)
                pages += await stream.receive()
        finally:
            # An in-band error of a request with none behind it leaves the stream whole.
            if stream.reusable:
                self._idle_streams.append(stream)
            else:
                stream.cancel()
        return pages

    def _take_stream(self) -> PageStream:
        while self._idle_streams:
            stream = self._idle_streams.pop()
            if stream.reusable:
                return stream
        return self.open_stream()

    # Sizes and small files

    async def get_rel_size(
        self, tenant: TenantId, timeline: TimelineId, lsn: int | ReadLsn, rel: Rel
    ) -> int | None:
        """Blocks of a relation's fork, or None where it does not exist."""
        request = pb.GetRelSizeRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            read_lsn=read_lsn_message(lsn),
            rel=rel_message(rel),
            allow_missing=True,
        )
        answer = await self._call(self._pages.GetRelSize, request, pb.GetRelSizeResponse)
        return answer.nblocks if answer.exists else None

    async def get_db_size(
        self, tenant: TenantId, timeline: TimelineId, lsn: int | ReadLsn, db_oid: int
    ) -> int:
        """Bytes of all relations of a database."""
        request = pb.GetDbSizeRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            read_lsn=read_lsn_message(lsn),
            db_oid=db_oid,
        )
        return (await self._call(self._pages.GetDbSize, request, pb.GetDbSizeResponse)).bytes

    async def get_slru_segment(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int | ReadLsn,
        kind: pb.SlruKind,
        segment: int,
    ) -> bytes:
        """The pages of an SLRU segment, up to 32 of 8192 bytes."""
        request = pb.GetSlruSegmentRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            read_lsn=read_lsn_message(lsn),
            kind=kind,
            segment=segment,
        )
        return (
            await self._call(self._pages.GetSlruSegment, request, pb.GetSlruSegmentResponse)
        ).data

    async def get_relation_map(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int | ReadLsn,
        spc_oid: int,
        db_oid: int,
    ) -> bytes:
        """A pg_filenode.map; of the shared catalogs where `db_oid` is 0."""
        request = pb.GetRelationMapRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            read_lsn=read_lsn_message(lsn),
            spc_oid=spc_oid,
            db_oid=db_oid,
        )
        method = self._pages.GetRelationMap
        return (await self._call(method, request, pb.GetRelationMapResponse)).data

    async def base_backup(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int,
        *,
        hot_pages: bool = True,
        for_compute: bool = False,
        wait_ms: int = 0,
    ) -> AsyncIterator[pb.BaseBackupChunk]:
        """Chunks of a base backup at `lsn`; complete only when one with `end` came. Replication
        slots come only `for_compute`.

        Raises:
            Unavailable: also when the stream ended without `end`.
        """
        request = pb.GetBaseBackupRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            lsn=lsn,
            wait_ms=wait_ms,
            hot_pages=hot_pages,
            for_compute=for_compute,
        )
        ended = False
        try:
            async for chunk in self._pages.GetBaseBackup(request, wait_for_ready=True):
                for part in chunk.bundle.chunks if chunk.HasField("bundle") else (chunk,):
                    ended = part.HasField("end")
                    yield part
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        if not ended:
            raise Unavailable("STREAM_ENDED", f"{self.address} ended the base backup early.")

    async def lease(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        lsn: int,
        ttl_seconds: int,
        *,
        wait_ms: int = 0,
    ) -> int:
        """Keeps `lsn` readable, once it is; returns when the lease expires, in Unix seconds."""
        request = pb.LeaseLsnRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            lsn=lsn,
            ttl_seconds=ttl_seconds,
            wait_ms=wait_ms,
        )
        return (
            await self._call(self._pages.LeaseLsn, request, pb.LeaseLsnResponse)
        ).expires_unix_seconds

    # Timelines

    async def create_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        parent: TimelineId,
        branch_lsn: int,
        *,
        wait_ms: int = 0,
    ) -> pb.TimelineInfo:
        """Branches `parent` at `branch_lsn`, the end of a record. Idempotent."""
        request = pb.CreateTimelineRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            parent_timeline_id=parent.raw,
            branch_lsn=branch_lsn,
            wait_ms=wait_ms,
        )
        return await self._call(self._timelines.CreateTimeline, request, pb.TimelineInfo)

    async def delete_timeline(self, tenant: TenantId, timeline: TimelineId) -> None:
        request = pb.DeleteTimelineRequest(tenant_id=tenant.raw, timeline_id=timeline.raw)
        await self._call(self._timelines.DeleteTimeline, request, pb.DeleteTimelineResponse)

    async def set_retention(self, request: pb.SetRetentionRequest) -> pb.SetRetentionResponse:
        """Tells how much history is kept; idempotent."""
        return await self._call(self._timelines.SetRetention, request, pb.SetRetentionResponse)

    async def detach_timeline(
        self, tenant: TenantId, timeline: TimelineId, *, wait_ms: int
    ) -> bool:
        """Takes its parent from a timeline; whether that is done by now."""
        request = pb.DetachTimelineRequest(
            tenant_id=tenant.raw, timeline_id=timeline.raw, wait_ms=wait_ms
        )
        answer = await self._call(self._timelines.DetachTimeline, request, pb.TimelineInfo)
        return not answer.parent_timeline_id

    async def get_timeline(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        *,
        slots: bool = False,
        sizes: bool = False,
    ) -> pb.TimelineInfo:
        request = pb.GetTimelineRequest(
            tenant_id=tenant.raw, timeline_id=timeline.raw, slots=slots, sizes=sizes
        )
        return await self._call(self._timelines.GetTimeline, request, pb.TimelineInfo)

    async def list_timelines(self, tenant: TenantId | None) -> list[pb.TimelineInfo]:
        """Of a tenant, or of all."""
        request = pb.ListTimelinesRequest(tenant_id=tenant.raw if tenant else b"")
        return list(
            (
                await self._call(self._timelines.ListTimelines, request, pb.ListTimelinesResponse)
            ).timelines
        )

    async def upkeep(self) -> pb.Upkeep:
        """What compaction has found and done since the page server began."""
        return await self._call(self._timelines.GetUpkeep, pb.GetUpkeepRequest(), pb.Upkeep)

    async def import_timeline(
        self, chunks: AsyncIterator[pb.ImportChunk] | Iterable[pb.ImportChunk]
    ) -> pb.TimelineInfo:
        """Sends a stopped cluster (see ImportTimeline); the timeline is durable on return."""
        call = self._timelines.ImportTimeline(wait_for_ready=True)
        try:
            async for chunk in _async_chunks(chunks):
                try:
                    await call.write(chunk)
                except (grpc.RpcError, asyncio.InvalidStateError):
                    break  # the server answered early: the call itself says why
            else:
                await call.done_writing()
            answer = await call
        except grpc.RpcError as error:
            if error.details() == _BROKEN_PIPE:
                raise Unavailable("STREAM_ENDED", f"{self.address} ended the import.") from error
            raise from_rpc_error(error, self.address) from error
        except BaseException:
            call.cancel()
            raise
        assert isinstance(answer, pb.TimelineInfo)
        return answer

    async def lsn_by_time(
        self, tenant: TenantId, timeline: TimelineId, unix_micros: int
    ) -> pb.GetLsnByTimeResponse:
        request = pb.GetLsnByTimeRequest(
            tenant_id=tenant.raw, timeline_id=timeline.raw, unix_micros=unix_micros
        )
        return await self._call(self._timelines.GetLsnByTime, request, pb.GetLsnByTimeResponse)

    async def last_commit(
        self, tenant: TenantId, timeline: TimelineId, lsn: int, *, wait_ms: int = 0
    ) -> int:
        """The end of the last commit at or below an LSN, in the timeline's whole history; 0 when
        there is none.

        Raises:
            DeadlineExceeded: LSN_NOT_REACHED; the WAL up to there has not come in.
        """
        return (await self.known_commit(tenant, timeline, lsn, wait_ms=wait_ms)).commit_lsn

    async def known_commit(
        self, tenant: TenantId, timeline: TimelineId, lsn: int, *, wait_ms: int = 0
    ) -> pb.GetLastCommitResponse:
        """The same, with which transactions had begun by then. Raises as `last_commit`."""
        request = pb.GetLastCommitRequest(
            tenant_id=tenant.raw, timeline_id=timeline.raw, lsn=lsn, wait_ms=wait_ms
        )
        method = self._timelines.GetLastCommit
        return await self._call(method, request, pb.GetLastCommitResponse)

    async def flush(self, tenant: TenantId, timeline: TimelineId) -> pb.TimelineInfo:
        """Returns when everything ingested is in files."""
        request = pb.FlushTimelineRequest(tenant_id=tenant.raw, timeline_id=timeline.raw)
        return await self._call(self._timelines.FlushTimeline, request, pb.TimelineInfo)

    def verify_layers(
        self, tenant: TenantId, timeline: TimelineId
    ) -> AsyncIterator[pb.VerifiedLayer]:
        """Has every layer file of a timeline and its ancestors read and checked, one by one."""
        request = pb.VerifyLayersRequest(tenant_id=tenant.raw, timeline_id=timeline.raw)
        return self._answers(self._timelines.VerifyLayers, request)

    def changed_blocks(
        self,
        tenant: TenantId,
        timeline: TimelineId,
        after_lsn: int,
        lsn: int,
        *,
        wait_ms: int = 0,
    ) -> AsyncIterator[pb.ChangedRelation]:
        """Relations whose main forks were changed between two LSNs, with the blocks that were; it
        may tell of more than there are, and of no fewer."""
        request = pb.GetChangedBlocksRequest(
            tenant_id=tenant.raw,
            timeline_id=timeline.raw,
            after_lsn=after_lsn,
            lsn=lsn,
            wait_ms=wait_ms,
        )
        return self._answers(self._timelines.GetChangedBlocks, request)

    def scrub(
        self,
        tenant: TenantId | None = None,
        bytes_per_second: int = 0,
        *,
        objects: bool = False,
        check_only: bool = False,
    ) -> AsyncIterator[pb.ScrubbedLayer]:
        """Has every layer file of a store read and checked, and repaired, one by one.

        Args:
            tenant: None: of all.
            objects: what is only in the object store, too.
            check_only: nothing is repaired.
        """
        request = pb.ScrubStoreRequest(
            tenant_id=tenant.raw if tenant else b"",
            bytes_per_second=bytes_per_second,
            objects=objects,
            check_only=check_only,
        )
        return self._answers(self._timelines.ScrubStore, request)

    async def _answers(self, method: Any, request: Any) -> AsyncIterator[Any]:
        """Of a call that answers with a stream."""
        try:
            async for answer in method(request, wait_for_ready=True):
                yield answer
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error


async def _async_chunks(
    chunks: AsyncIterator[pb.ImportChunk] | Iterable[pb.ImportChunk],
) -> AsyncIterator[pb.ImportChunk]:
    if isinstance(chunks, AsyncIterator):
        async for chunk in chunks:
            yield chunk
        return
    for chunk in chunks:
        yield chunk
