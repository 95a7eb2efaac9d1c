"""Import: a vanilla cluster's data directory as the stream that ImportTimeline takes.

The stream has an order: header, small files, transaction status, then every relation with
its length, then the pages, ascending by (spc, db, rel, fork, block). Page checksums, where
the cluster has them, are verified on the way: what is damaged on arrival would otherwise be
served for ever.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pagestore._native import crc32c
from pagestore.errors import DataLoss
from pagestore.ids import TenantId, TimelineId
from pagestore.pgformat import layout, page, paths, relmap, slru
from pagestore.pgformat.pg_control import PgControl
from pagestore.postgres.checkpoint import end_of_checkpoint
from pagestore.postgres.cluster import Cluster, RelationFiles, named_read_errors, open_cluster
from pagestore.postgres.remote_map import Fork
from pagestore.v1 import page_pb2 as pb

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total)."""

PAGES_PER_CHUNK = 128
RELATIONS_PER_CHUNK = 2000
PGSTAT_FILE = "pg_stat/pgstat.stat"
_ORIGINS_FILE = "pg_logical/replorigin_checkpoint"
_NO_ORIGINS_BYTES = 8
"""A magic number and a checksum, with nothing between them."""


@dataclass
class Imported:
    """What the WAL service must know of an imported cluster."""

    lsn: int = 0
    prev_record_lsn: int = 0
    system_id: int = 0

    def watch(self, chunks: Iterable[pb.ImportChunk]) -> Iterator[pb.ImportChunk]:
        """Passes the chunks on, noting the header's facts."""
        for chunk in chunks:
            if chunk.HasField("header"):
                self.lsn = chunk.header.lsn
                self.prev_record_lsn = chunk.header.checkpoint_lsn
                self.system_id = chunk.header.settings.system_id
            yield chunk


def read_pgdata(
    directory: Path, tenant: TenantId, timeline: TimelineId, progress: Progress | None = None
) -> Iterator[pb.ImportChunk]:
    """The chunks of an import of a cleanly stopped cluster. See
    :func:`pagestore.oracle.recovery.stopped_cluster` for one that is not.

    Raises:
        PagestoreError: as :func:`pagestore.postgres.cluster.open_cluster` does, at once.
        DataLoss: while reading: a page, relation map, or prepared transaction is damaged.
    """
    with named_read_errors():
        cluster = open_cluster(directory)
    return _named_chunks(cluster, tenant, timeline, progress or (lambda done, total: None))


def _named_chunks(
    cluster: Cluster, tenant: TenantId, timeline: TimelineId, progress: Progress
) -> Iterator[pb.ImportChunk]:
    with named_read_errors():
        yield from _chunks(cluster, tenant, timeline, progress)


def _chunks(
    cluster: Cluster, tenant: TenantId, timeline: TimelineId, progress: Progress
) -> Iterator[pb.ImportChunk]:
    files = 0
    yield pb.ImportChunk(header=import_header(cluster.control, tenant, timeline))
    for path, data in _small_files(cluster):
        files += 1
        yield pb.ImportChunk(file=pb.BackupFile(path=path, data=data))
    for segment in _slru_segments(cluster.directory):
        yield pb.ImportChunk(slru=segment)
    relations = iter(cluster.relations.items())
    while batch := list(islice(relations, RELATIONS_PER_CHUNK)):
        yield pb.ImportChunk(
            relations=pb.BackupRelations(
                relations=[
                    pb.RelationLength(rel=rel_tag(fork), nblocks=files_of.nblocks)
                    for fork, files_of in batch
                ]
            )
        )
    total = cluster.total_blocks * layout.PAGE_SIZE
    done = 0
    progress(0, total)
    checksums = cluster.control.data_checksum_version != 0
    for fork, relation in cluster.relations.items():
        for first, data in _runs(relation, checksums):
            yield pb.ImportChunk(pages=_pages(fork, first, data))
            done += len(data)
            progress(done, total)
    yield pb.ImportChunk(end=pb.BackupEnd(relations=len(cluster.relations), files=files))


