"""What a page server is told to keep, and what it answers of sizes: SetRetention, TimelineSizes."""

from __future__ import annotations

import asyncio

from pagestore.errors import InvalidInput, NotFound, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.layers.native import LayerKind, store_errors
from pagestore.maintenance.collector import Collector
from pagestore.pgformat.layout import PAGE_SIZE
from pagestore.reader import commits, sizes
from pagestore.reader.commits import Found
from pagestore.timeline import Repository, Timeline
from pagestore.timeline.horizons import LONGEST_SECONDS, Window
from pagestore.timeline.retention import too_old
from pagestore.v1 import page_pb2 as pb


async def set_retention(
    repository: Repository, collector: Collector, request: pb.SetRetentionRequest
) -> pb.SetRetentionResponse:
    """
    Raises:
        InvalidInput: INVALID_RETENTION.
    """
    window = _window(request.window)
    told = [(_key(item), item, _own_window(item)) for item in request.timelines]
    answer = pb.SetRetentionResponse()
    for key, item, own in told:
        lost = await asyncio.to_thread(_tell, repository, key, own, item)
        if lost:
            answer.lost.append(
                pb.TimelineRetention(
                    tenant_id=item.tenant_id, timeline_id=item.timeline_id, points=lost
                )
            )
        collector.note(key, now=True)
    if request.all:
        listed = {key for key, *_ in told}
        for key in await asyncio.to_thread(repository.retention.told) - listed:
            await asyncio.to_thread(_tell, repository, key, None, pb.TimelineRetention())
            collector.note(key, now=True)
    collector.told(window)
    return answer


def _tell(
    repository: Repository,
    key: tuple[TenantId, TimelineId],
    own: Window | None,
    item: pb.TimelineRetention,
) -> list[int]:
    try:
        timeline = repository.get(*key)
        lost = repository.retention.tell(timeline, own, item.points, named=not item.unnamed)
    except NotFound:
        return []  # it went meanwhile
    return list(lost)


def _key(item: pb.TimelineRetention) -> tuple[TenantId, TimelineId]:
    return TenantId(item.tenant_id), TimelineId(item.timeline_id)


def _own_window(item: pb.TimelineRetention) -> Window | None:
    return _window(item.window) if item.HasField("window") else None


def _window(told: pb.RetentionWindow) -> Window:
    if told.seconds > LONGEST_SECONDS:
        raise InvalidInput(
            "INVALID_RETENTION", f"{told.seconds} s of history are more than a hundred years."
        )
    return Window(told.seconds, told.wal_bytes)


def timeline_sizes(timeline: Timeline) -> pb.TimelineSizes:
    """Blocks on files. Of one whose ancestors are not taken in yet, or whose layers cannot be read
    now, there is no logical size."""
    own = timeline.own_files()
    shared = sum(layer.summary.bytes for layer in timeline.files()) - sum(
        layer.summary.bytes for layer in own
    )
    history = sum(layer.summary.bytes for layer in own if layer.summary.kind == LayerKind.DELTA)
    try:
        snapshot, lsn = timeline.snapshot(), timeline.last_record_lsn
        with store_errors():
            blocks = sum(relation.nblocks for relation in sizes.relations(snapshot, lsn))
    except Unavailable:
        return pb.TimelineSizes(shared_bytes=shared, history_bytes=history)
    return pb.TimelineSizes(
        logical_bytes=blocks * PAGE_SIZE, shared_bytes=shared, history_bytes=history
    )


def commit_by_time(timeline: Timeline, unix_micros: int) -> Found:
    """As `commits.by_time`, of what is kept: below, some times of commits are gone.

    Of an ancestor all that is kept may be what a branch stands on. Its last commit is the answer
    for any time up to the branch's first.

    Raises:
        OutOfRange: LSN_TOO_OLD.
    """
    found = commits.by_time(timeline, unix_micros)
    if found.before_history or found.lsn >= timeline.kept_from:
        return found
    owner = timeline.owner(found.lsn)
    if found.lsn >= owner.kept_from:
        return found
    nearer = timeline
    while nearer is not owner and nearer.ancestor is not owner and nearer.ancestor is not None:
        nearer = nearer.ancestor
    if nearer is not owner and nearer.kept_from == nearer.branch_lsn:
        snapshot = timeline.snapshot()
        if commits.last(snapshot, nearer.branch_lsn) == found.commit_lsn:
            return found._replace(lsn=nearer.branch_lsn)
    raise too_old(timeline, found.lsn)
