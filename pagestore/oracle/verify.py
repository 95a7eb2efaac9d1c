"""Verification: everything of a timeline is read, and what cannot be right is told.

Without an oracle it can only be said that the store is whole and answers with pages: each layer
file's checksums hold; each relation has a value for every block below its length; each page's
header is one that Postgres accepts, and its LSN lies in the past. That its content is also the
right one, :mod:`pagestore.oracle.comparison` asks of plain Postgres.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pagestore.client.page import AsyncPageClient, Rel
from pagestore.client.wal import WalClient
from pagestore.errors import DataLoss, PagestoreError
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.oracle.comparison import (
    BLOCKS_PER_REQUEST,
    MOST_DIFFERENCES,
    Progress,
    answered,
    is_damage,
    place,
)
from pagestore.oracle.scratch import scratch_directory
from pagestore.pgformat import layout
from pagestore.pgformat.page import as_pages, impossible_headers, page_lsns
from pagestore.pgformat.wal import segment_name
from pagestore.postgres.process import account
from pagestore.postgres.remote_map import Fork
from pagestore.transfer.export import export_imported

SEGMENT = 16 << 20


@dataclass
class Verified:
    """What was read, and what is wrong."""

    relations: int = 0
    blocks: int = 0
    files: int = 0
    layers: int = 0
    layer_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def tell(self, problem: str) -> None:
        if len(self.problems) < MOST_DIFFERENCES:
            self.problems.append(problem)


async def verify_timeline(
    pages: AsyncPageClient,
    tenant: TenantId,
    timeline: TimelineId,
    lsn: int,
    progress: Progress | None = None,
) -> Verified:
    """Checks every layer file of a timeline, and reads every block at `lsn`."""
    result = Verified()
    await pages.get_timeline(tenant, timeline)  # repeated until connected, as streams are not
    async for layer in pages.verify_layers(tenant, timeline):
        result.layers += 1
        result.layer_bytes += layer.bytes
        if layer.HasField("status"):
            result.tell(f"{layer.path}: {layer.status.message}")
    try:
        known = await answered(pages, tenant, timeline, lsn)
    except DataLoss as error:
        result.tell(f"the list of relations at {format_lsn(lsn)}: {error.message}")
        return result
    result.files = len(known.files)
    total = sum(known.relations.values()) * layout.PAGE_SIZE
    for fork, count in known.relations.items():
        result.relations += 1
        for first in range(0, count, BLOCKS_PER_REQUEST):
            blocks = range(first, min(first + BLOCKS_PER_REQUEST, count))
            await _read(result, pages, tenant, timeline, lsn, fork, blocks)
            if progress is not None:
                progress(result.blocks * layout.PAGE_SIZE, total)
    return result


async def _read(
    result: Verified,
    pages: AsyncPageClient,
    tenant: TenantId,
    timeline: TimelineId,
    lsn: int,
    fork: Fork,
    blocks: range,
) -> None:
    try:
        images = await pages.get_pages(tenant, timeline, lsn, Rel(*fork), blocks)
    except PagestoreError as error:
        if not is_damage(error):
            raise
        result.tell(f"{place(fork, blocks.start)} and on: {error.message}")
        return
    result.blocks += len(blocks)
    array = as_pages(b"".join(images))
    for row in impossible_headers(array):
        result.tell(f"{place(fork, blocks[row])}: no page of Postgres begins like this")
    # A page that was built without WAL has a small number there; none has one of the future.
    for block, page_lsn in zip(blocks, page_lsns(array).tolist(), strict=True):
        if page_lsn > lsn:
            what = f"its LSN {format_lsn(page_lsn)} lies in the future"
            result.tell(f"{place(fork, block)}: {what}")


@asynccontextmanager
async def imported_base(
    pages: AsyncPageClient,
    tenant: TenantId,
    timeline: TimelineId,
    *,
    run_as: str | None = None,
    scratch: Path = Path("/var/tmp"),  # noqa: S108
) -> AsyncIterator[Path]:
    """The cluster with which a timeline's history began, out of the page server: what was imported
    as the first of its ancestors, or the empty template. It lives until the block ends.

    Raises:
        PagestoreError: what the page server answered; that state may have been dropped since.
    """
    owner = account(run_as)
    info = await pages.get_timeline(tenant, timeline)
    while info.parent_timeline_id:
        info = await pages.get_timeline(tenant, TimelineId(info.parent_timeline_id))
    async with scratch_directory("pagestore-base", scratch, owner) as place:
        root = TimelineId(info.timeline_id)
        data = place / "data"
        await export_imported(pages, tenant, root, info.branch_lsn, data, owner=owner)
        yield data


async def service_wal(
    pages: AsyncPageClient,
    wal: WalClient,
    tenant: TenantId,
    timeline: TimelineId,
    start: int,
    end: int,
) -> AsyncIterator[tuple[int, bytes]]:
    """A timeline's WAL from `start` to `end`, out of the WAL service: each part from the
    ancestor that wrote it."""
    parts: list[tuple[TimelineId, int, int]] = []
    here: TimelineId | None = timeline
    while here is not None and end > start:
        info = await pages.get_timeline(tenant, here)
        parent = TimelineId(info.parent_timeline_id) if info.parent_timeline_id else None
        begin = start if parent is None else max(start, info.branch_lsn)
        if begin < end:
            parts.append((here, begin, end))
            end = begin
        here = parent
    for owner, begin, stop in reversed(parts):
        await wal.get_status(tenant, owner)  # repeated until connected, as streams are not
        async for piece in wal.read_wal(tenant, owner, begin):
            yield piece.lsn, piece.data[: max(0, stop - piece.lsn)]
            if piece.end >= stop:
                break


async def archived_wal(directory: Path, start: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
    """WAL from segment files of Postgres's names; it ends where one is missing."""
    for begin in range(start - start % SEGMENT, end, SEGMENT):
        path = directory / segment_name(1, begin)
        if not path.exists():
            return
        yield begin, path.read_bytes()
