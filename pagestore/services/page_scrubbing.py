"""ScrubStore: a walk over all layer files, which repairs what it can, one file at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import structlog

from pagestore.client.errors import code_number
from pagestore.errors import DataLoss, PagestoreError
from pagestore.ids import TenantId
from pagestore.ingest.rebuilding import Rebuilder, Wal
from pagestore.ingest.wal_copies import SafekeeperCopy
from pagestore.services.page_access import PageAccess
from pagestore.timeline.damage import is_damaged
from pagestore.timeline.entries import Place
from pagestore.timeline.scrub import Scrubbed
from pagestore.v1 import page_pb2 as pb

_log = structlog.get_logger(__name__)


class Scrubbing:
    """Of one page server."""

    def __init__(self, access: PageAccess) -> None:
        self._access = access
        self._rebuilding = asyncio.Lock()

    async def run(self, request: pb.ScrubStoreRequest) -> AsyncGenerator[pb.ScrubbedLayer, None]:
        tenant = TenantId(request.tenant_id) if request.tenant_id else None
        walk = self._access.repository.scrub(
            tenant,
            request.bytes_per_second,
            objects=request.objects,
            repair=not request.check_only,
        )
        rebuilder = self._rebuilder()
        while (found := await asyncio.to_thread(next, walk, None)) is not None:
            if not request.check_only and _may_be_rebuilt(found):
                found = await self._rebuilt(rebuilder, found)
            if found.repaired is not None:
                _log.warning(
                    "a damaged layer file was repaired",
                    path=found.path,
                    source=found.source,
                    what=found.repaired.message,
                    aside=str(found.aside or ""),
                )
            yield _message(found)

    def _rebuilder(self) -> Rebuilder:
        access = self._access
        wal: list[Wal] = [SafekeeperCopy(item.client) for item in access.follower.sources.all]
        archived = access.objects.archived() if access.objects is not None else None
        if archived is not None:
            wal.append(archived)
        return Rebuilder(access.repository, wal, access.redo)

    async def _rebuilt(self, rebuilder: Rebuilder, found: Scrubbed) -> Scrubbed:
        assert found.failure is not None
        async with self._rebuilding:  # another scrub may have found the same
            try:
                if not await asyncio.to_thread(is_damaged, Path(found.path), found.failure):
                    return replace(found, unrepaired=found.failure)
                return await rebuilder.rebuild(found)
            except PagestoreError as error:
                return replace(found, unrepaired=error)


def _may_be_rebuilt(found: Scrubbed) -> bool:
    """What is here alone, or of which the object is damaged as well."""
    if found.failure is None or not found.entry.place & Place.LOCAL:
        return False
    return found.unrepaired is None or isinstance(found.unrepaired, DataLoss)


def _message(found: Scrubbed) -> pb.ScrubbedLayer:
    summary = found.entry.summary
    answer = pb.ScrubbedLayer(
        tenant_id=found.tenant.raw,
        timeline_id=found.timeline.raw,
        path=found.path,
        bytes=summary.bytes,
        first_lsn=summary.first_lsn,
        last_lsn=summary.last_lsn,
        reader_timeline_ids=[reader.raw for reader in found.readers],
        repaired_from=found.source,
        moved_to=str(found.aside or ""),
    )
    if found.failure is not None:
        tell(answer.status, found.failure)
    if found.unrepaired is not None:
        tell(answer.unrepaired, found.unrepaired)
    if found.repaired is not None:
        answer.repaired = found.repaired.message
    return answer


def tell(status: pb.Status, failure: PagestoreError) -> None:
    status.code = code_number(failure.code)
    status.reason = failure.reason
    status.message = failure.message
