"""PageService: reads of a timeline at an LSN.

GetPages is served bytes to bytes: the core parses the request, and one call makes the whole
response; Python only finds the timeline and waits for the LSN. Whatever fails is answered in
the response, so that a stream outlives a bad request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import structlog

from pagestore import keyspace
from pagestore._native import NativeError, parse_pages_request
from pagestore.client.errors import code_number
from pagestore.errors import (
    InvalidInput,
    NotFound,
    PagestoreError,
    Status,
    Unavailable,
    of_exception,
)
from pagestore.keyspace import Key, Kind
from pagestore.reader import sizes
from pagestore.reader.basebackup import base_backup
from pagestore.services.page_access import PageAccess
from pagestore.v1 import page_pb2 as pb

MAX_BLOCKS = 1024
LONGEST_LEASE_SECONDS = 24 * 3600
BACKUP_STEP_BYTES = 512 << 10
_EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009  (grpc-stubs does not know it)
_log = structlog.get_logger(__name__)


class PageReads:
    """The methods of PageService, for GrpcServer.add_service(raw={"GetPages"})."""

    def __init__(self, access: PageAccess) -> None:
        self._access = access

    async def get_pages(self, _requests: object, context: Any) -> None:
        read, write = context.read, context.write
        while True:
            request = await read()
            if request is _EOF:
                return
            await write(await self._pages(request))

    async def _pages(self, request: bytes) -> bytes:
        request_id = 0
        try:
            request_id, tenant_id, timeline_id, request_lsn, since, blocks, wait_ms = (
                parse_pages_request(request)
            )
            if not 1 <= blocks <= MAX_BLOCKS:
                raise _bad_count(blocks)
            access = self._access
            timeline = access.timeline(tenant_id, timeline_id)
            lsn = access.read_now(timeline, request_lsn, since)
            if lsn is None:
                lsn = await access.read_lsn(timeline, request_lsn, since, wait_ms)
            try:
                snapshot = timeline.snapshot()
            except Unavailable:
                snapshot = await access.whole_snapshot(timeline, wait_ms)
            return snapshot.serve_pages(request, lsn, access.redo())
        except Exception as error:
            return _failed(request_id, error)

    async def get_rel_size(self, request: pb.GetRelSizeRequest, context: Any) -> Any:
        rel = request.rel
        key = Key(Kind.REL_SIZE, rel.spc_oid, rel.db_oid, rel.rel_number, _fork(rel.fork))
        snapshot, lsn = await self._snapshot(request)
        nblocks = sizes.rel_size(snapshot, lsn, key)
        if nblocks is None and not request.allow_missing:
            raise NotFound(
                "RELATION_NOT_FOUND",
                f"No relation {rel.spc_oid}/{rel.db_oid}/{rel.rel_number} has a fork {rel.fork}.",
                "allow_missing answers exists=false instead.",
            )
        return pb.GetRelSizeResponse(exists=nblocks is not None, nblocks=nblocks or 0)

    async def get_db_size(self, request: pb.GetDbSizeRequest, context: Any) -> Any:
        snapshot, lsn = await self._snapshot(request)
        size = await asyncio.to_thread(sizes.db_size, snapshot, lsn, request.db_oid)
        return pb.GetDbSizeResponse(bytes=size)

    async def get_slru_segment(self, request: pb.GetSlruSegmentRequest, context: Any) -> Any:
        if int(request.kind) not in list(map(int, keyspace.Slru)):
            raise InvalidInput("INVALID_SLRU", f"There is no SLRU kind {request.kind}.")
        snapshot, lsn = await self._snapshot(request)
        data = await asyncio.to_thread(
            sizes.slru_segment, snapshot, lsn, request.kind, request.segment, self._access.redo()
        )
        return pb.GetSlruSegmentResponse(data=data)

    async def get_base_backup(
        self, request: pb.GetBaseBackupRequest, context: Any
    ) -> AsyncIterator[pb.BaseBackupChunk]:
        snapshot, lsn = await self._access.snapshot(
            request.tenant_id, request.timeline_id, request.lsn, wait_ms=request.wait_ms
        )
        chunks = base_backup(snapshot, lsn, self._access.redo(), hot_pages=request.hot_pages)

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
        yield await asyncio.to_thread(next, chunks)
        while some := await asyncio.to_thread(step):
            yield pb.BaseBackupChunk(bundle=pb.BackupBundle(chunks=some))

    async def lease_lsn(self, request: pb.LeaseLsnRequest, context: Any) -> Any:
        timeline = self._access.timeline(request.tenant_id, request.timeline_id)
        if not 1 <= request.ttl_seconds <= LONGEST_LEASE_SECONDS:
            raise InvalidInput(
                "INVALID_LEASE", f"A lease lasts 1 to {LONGEST_LEASE_SECONDS} seconds."
            )
        await self._access.read_lsn(timeline, request.lsn, 0, request.wait_ms)
        now = int(time.time())
        expires = now + request.ttl_seconds
        leases = self._access.leases.setdefault((timeline.tenant_id, timeline.timeline_id), {})
        for lsn in [lsn for lsn, end in leases.items() if end < now]:
            del leases[lsn]
        leases[request.lsn] = max(expires, leases.get(request.lsn, 0))
        return pb.LeaseLsnResponse(expires_unix_seconds=leases[request.lsn])

    async def _snapshot(self, request: Any) -> Any:
        at = request.read_lsn
        return await self._access.snapshot(
            request.tenant_id, request.timeline_id, at.request_lsn, at.not_modified_since_lsn
        )


def _fork(fork: int) -> int:
    if fork not in list(keyspace.Fork):
        raise InvalidInput("INVALID_FORK", f"There is no fork {fork}; 0 main, 1 fsm, 2 vm, 3 init.")
    return fork


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
