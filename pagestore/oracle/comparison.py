"""Page truth: what the page server answers at an LSN, against a data directory at that LSN.

Compared: which relations exist and how long they are; every block of them, through GetPages,
after the masking of ``wal_consistency_checking`` and with its page LSN; the databases, relation
maps, transaction status and multixact pages, two-phase files; the counters of the control file.

The directory should be one that plain Postgres replayed cold (:mod:`pagestore.oracle.replay`):
then both sides are made by the same redo from the same WAL. Left out, for reasons in Postgres
that docs/truth.md gives: the free space map, and main forks of unlogged relations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pagestore.client.page import AsyncPageClient, Rel
from pagestore.errors import FailedPrecondition, PagestoreError
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import layout, paths, relmap, slru
from pagestore.pgformat.pagekind import differing
from pagestore.postgres.cluster import Cluster, RelationFiles, open_cluster
from pagestore.postgres.remote_map import RELATION, Fork
from pagestore.v1 import page_pb2 as pb

BLOCKS_PER_REQUEST = 1024
MOST_DIFFERENCES = 1000
_FSM, _INIT = 1, 3
_WAIT_MS = 60_000
_COUNTERS = (
    "next_oid",
    "next_multi",
    "next_multi_offset",
    "oldest_multi",
)
_XID_STEP = 1024
"""Ingest rounds the next xid up to a multiple, so as not to write it with every commit."""
_ZERO = b"\0"

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total)."""


@dataclass
class Comparison:
    """What was compared, and what is not equal."""

    relations: int = 0
    blocks: int = 0
    files: int = 0
    differences: list[str] = field(default_factory=list)

    def differ(self, what: str) -> None:
        if len(self.differences) < MOST_DIFFERENCES:
            self.differences.append(what)


@dataclass
class Answered:
    """A base backup but for its pages."""

    system_id: int = 0
    counters: pb.ControlCounters = field(default_factory=pb.ControlCounters)
    files: dict[str, bytes] = field(default_factory=dict)
    relations: dict[Fork, int] = field(default_factory=dict)


async def answered(
    pages: AsyncPageClient, tenant: TenantId, timeline: TimelineId, lsn: int
) -> Answered:
    """What the page server knows at an LSN besides blocks."""
    result = Answered()
    chunks = pages.base_backup(tenant, timeline, lsn, hot_pages=False, wait_ms=_WAIT_MS)
    async for chunk in chunks:
        match chunk.WhichOneof("chunk"):
            case "header":
                result.system_id = chunk.header.settings.system_id
                result.counters.CopyFrom(chunk.header.counters)
            case "file":
                result.files[chunk.file.path] = chunk.file.data
            case "relations":
                table = np.frombuffer(chunk.relations.packed, dtype=RELATION)
                for spc, db, rel, fork, blocks in table.tolist():
                    result.relations[spc, db, rel, fork] = blocks
    return result


async def compare_cluster(
    pages: AsyncPageClient,
    tenant: TenantId,
    timeline: TimelineId,
    lsn: int,
    directory: Path,
    progress: Progress | None = None,
) -> Comparison:
    """Compares a timeline at `lsn` with a cleanly stopped cluster that stands at `lsn`.

    Raises:
        FailedPrecondition: INCOMPATIBLE_CLUSTER, or the cluster cannot be read as it lies.
        PagestoreError: what the page server answered, but for damage: that is a difference.
    """
    cluster = await asyncio.to_thread(open_cluster, directory)
    ours = await answered(pages, tenant, timeline, lsn)
    if ours.system_id != cluster.control.system_id:
        raise FailedPrecondition(
            "INCOMPATIBLE_CLUSTER",
            f"{directory} is cluster {cluster.control.system_id}; timeline {timeline} came of "
            f"cluster {ours.system_id}.",
            "Name the data directory that was imported.",
        )
    result = Comparison()
    _compare_files(result, ours, cluster)
    _compare_counters(result, ours.counters, cluster)
    done = 0
    for fork in compared_forks(ours.relations, cluster.relations):
        have, files = ours.relations.get(fork), cluster.relations.get(fork)
        if have is None or files is None or have != files.nblocks:
            theirs = "no relation" if files is None else f"{files.nblocks} blocks"
            mine = "no relation" if have is None else f"{have} blocks"
            result.differ(f"{place(fork)}: {mine} for {theirs}")
            continue
        await _compare_blocks(result, pages, tenant, timeline, lsn, fork, files)
        done += have
        if progress is not None:
            progress(done * layout.PAGE_SIZE, cluster.total_blocks * layout.PAGE_SIZE)
    return result


def compared_forks(*sides: Mapping[Fork, object]) -> list[Fork]:
    """Every fork of either side that WAL tells all of."""
    every = {fork for side in sides for fork in side}
    unlogged = {fork[:3] for fork in every if fork[3] == _INIT}
    return sorted(
        fork for fork in every if fork[3] != _FSM and (fork[3] == _INIT or fork[:3] not in unlogged)
    )


def place(fork: Fork, block: int | None = None) -> str:
    """A relation's file, as an administrator knows it, and the block in it."""
    path = paths.relation_path(*fork)
    return path if block is None else f"{path} block {block}"


def is_damage(error: PagestoreError) -> bool:
    """Whether an answer says that a page cannot be had, now or later."""
    return error.code in ("DATA_LOSS", "INTERNAL", "OUT_OF_RANGE")


