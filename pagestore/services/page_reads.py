"""PageService: reads of a timeline at an LSN.

GetPages is served bytes to bytes: the core parses the request, and one call makes the whole
response; Python only finds the timeline and waits for the LSN. Whatever fails is answered in
the response, so that a stream outlives a bad request. A response is made once there is room for it
(page_responses), on the event loop if all of it is in memory, else by threads (reader.threads).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from pagestore import keyspace
from pagestore._native import NativeError, parse_pages_request
from pagestore.client.errors import code_number
from pagestore.errors import (
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PagestoreError,
    Status,
    of_exception,
)
from pagestore.keyspace import Key, Kind
from pagestore.pgformat.layout import PAGE_SIZE
from pagestore.reader import sizes
from pagestore.reader.basebackup import Ends, base_backup
from pagestore.services.connections import is_nameless
from pagestore.services.guard import caller
from pagestore.services.page_access import PageAccess
from pagestore.services.page_responses import Stream
from pagestore.services.permissions import check_ids
from pagestore.timeline.leases import check_seconds
from pagestore.tokens import Claims
from pagestore.v1 import page_pb2 as pb

MAX_BLOCKS = 1024
BACKUP_STEP_BYTES = 512 << 10
PAGE_FIELD_BYTES = PAGE_SIZE + 3
SLRU_SEGMENT_BYTES = 32 * PAGE_SIZE
_EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009  (grpc-stubs does not know it)
_log = structlog.get_logger(__name__)


class PageReads:
    """The methods of PageService, for GrpcServer.add_service(raw={"GetPages"})."""

    def __init__(self, access: PageAccess) -> None:
        self._access = access
        self.requests = self.pages = 0
        """That GetPages was asked for."""

    async def get_pages(self, _requests: object, context: Any) -> None:
        read, write = context.read, context.write
        room = self._access.responses.stream(context.peer())
        claims = caller.get()
        bound = claims if claims is not None and claims.tenant is not None else None
        if bound is not None and is_nameless(context.peer()):
            raise _nameless()
        while True:
            request = await read()
            if request is _EOF:
                return
            try:
                # No name for the response: it would keep its memory until the next one.
                await write(await self._pages(request, room, bound))
                room.written()
            except grpc.aio.InternalError:
                return  # the peer is gone, or its connection was ended
            finally:
                room.give_back()

    async def _pages(self, request: bytes, room: Stream, bound: Claims | None) -> bytes:
        request_id = 0
        try:
            request_id, tenant_id, timeline_id, request_lsn, since, blocks, wait_ms = (
                parse_pages_request(request)
            )
            if not 1 <= blocks <= MAX_BLOCKS:
                raise _bad_count(blocks)
            if bound is not None:
                check_ids(bound, tenant_id, timeline_id)
            self.requests += 1
            self.pages += blocks
            access = self._access
            timeline = access.timeline(tenant_id, timeline_id)
            lsn = access.read_now(timeline, request_lsn, since)
            if lsn is None:
                lsn = await access.read_lsn(timeline, request_lsn, since, wait_ms)
            snapshot = timeline.cached_snapshot
            if snapshot is None:
                snapshot = await access.whole_snapshot(timeline, wait_ms)
            if lsn < timeline.kept_from:
                access.still_kept(timeline, lsn)
            redo = access.redo(timeline.major)
            if not room.try_reserve(blocks * PAGE_FIELD_BYTES):
                await room.reserve(blocks * PAGE_FIELD_BYTES)
            answer = access.threads.serve_pages(snapshot, request, lsn, redo)
            if not isinstance(answer, bytes):
                answer = await access.threads.served(answer)
            return answer if redo is not None else _naming_postgres(answer, timeline.major)
        except Exception as error:
            return _failed(request_id, error)
        finally:
            room.writing()

    async def get_rel_size(self, request: pb.GetRelSizeRequest, context: Any) -> Any:
        rel = request.rel
        key = Key(Kind.REL_SIZE, rel.spc_oid, rel.db_oid, rel.rel_number, _fork(rel.fork))
        snapshot, lsn = await self._snapshot(request)
        nblocks = await self._access.threads.read(sizes.rel_size, snapshot, lsn, key)
        if nblocks is None and not request.allow_missing:
            raise NotFound(
                "RELATION_NOT_FOUND",
                f"No relation {rel.spc_oid}/{rel.db_oid}/{rel.rel_number} has a fork {rel.fork}.",
                "allow_missing answers exists=false instead.",
            )
        return pb.GetRelSizeResponse(exists=nblocks is not None, nblocks=nblocks or 0)

    async def get_db_size(self, request: pb.GetDbSizeRequest, context: Any) -> Any:
        snapshot, lsn = await self._snapshot(request)
        size = await self._access.threads.read(sizes.db_size, snapshot, lsn, request.db_oid)
        return pb.GetDbSizeResponse(bytes=size)

    async def get_slru_segment(self, request: pb.GetSlruSegmentRequest, context: Any) -> Any:
        if int(request.kind) not in list(map(int, keyspace.Slru)):
            raise InvalidInput("INVALID_SLRU", f"There is no SLRU kind {request.kind}.")
        snapshot, lsn = await self._snapshot(request)
        access = self._access
        redo = access.redo(access.timeline(request.tenant_id, request.timeline_id).major)
        room = access.responses.stream(context.peer())
        context.add_done_callback(lambda _: room.give_back())
        await room.reserve(SLRU_SEGMENT_BYTES)
        data = await access.threads.read_with_redo(
            sizes.slru_segment, snapshot, lsn, request.kind, request.segment, redo
        )
        room.writing()
        return pb.GetSlruSegmentResponse(data=data)

    async def get_relation_map(self, request: pb.GetRelationMapRequest, context: Any) -> Any:
        snapshot, lsn = await self._snapshot(request)
        key = keyspace.relmap(request.spc_oid, request.db_oid).pack()
        data = await self._access.threads.read(snapshot.get, key, lsn)
        if data is None:
            raise NotFound(
                "RELATION_MAP_NOT_FOUND",
                f"There is no relation map of {request.spc_oid}/{request.db_oid}.",
            )
        return pb.GetRelationMapResponse(data=data)

    async def get_base_backup(
        self, request: pb.GetBaseBackupRequest, context: Any
    ) -> AsyncIterator[pb.BaseBackupChunk]:
        snapshot, lsn = await self._access.snapshot(
            request.tenant_id, request.timeline_id, request.lsn, wait_ms=request.wait_ms
        )
        access = self._access
        timeline = access.timeline(request.tenant_id, request.timeline_id)
        chunks = base_backup(
            snapshot,
            lsn,
            access.redo(timeline.major),
            hot_pages=request.hot_pages,
            compute=Ends(timeline.branch_lsn, timeline.last_record_lsn)
            if request.for_compute
            else None,
        )

        def step() -> list[pb.BaseBackupChunk]:
            some: list[pb.BaseBackupChunk] = []
            size = 0
            for chunk in chunks:
                some.append(chunk)
                size += chunk.ByteSize()
                if size >= BACKUP_STEP_BYTES:
                    break
            return some

        # The header at once: what waits for it goes on beside the rest.
        yield await access.threads.read_much(next, chunks)
        room = access.responses.stream(context.peer())
        more = True
        while more:
            try:
                await room.reserve(BACKUP_STEP_BYTES)
                some = await access.threads.read_much(step)
                room.writing()
                more = bool(some)
                if more:
                    yield pb.BaseBackupChunk(bundle=pb.BackupBundle(chunks=some))
            finally:
                room.give_back()

    async def lease_lsn(self, request: pb.LeaseLsnRequest, context: Any) -> Any:
        check_seconds(request.ttl_seconds)  # before it waits
        access = self._access
        timeline = access.timeline(request.tenant_id, request.timeline_id)
        await access.read_lsn(timeline, request.lsn, 0, request.wait_ms)
        retention = access.repository.retention
        expires = await asyncio.to_thread(
            retention.take_lease, timeline, request.lsn, request.ttl_seconds
        )
        return pb.LeaseLsnResponse(expires_unix_seconds=expires)

    async def _snapshot(self, request: Any) -> Any:
        at = request.read_lsn
        return await self._access.snapshot(
            request.tenant_id, request.timeline_id, at.request_lsn, at.not_modified_since_lsn
        )


def _fork(fork: int) -> int:
    if fork not in list(keyspace.Fork):
        raise InvalidInput("INVALID_FORK", f"There is no fork {fork}; 0 main, 1 fsm, 2 vm, 3 init.")
    return fork


def _nameless() -> FailedPrecondition:
    return FailedPrecondition(
        "CONNECTION_NAMELESS",
        "On a Unix socket a compute gives its end a name, by which it can be told from others.",
        "Bind the client's socket to a name of its own in the abstract space, as the shim does.",
    )


def _naming_postgres(answer: bytes, major: int) -> bytes:
    """An answer by no redo: where one was needed, whose it was to be."""
    response = pb.GetPagesResponse.FromString(answer)
    if response.status.reason != "POSTGRES_MISSING":
        return answer
    response.status.message += (
        f". It is of a database of Postgres {major}: apt-get install postgresql-{major}, and start "
        "the page server anew."
    )
    return response.SerializeToString()


def _bad_count(blocks: int) -> InvalidInput:
    if blocks == 0:
        return InvalidInput("NO_BLOCKS", "The request names no block.")
    return InvalidInput(
        "TOO_MANY_BLOCKS",
        f"One request asks for at most {MAX_BLOCKS} blocks, not {blocks}.",
        "Send several requests; a stream carries them one behind the other.",
    )


def _failed(request_id: int, error: Exception) -> bytes:
    failure: PagestoreError
    if isinstance(error, NativeError) and request_id == 0 and error.args[0] == Status.INVALID:
        failure = InvalidInput("MALFORMED_REQUEST", error.args[1])
    else:
        failure = of_exception(error)
    if failure.code in ("INTERNAL", "DATA_LOSS"):
        _log.error("GetPages failed", reason=failure.reason, exc_info=error)
    status = pb.Status(
        code=code_number(failure.code), reason=failure.reason, message=str(failure)[:2000]
    )
    return pb.GetPagesResponse(request_id=request_id, status=status).SerializeToString()
