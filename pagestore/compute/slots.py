"""The replication slots of a starting compute, and the WAL that they need.

Slots are versioned with the timeline, so the base backup has their states. What it has not is WAL:
a consumer goes on at its slot's restart_lsn, which lies before the start. That WAL is at the WAL
service, held back there for as long as a slot of the timeline needs it (docs/slots.md has the
bound); before a timeline's first LSN it is its parent's. It is laid into pg_wal before the server
starts. A slot whose WAL nobody has any more is laid as Postgres leaves one that went beyond
max_slot_wal_keep_size: lost, for its consumer to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pagestore.client.page import AsyncPageClient
from pagestore.client.walservice import WalService
from pagestore.compute.hydrating import HydratingDirectory
from pagestore.errors import DataLoss, NotFound, OutOfRange
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import wal as walformat
from pagestore.pgformat.slot_state import SlotState, snapshot_path, state_path


class Log(NamedTuple):
    """A timeline's own WAL, up to `end_lsn`."""

    tenant: TenantId
    timeline: TimelineId
    branch_lsn: int
    end_lsn: int


@dataclass(slots=True)
class LaidSlots:
    """``wal_bytes``: how much WAL was laid for them."""

    kept: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wal_bytes: int = 0


async def write_slots(
    directory: HydratingDirectory,
    dropped: tuple[str, ...],
    log: Log,
    pages: AsyncPageClient,
    wal: WalService,
) -> LaidSlots:
    """All slots of the base backup but those `dropped`. The segment in which the log ends is
    laid already.

    Raises:
        PagestoreError: what the page server or the WAL service answered.
    """
    laid = LaidSlots()
    states = [state for state in _states(directory) if state.name not in dropped]
    needed = [state.restart_lsn for state in states if state.restart_lsn]
    oldest = log.end_lsn
    if needed:
        oldest = await _write_wal(directory, min(needed), log, pages, wal)
        laid.wal_bytes = log.end_lsn - oldest
    for state in states:
        if state.restart_lsn and state.restart_lsn < oldest:
            state = state.invalidated()
        (laid.lost if state.is_lost else laid.kept).append(state.name)
        directory.write_decoding_file(state_path(state.name), state.pack())
        snapshot = directory.decoding_files.get(snapshot_path(state.restart_lsn))
        if snapshot is not None:
            directory.write_decoding_file(snapshot_path(state.restart_lsn), snapshot)
    for path, content in directory.decoding_files.items():
        if states and path.startswith("pg_logical/mappings/"):
            directory.write_decoding_file(path, content)
    return laid


def words_on_slots(
    dropped: Sequence[str], lost: Sequence[str], disabled: Sequence[str]
) -> tuple[str, ...]:
    """For the user: of slots that are another database's, of slots that have lost their WAL, and
    of subscriptions that the start disabled."""
    remarks = []
    if dropped:
        remarks.append(
            f"{_count(dropped, 'replication slot')} of the database that this one was branched "
            "from: not here, since a consumer follows one database."
        )
    if lost:
        remarks.append(
            f"{_count(lost, 'replication slot')} lost: the WAL that they need is gone. Their "
            "consumers have to begin anew; drop them."
        )
    if disabled:
        remarks.append(
            f"{_count(disabled, 'subscription')} disabled: this is a copy of another moment, and "
            "two that pull through one slot miss changes. ALTER SUBSCRIPTION ... ENABLE, once the "
            "slot is its own."
        )
    return tuple(remarks)


def _count(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' if len(names) != 1 else ''} ({', '.join(names)})"


def _states(directory: HydratingDirectory) -> list[SlotState]:
    """Those that Postgres can read: a damaged one would keep it from starting."""
    found = []
    for path, content in directory.decoding_files.items():
        if path.startswith("pg_replslot/"):
            try:
                found.append(SlotState.parse(content, path))
            except DataLoss:
                continue
    return found


async def _write_wal(
    directory: HydratingDirectory, oldest: int, log: Log, pages: AsyncPageClient, wal: WalService
) -> int:
    """From the page of `oldest` on, as far as there is any; returns from where on that is."""
    wanted = oldest - oldest % walformat.PAGE_SIZE
    reached = log.end_lsn
    part: Log | None = log
    while part is not None:
        reached = await _write_part(directory, wanted, part, wal)
        is_all_of_it = wanted < reached <= part.branch_lsn
        part = await _parent(part, pages) if is_all_of_it else None
    start = max(reached, wanted)
    for offset, header in walformat.segment_prefix(
        start, system_id=directory.settings.system_id, version=directory.version
    ):
        directory.write_at(_segment(start), offset, header, length=walformat.SEGMENT_SIZE)
    return reached


async def _write_part(directory: HydratingDirectory, wanted: int, log: Log, wal: WalService) -> int:
    """One timeline's own part; where what there is of it begins."""
    reached = log.end_lsn
    if log.branch_lsn == log.end_lsn:
        return reached  # nothing was ever started there, and so nobody has a log of it
    pieces = wal.read_back(log.tenant, log.timeline, wanted, log.end_lsn)
    try:
        async for piece in pieces:
            reached = min(reached, piece.lsn)
            _write(directory, piece.lsn, piece.data)
    except (NotFound, OutOfRange):
        return log.end_lsn
    return reached


async def _parent(log: Log, pages: AsyncPageClient) -> Log | None:
    info = await pages.get_timeline(log.tenant, log.timeline)
    if not info.parent_timeline_id:
        return None
    parent = TimelineId(info.parent_timeline_id)
    above = await pages.get_timeline(log.tenant, parent)
    return Log(log.tenant, parent, above.branch_lsn, log.branch_lsn)


def _write(directory: HydratingDirectory, lsn: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        offset = lsn % walformat.SEGMENT_SIZE
        piece = bytes(view[: walformat.SEGMENT_SIZE - offset])
        directory.write_at(_segment(lsn), offset, piece, length=walformat.SEGMENT_SIZE)
        lsn, view = lsn + len(piece), view[len(piece) :]


def _segment(lsn: int) -> str:
    return f"pg_wal/{walformat.segment_name(walformat.TIMELINE_ID, lsn)}"