def import_header(control: PgControl, tenant: TenantId, timeline: TimelineId) -> pb.ImportHeader:
    last = control.checkpoint
    return pb.ImportHeader(
        tenant_id=tenant.raw,
        timeline_id=timeline.raw,
        lsn=end_of_checkpoint(control.checkpoint_lsn),
        checkpoint_lsn=control.checkpoint_lsn,
        counters=pb.ControlCounters(
            next_full_xid=last.next_full_xid,
            next_oid=last.next_oid,
            next_multi=last.next_multi,
            next_multi_offset=last.next_multi_offset,
            oldest_xid=last.oldest_xid,
            oldest_xid_db=last.oldest_xid_db,
            oldest_multi=last.oldest_multi,
            oldest_multi_db=last.oldest_multi_db,
            oldest_commit_ts_xid=last.oldest_commit_ts_xid,
            newest_commit_ts_xid=last.newest_commit_ts_xid,
            oldest_active_xid=last.oldest_active_xid,
            full_page_writes=last.full_page_writes,
            checkpoint_time=last.time,
        ),
        settings=pb.ControlSettings(
            system_id=control.system_id,
            wal_level=control.wal_level,
            wal_log_hints=control.wal_log_hints,
            max_connections=control.max_connections,
            max_worker_processes=control.max_worker_processes,
            max_wal_senders=control.max_wal_senders,
            max_prepared_xacts=control.max_prepared_xacts,
            max_locks_per_xact=control.max_locks_per_xact,
            track_commit_timestamp=control.track_commit_timestamp,
            data_checksum_version=control.data_checksum_version,
            pg_control_version=control.pg_control_version,
            catalog_version=control.catalog_version,
            mock_authentication_nonce=control.mock_authentication_nonce,
        ),
    )


def rel_tag(fork: Fork) -> pb.RelTag:
    return pb.RelTag(spc_oid=fork[0], db_oid=fork[1], rel_number=fork[2], fork=fork[3])


def _small_files(cluster: Cluster) -> Iterator[tuple[str, bytes]]:
    root = cluster.directory
    yield "PG_VERSION", (root / "PG_VERSION").read_bytes()
    for home in ("global", *cluster.database_directories()):
        if (root / home / "PG_VERSION").exists():
            yield f"{home}/PG_VERSION", (root / home / "PG_VERSION").read_bytes()
        map_path = root / home / relmap.FILE_NAME
        data = map_path.read_bytes()
        relmap.parse(data, str(map_path))
        yield f"{home}/{relmap.FILE_NAME}", data
    for spc in cluster.tablespaces:
        yield f"{paths.tablespace_directory(spc, cluster.control.version)}/", b""
    for path in sorted((root / "pg_twophase").iterdir()):
        yield f"pg_twophase/{path.name}", _two_phase_state(path)
    with contextlib.suppress(FileNotFoundError):
        yield PGSTAT_FILE, (root / PGSTAT_FILE).read_bytes()
    with contextlib.suppress(FileNotFoundError):
        origins = (root / _ORIGINS_FILE).read_bytes()
        if len(origins) > _NO_ORIGINS_BYTES:
            yield _ORIGINS_FILE, origins


def _two_phase_state(path: Path) -> bytes:
    """A prepared transaction's state file without the CRC-32C at its end."""
    data = path.read_bytes()
    if len(data) < 8 or struct.unpack("<I", data[-4:])[0] != crc32c(data[:-4]):
        raise DataLoss(
            "TWO_PHASE_CORRUPT", f"The checksum of the prepared transaction {path} does not hold."
        )
    return data[:-4]


def _slru_segments(root: Path) -> Iterator[pb.ImportSlruSegment]:
    for kind, directory in slru.DIRECTORY.items():
        for path in sorted((root / directory).iterdir()):
            segment = slru.parse_segment_name(path.name)
            if segment is None:
                continue
            data = path.read_bytes()
            if len(data) % layout.PAGE_SIZE or len(data) > slru.SEGMENT_BYTES:
                raise DataLoss(
                    "TORN_FILE", f"{path} has {len(data)} bytes, which is not 1 to 32 pages."
                )
            yield pb.ImportSlruSegment(kind=pb.SlruKind.Name(kind), segment=segment, data=data)


def _runs(relation: RelationFiles, checksums: bool) -> Iterator[tuple[int, bytes]]:
    """Runs of whole pages with the block number of their first."""
    block = 0
    for path in relation.paths:
        with path.open("rb") as file:
            while data := file.read(PAGES_PER_CHUNK * layout.PAGE_SIZE):
                if len(data) % layout.PAGE_SIZE:
                    raise DataLoss("TORN_FILE", f"{path} became shorter while it was read.")
                if checksums:
                    _verify(path, data, block)
                yield block, data
                block += len(data) // layout.PAGE_SIZE
    if block != relation.nblocks:
        raise DataLoss("TORN_FILE", f"{relation.paths[0]} changed its length while it was read.")


def _verify(path: Path, data: bytes, first: int) -> None:
    bad = page.bad_checksums(page.as_pages(data), first)
    if bad:
        raise DataLoss(
            "BAD_PAGE_CHECKSUM",
            f"The checksum of block {bad[0]} of {path} does not hold"
            + (f" ({len(bad)} bad blocks near it)." if len(bad) > 1 else "."),
            "Find all damage with pg_checksums --check; restore the file from a backup, or "
            "take what can be read with pg_dump.",
        )


def _pages(fork: Fork, first: int, data: bytes) -> pb.BackupPages:
    size = layout.PAGE_SIZE
    count = len(data) // size
    return pb.BackupPages(
        rel=rel_tag(fork),
        blocks=range(first, first + count),
        pages=[data[at * size : (at + 1) * size] for at in range(count)],
    )
