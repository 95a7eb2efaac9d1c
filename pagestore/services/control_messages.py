"""The control plane's records as messages, and the other way round."""

from __future__ import annotations

from typing import Any

from pagestore.client.companions import Companions
from pagestore.client.points import AtCheckpoint, AtLsn, AtTime, Head, Point
from pagestore.control.expiry import expiry_of
from pagestore.control.moves import Asked
from pagestore.control.own_settings import Shown
from pagestore.control.records import CheckpointRecord, EventRecord, RetentionRecord, Verb
from pagestore.control.state import now_micros
from pagestore.ids import Lsn
from pagestore.v1 import control_pb2 as pb
from pagestore.v1 import page_pb2

MAX_TROUBLES = 10
"""Of a page server, told by status: a failing disk says the same of every timeline."""


def slot(slot: page_pb2.ReplicationSlot, commit_lsn: int) -> pb.DatabaseSlot:
    held = max(commit_lsn - slot.restart_lsn, 0) if slot.restart_lsn else 0
    return pb.DatabaseSlot(name=slot.name, plugin=slot.plugin, wal_bytes=held, lost=slot.lost)


def point(request: Any) -> Point:
    at: pb.Point = request.at
    match at.WhichOneof("at"):
        case "lsn":
            return AtLsn(Lsn(at.lsn))
        case "unix_micros":
            return AtTime(at.unix_micros)
        case "checkpoint":
            return AtCheckpoint(at.checkpoint, at.or_unix_micros or None)
        case _:
            return Head()


def expiry(
    request: pb.CreateDatabaseRequest | pb.BranchDatabaseRequest | pb.KeepDatabaseRequest,
) -> int:
    """When what is asked for is removed by itself; raises InvalidInput INVALID_TTL."""
    return expiry_of(request.ttl if request.HasField("ttl") else None, now_micros())


def kept_until(request: pb.CreateCheckpointRequest) -> int:
    """Likewise of a checkpoint."""
    return expiry_of(request.keep if request.HasField("keep") else None, now_micros())


def companions(request: pb.CreateCheckpointRequest) -> Companions:
    return Companions(request.git_commit, request.dirty_patch, request.run_id, dict(request.notes))


def asked(request: Any) -> Asked:
    return Asked(request.request_id, request.dry_run)


def settings(shown: Shown) -> pb.DatabaseSettings:
    return pb.DatabaseSettings(
        settings=shown.settings.wanted,
        set_aside=shown.settings.set_aside,
        complaint=shown.settings.complaint,
        after_restart=shown.after_restart,
    )


def checkpoint(record: CheckpointRecord) -> pb.Checkpoint:
    return pb.Checkpoint(
        name=record.name,
        timeline_id=record.timeline.raw,
        lsn=record.lsn,
        git_commit=record.git_commit,
        created_unix_micros=record.created_micros,
        automatic=record.automatic,
        note=record.note,
        expires_unix_micros=record.expires_micros,
        dirty_patch=record.dirty_patch,
        run_id=record.run_id,
        notes=record.notes,
    )


def retention(own: RetentionRecord | None, default: RetentionRecord) -> pb.Retention:
    window = own or default
    return pb.Retention(seconds=window.seconds, wal_bytes=window.wal_bytes, own=own is not None)


def sizes(told: page_pb2.TimelineSizes) -> pb.Sizes:
    return pb.Sizes(
        logical_bytes=told.logical_bytes,
        shared_bytes=told.shared_bytes,
        history_bytes=told.history_bytes,
    )


def log_entry(entry: CheckpointRecord | EventRecord) -> pb.LogEntry:
    if isinstance(entry, CheckpointRecord):
        return pb.LogEntry(checkpoint=checkpoint(entry))
    return pb.LogEntry(
        event=pb.Event(
            verb=entry.verb,
            timeline_id=entry.timeline.raw,
            lsn=entry.lsn,
            unix_micros=entry.created_micros,
            detail=entry.detail or _about(entry),
        )
    )


def _about(event: EventRecord) -> str:
    """Of a checkpoint's making and end: its name, for it has no entry of its own any more."""
    if event.verb is Verb.CHECKPOINT:
        return f"{event.checkpoint}, deleted since"
    return event.checkpoint if event.verb is Verb.DELETE_CHECKPOINT else ""


def amiss(part: str, address: str, troubles: list[str]) -> list[pb.PartStatus]:
    return [
        pb.PartStatus(part=part, address=address, serving=True, error=trouble)
        for trouble in troubles[:MAX_TROUBLES]
    ]
