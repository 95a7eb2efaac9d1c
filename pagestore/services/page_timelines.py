"""TimelineService: makes, deletes, lists and imports timelines on one page server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pagestore._native import Layer, NativeError, layer_faults
from pagestore.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    PagestoreError,
    of_exception,
)
from pagestore.ids import TenantId, TimelineId
from pagestore.ingest.importer import Importer
from pagestore.reader import commits
from pagestore.services import page_retention
from pagestore.services.page_access import PageAccess
from pagestore.services.page_detaching import Detaching
from pagestore.services.page_retention import set_retention, timeline_sizes
from pagestore.services.page_scrubbing import Scrubbing, tell
from pagestore.timeline import Timeline, TimelineSummary
from pagestore.timeline.slots import replication_slots
from pagestore.v1 import page_pb2 as pb

CATCH_UP_MS = 5_000
"""How long a question about "the last commit" waits for WAL known to be committed."""
DRAIN_SECONDS = 2.0


class PageTimelines:
    """The methods of TimelineService, for GrpcServer.add_service."""

    def __init__(self, access: PageAccess) -> None:
        self._access = access
        self.detaching = Detaching(access)
        self._scrubbing = Scrubbing(access)

    async def create_timeline(self, request: pb.CreateTimelineRequest, context: Any) -> Any:
        access = self._access
        parent = access.timeline(request.tenant_id, request.parent_timeline_id)
        child = TimelineId(request.timeline_id)
        await access.read_lsn(parent, request.branch_lsn, 0, request.wait_ms)
        timeline = await asyncio.to_thread(
            access.repository.branch,
            parent.tenant_id,
            parent.timeline_id,
            child,
            request.branch_lsn,
        )
        access.follower.appeared((timeline.tenant_id, timeline.timeline_id))
        return self._info(timeline)

    async def delete_timeline(self, request: pb.DeleteTimelineRequest, context: Any) -> Any:
        access = self._access
        timeline = access.timeline(request.tenant_id, request.timeline_id)
        key = timeline.tenant_id, timeline.timeline_id
        parent = timeline.parent
        del timeline  # with it goes the last that reads its files
        async with access.follower.without(key):
            await asyncio.to_thread(access.repository.delete, *key)
        for left in (key, (key[0], parent) if parent is not None else key):
            access.collector.note(left, now=True)
        return pb.DeleteTimelineResponse()

    async def get_timeline(self, request: pb.GetTimelineRequest, context: Any) -> Any:
        timeline = self._access.timeline(request.tenant_id, request.timeline_id)
        self._access.follower.hasten((timeline.tenant_id, timeline.timeline_id))
        if timeline.known_major is None:
            await asyncio.to_thread(timeline.open)
        answer = self._info(timeline)
        answer.postgres_major = timeline.major  # an error, rather than none
        if request.slots:
            answer.slot_wal_limit = self._access.follower.slot_wal_bytes
            answer.slots.extend(await asyncio.to_thread(_slots, timeline))
        if request.sizes:
            answer.sizes.CopyFrom(await asyncio.to_thread(timeline_sizes, timeline))
        return answer

    async def set_retention(self, request: pb.SetRetentionRequest, context: Any) -> Any:
        return await set_retention(self._access.repository, self._access.collector, request)

    async def detach_timeline(self, request: pb.DetachTimelineRequest, context: Any) -> Any:
        timeline = self._access.timeline(request.tenant_id, request.timeline_id)
        await self.detaching.detach(timeline, request.wait_ms)
        return self._info(timeline)

    async def list_timelines(self, request: pb.ListTimelinesRequest, context: Any) -> Any:
        tenant = TenantId(request.tenant_id) if request.tenant_id else None
        timelines = await self._access.threads.read(
            lambda: [self._info(timeline) for timeline in self._access.repository.list(tenant)]
        )
        return pb.ListTimelinesResponse(timelines=timelines)

    async def import_timeline(self, requests: AsyncIterator[pb.ImportChunk], context: Any) -> Any:
        importer = Importer(self._access.repository.create_root)
        try:
            async for chunk in requests:
                await asyncio.to_thread(importer.take, chunk)
            await asyncio.to_thread(importer.finish)
        except PagestoreError:
            await _drain(requests)
            raise
        finally:
            await asyncio.to_thread(importer.abort)
        assert importer.key is not None
        self._access.follower.appeared(importer.key)
        return self._info(self._access.repository.get(*importer.key))

    async def flush_timeline(self, request: pb.FlushTimelineRequest, context: Any) -> Any:
        timeline = self._access.timeline(request.tenant_id, request.timeline_id)
        await self._access.flusher.flush(timeline)
        return self._info(timeline)

    async def get_upkeep(self, request: pb.GetUpkeepRequest, context: Any) -> Any:
        compactor, objects = self._access.compactor, self._access.objects
        totals, standing = compactor.totals, compactor.standing
        read_faults, last_read_fault = layer_faults()
        return pb.Upkeep(
            wal_bytes=totals.bytes_of_wal,
            flushed_bytes=totals.bytes_flushed,
            merged_bytes=totals.bytes_merged,
            imaged_bytes=totals.bytes_imaged,
            images=totals.images,
            refused=totals.refused,
            failures=totals.failures,
            deepest_records=compactor.deepest_records,
            level_bytes=standing.levels,
            image_bytes=standing.images,
            dead_bytes=standing.dead,
            collected_bytes=self._access.collector.collected_bytes,
            read_faults=read_faults,
            last_read_fault=last_read_fault,
            objects=objects.status() if objects is not None else None,
        )

    async def verify_layers(
        self, request: pb.VerifyLayersRequest, context: Any
    ) -> AsyncIterator[pb.VerifiedLayer]:
        timeline = self._access.timeline(request.tenant_id, request.timeline_id)
        for layer in await asyncio.to_thread(timeline.files):
            yield await asyncio.to_thread(_verified, layer)

    async def scrub_store(
        self, request: pb.ScrubStoreRequest, context: Any
    ) -> AsyncIterator[pb.ScrubbedLayer]:
        async with aclosing(self._scrubbing.run(request)) as walk:
            async for found in walk:
                yield found

    async def get_changed_blocks(
        self, request: pb.GetChangedBlocksRequest, context: Any
    ) -> AsyncIterator[pb.ChangedRelation]:
        if not 0 < request.after_lsn <= request.lsn:
            raise InvalidInput(
                "INVALID_RANGE", "The first of the two LSNs has to be the older one."
            )
        from pagestore.reader import changes  # with numpy: services/page.py

        snapshot, lsn = await self._access.snapshot(
            request.tenant_id, request.timeline_id, request.lsn, wait_ms=request.wait_ms
        )
        found = await self._access.threads.read_much(
            changes.changed_blocks, snapshot, request.after_lsn, lsn
        )
        for relation, blocks in found:
            yield pb.ChangedRelation(
                spc_oid=relation.spc,
                db_oid=relation.db,
                rel_number=relation.rel,
                blocks=blocks.tobytes(),
            )

    async def get_lsn_by_time(self, request: pb.GetLsnByTimeRequest, context: Any) -> Any:
        if request.unix_micros < 0:
            raise InvalidInput("INVALID_TIME", "A time before 1970 is in no history.")
        timeline = self._access.timeline(request.tenant_id, request.timeline_id)
        await self._catch_up(timeline)
        found = await self._access.threads.read(
            page_retention.commit_by_time, timeline, request.unix_micros
        )
        return pb.GetLsnByTimeResponse(
            lsn=found.lsn,
            commit_lsn=found.commit_lsn,
            commit_unix_micros=found.commit_unix_micros,
            before_history=found.before_history,
            after_head=found.after_head,
        )

    async def get_last_commit(self, request: pb.GetLastCommitRequest, context: Any) -> Any:
        snapshot, lsn = await self._access.snapshot(
            request.tenant_id, request.timeline_id, request.lsn, wait_ms=request.wait_ms
        )
        found = await self._access.threads.read(commits.last_known, snapshot, lsn)
        return pb.GetLastCommitResponse(commit_lsn=found.lsn, next_full_xid=found.next_full_xid)

    async def _catch_up(self, timeline: Timeline) -> None:
        committed = self._access.follower.commit_lsn((timeline.tenant_id, timeline.timeline_id))
        # The commit LSN may lie inside a record; then its end is not reached, and what is
        # ingested when the time is over is the answer.
        with contextlib.suppress(DeadlineExceeded, FailedPrecondition):
            await self._access.reach(timeline, committed, CATCH_UP_MS)

    def _info(self, timeline: Timeline | TimelineSummary) -> pb.TimelineInfo:
        key = timeline.tenant_id, timeline.timeline_id
        follower = self._access.follower
        failure = follower.failure(key) or follower.waits_for(key)
        return pb.TimelineInfo(
            tenant_id=timeline.tenant_id.raw,
            timeline_id=timeline.timeline_id.raw,
            parent_timeline_id=timeline.parent.raw if timeline.parent else b"",
            branch_lsn=timeline.branch_lsn,
            last_record_lsn=timeline.last_record_lsn,
            disk_consistent_lsn=timeline.disk_consistent_lsn,
            physical_bytes=timeline.physical_bytes,
            layers=timeline.layer_count,
            created_unix_micros=timeline.created,
            ingest_error=failure.message if failure else "",
            flush_error=self._access.flusher.failure(key),
            postgres_major=(timeline.known_major or 0) if isinstance(timeline, Timeline) else 0,
            kept_from_lsn=timeline.kept_from if isinstance(timeline, Timeline) else 0,
        )


def _slots(timeline: Timeline) -> list[pb.ReplicationSlot]:
    found = replication_slots(timeline.snapshot(), timeline.last_record_lsn)
    return [
        pb.ReplicationSlot(
            name=slot.state.name,
            plugin=slot.state.plugin,
            restart_lsn=slot.state.restart_lsn,
            confirmed_flush_lsn=slot.state.confirmed_flush,
            lost=slot.state.is_lost,
        )
        for slot in found
    ]


def _verified(layer: Layer) -> pb.VerifiedLayer:
    answer = pb.VerifiedLayer(path=layer.path, bytes=layer.summary.bytes)
    try:
        layer.verify()
    except NativeError as error:
        tell(answer.status, of_exception(error))
    return answer


async def _drain(requests: AsyncIterator[pb.ImportChunk]) -> None:
    """Reads on for a moment: grpc.aio shows a client that is still writing when its call ends
    a broken pipe, and not the error that it ended with."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in requests:
                pass