async def _compare_blocks(
    result: Comparison,
    pages: AsyncPageClient,
    tenant: TenantId,
    timeline: TimelineId,
    lsn: int,
    fork: Fork,
    files: RelationFiles,
) -> None:
    result.relations += 1
    for first in range(0, files.nblocks, BLOCKS_PER_REQUEST):
        blocks = range(first, min(first + BLOCKS_PER_REQUEST, files.nblocks))
        theirs = await asyncio.to_thread(read_blocks, files, blocks)
        try:
            images = await pages.get_pages(tenant, timeline, lsn, Rel(*fork), blocks)
        except PagestoreError as error:
            if not is_damage(error):
                raise
            result.differ(f"{place(fork, first)}: {error.message}")
            continue
        result.blocks += len(blocks)
        numbers = np.arange(blocks.start, blocks.stop)
        for block, what in differing(b"".join(images), theirs, fork[3], numbers):
            result.differ(f"{place(fork, block)}: {what}")


def read_blocks(files: RelationFiles, blocks: range) -> bytes:
    """Consecutive blocks from a relation's segment files."""
    parts = []
    block = blocks.start
    while block < blocks.stop:
        segment, within = divmod(block, layout.SEGMENT_BYTES // layout.PAGE_SIZE)
        count = min(blocks.stop - block, layout.SEGMENT_BYTES // layout.PAGE_SIZE - within)
        with files.paths[segment].open("rb") as file:
            file.seek(within * layout.PAGE_SIZE)
            parts.append(file.read(count * layout.PAGE_SIZE))
        block += count
    return b"".join(parts)


def _compare_files(result: Comparison, ours: Answered, cluster: Cluster) -> None:
    theirs = dict(_small_files(cluster))
    mine = {path: data for path, data in ours.files.items() if _is_compared(path)}
    for path in sorted({*theirs, *mine}):
        result.files += 1
        one, other = mine.get(path), theirs.get(path)
        if path.startswith(tuple(slru.DIRECTORY.values())):
            _compare_segment(result, path, one or b"", other or b"")
        elif one != other:
            there = "none" if other is None else f"{len(other)} bytes"
            here = "none" if one is None else f"{len(one)} bytes"
            result.differ(f"{path}: {here} that differ from {there}")


def _compare_segment(result: Comparison, path: str, one: bytes, other: bytes) -> None:
    """A segment may be longer on one side, by pages that nobody has written to."""
    common = min(len(one), len(other))
    if one[:common] != other[:common]:
        pair = zip(one[:common], other[:common], strict=True)
        offset = next(i for i, (a, b) in enumerate(pair) if a != b)
        result.differ(f"{path}: differs from byte {offset} on")
    elif one[common:].strip(_ZERO) or other[common:].strip(_ZERO):
        result.differ(f"{path}: {len(one)} bytes for {len(other)}")


def _is_compared(path: str) -> bool:
    folders = (*slru.DIRECTORY.values(), "pg_twophase/", "base/", "global/", "pg_tblspc/")
    return path.startswith(folders)


def _small_files(cluster: Cluster) -> Iterator[tuple[str, bytes]]:
    root = cluster.directory
    names = ["global/pg_filenode.map"]
    for home in cluster.database_directories():
        names += [f"{home}/PG_VERSION", f"{home}/{relmap.FILE_NAME}"]
    for name in names:
        yield name, (root / name).read_bytes()
    for spc in cluster.tablespaces:
        yield f"{paths.tablespace_directory(spc, cluster.control.version)}/", b""
    for folder in (*slru.DIRECTORY.values(), "pg_twophase"):
        for entry in (root / folder).iterdir():
            if entry.is_file():
                yield f"{folder}/{entry.name}", entry.read_bytes()


def _compare_counters(result: Comparison, ours: pb.ControlCounters, cluster: Cluster) -> None:
    for name in _COUNTERS:
        mine, theirs = getattr(ours, name), getattr(cluster.control.checkpoint, name)
        if mine != theirs:
            result.differ(f"global/pg_control: {name} is {mine} for {theirs}")
    mine, theirs = ours.next_full_xid, cluster.control.checkpoint.next_full_xid
    if not 0 <= mine - theirs <= _XID_STEP:
        result.differ(f"global/pg_control: next_full_xid is {mine} for {theirs}")
    _compare_oldest_xid(result, ours, cluster)
    # Redo of a checkpoint takes a database only with a multixact that is later than the last.
    mine, theirs = ours.oldest_multi_db, cluster.control.checkpoint.oldest_multi_db
    if mine != theirs and mine not in {db for _, db in cluster.databases}:
        result.differ(f"global/pg_control: oldest_multi_db is {mine} for {theirs}")


def _compare_oldest_xid(result: Comparison, ours: pb.ControlCounters, cluster: Cluster) -> None:
    """Postgres's redo leaves it until the next checkpoint record when pg_xact is truncated. Then
    the files tell: theirs is a transaction whose segment is gone, ours one whose is there."""
    known = cluster.control.checkpoint
    mine = (ours.oldest_xid, ours.oldest_xid_db)
    theirs = (known.oldest_xid, known.oldest_xid_db)
    here, there = (_xact_file(cluster, xid).exists() for xid in (mine[0], theirs[0]))
    if mine != theirs and (there or not here):
        result.differ(f"global/pg_control: oldest xid and database are {mine} for {theirs}")


def _xact_file(cluster: Cluster, xid: int) -> Path:
    path, _ = slru.page_position(slru.XACT, slru.page_of(slru.XACT, xid))
    return cluster.directory / path
