"""The base backup: all that a compute's data directory is made of, at one LSN.

In the order of the stream: the header (counters and settings for pg_control), the real files
(versions, relation maps, SLRU segments, two-phase state, statistics), every relation fork with
its length, the pages that every start reads first, and an end that counts what was sent. A
generator, so that nothing is held whole; run it beside the event loop.

Files are sent as they lie in a data directory: a two-phase state file *includes* its trailing
CRC-32C, and pg_logical/replorigin_checkpoint is made from the ORIGIN values. A path with a slash at
its end is the directory of a tablespace.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from pagestore import keyspace
from pagestore._native import RedoPool, Snapshot, crc32c
from pagestore.keyspace import Key, Kind, Slru
from pagestore.pgformat import paths, relmap, slru, versions
from pagestore.pgformat.layout import PAGE_SIZE
from pagestore.pgformat.versions import Version
from pagestore.reader.sizes import (
    GLOBAL_DATABASE,
    GLOBAL_SPACE,
    Relation,
    counters,
    databases,
    packed_relations,
    rel_size,
    settings,
    slru_segment,
    slru_segments,
)
from pagestore.timeline import slots
from pagestore.v1 import page_pb2 as pb

RELATION_BYTES = 20
RELATION_BYTES_PER_CHUNK = 20_000 * RELATION_BYTES
DATABASE_HAS_VERSION = 1
PG_SUBSCRIPTION = 6100
REPLICATION_STATE_MAGIC = 0x1257DADE


class Ends(NamedTuple):
    """Where a timeline begins, and where it ends by now."""

    branch_lsn: int
    last_record_lsn: int


def base_backup(
    snapshot: Snapshot,
    lsn: int,
    redo: RedoPool | None,
    *,
    hot_pages: bool,
    compute: Ends | None = None,
) -> Iterator[pb.BaseBackupChunk]:
    """Yields the chunks of a base backup at `lsn`.

    Args:
        compute: the timeline's ends, given if the backup is for a compute of it: then with
            replication slots, which need WAL besides.
    """
    header = pb.BackupHeader(
        lsn=lsn, counters=counters(snapshot, lsn), settings=settings(snapshot, lsn)
    )
    version = versions.of_catalog(header.settings.catalog_version)
    relmaps = read_relmaps(snapshot, lsn)
    if compute is not None:
        header.branch_lsn, header.last_record_lsn = compute
        _complete_for_compute(header, snapshot, redo, relmaps)
    yield pb.BaseBackupChunk(header=header)
    files = 0
    for path, data in itertools.chain(
        _database_files(snapshot, lsn, relmaps, version),
        _slru_files(snapshot, lsn, redo),
        _two_phase_files(snapshot, lsn, header.counters.next_full_xid, version),
        _other_files(snapshot, lsn),
        slots.decoding_files(snapshot, lsn) if compute is not None else (),
    ):
        files += 1
        yield pb.BaseBackupChunk(file=pb.BackupFile(path=path, data=data))
    packed = packed_relations(snapshot, lsn)
    for start in range(0, len(packed), RELATION_BYTES_PER_CHUNK):
        part = packed[start : start + RELATION_BYTES_PER_CHUNK]
        yield pb.BaseBackupChunk(relations=pb.BackupRelations(packed=part))
    if hot_pages:
        # With numpy, which would be a tenth of a page server's start: services/page.py.
        from pagestore.reader import hotpages

        yield from _page_chunks(snapshot, lsn, redo, hotpages.choose(packed, relmaps, version))
    relations = len(packed) // RELATION_BYTES
    yield pb.BaseBackupChunk(end=pb.BackupEnd(relations=relations, files=files))


def read_relmaps(snapshot: Snapshot, lsn: int) -> dict[tuple[int, int], bytes]:
    """(tablespace, database) to the content of its pg_filenode.map."""
    scanned = snapshot.scan(*keyspace.kind_range(Kind.RELMAP), lsn)
    keys = [(Key.unpack(raw), content) for raw, content in scanned]
    return {(key.spc, key.db): content for key, content in keys}


def _database_files(
    snapshot: Snapshot, lsn: int, relmaps: dict[tuple[int, int], bytes], version: Version
) -> Iterator[tuple[str, bytes]]:
    yield "PG_VERSION", version.version_file
    for spc, db, flags in databases(snapshot, lsn):
        if db == 0:
            yield f"{paths.tablespace_directory(spc, version)}/", b""
        elif flags & DATABASE_HAS_VERSION:
            yield f"{paths.database_directory(spc, db, version)}/PG_VERSION", version.version_file
    for (spc, db), content in relmaps.items():
        yield f"{paths.database_directory(spc, db, version)}/pg_filenode.map", content


def _slru_files(snapshot: Snapshot, lsn: int, redo: RedoPool | None) -> Iterator[tuple[str, bytes]]:
    for kind in Slru:
        for segment, pages in slru_segments(snapshot, lsn, kind):
            if pages:
                data = slru_segment(snapshot, lsn, kind, segment, redo)
                yield slru.segment_path(kind, segment), data


def _two_phase_files(
    snapshot: Snapshot, lsn: int, next_full_xid: int, version: Version
) -> Iterator[tuple[str, bytes]]:
    for raw, content in snapshot.scan(*keyspace.kind_range(Kind.TWO_PHASE), lsn):
        crc = struct.pack("<I", crc32c(content))
        name = version.two_phase_file(Key.unpack(raw).block, next_full_xid)
        yield f"pg_twophase/{name}", content + crc


def _other_files(snapshot: Snapshot, lsn: int) -> Iterator[tuple[str, bytes]]:
    origins = snapshot.scan(*keyspace.kind_range(Kind.ORIGIN), lsn)
    if origins:
        yield "pg_logical/replorigin_checkpoint", replication_origins(origins)
    statistics = snapshot.get(Key(Kind.FILE, block=keyspace.FILE_PGSTAT).pack(), lsn)
    if statistics is not None:
        yield "pg_stat/pgstat.stat", statistics


def _complete_for_compute(
    header: pb.BackupHeader,
    snapshot: Snapshot,
    redo: RedoPool | None,
    relmaps: dict[tuple[int, int], bytes],
) -> None:
    lsn = header.lsn
    header.owner = snapshot.get(Key(Kind.FILE, block=keyspace.FILE_OWNER).pack(), lsn) or b""
    header.slots.extend(slot.state.name for slot in slots.replication_slots(snapshot, lsn))
    shared = (GLOBAL_SPACE, GLOBAL_DATABASE)
    number = relmap.parse(relmaps[shared]).get(PG_SUBSCRIPTION) if shared in relmaps else None
    if number is None:
        return
    rel = (*shared, number, keyspace.Fork.MAIN)
    count = rel_size(snapshot, lsn, keyspace.rel_size(*rel)) or 0
    if count:
        (chunk,) = _page_chunks(snapshot, lsn, redo, [(Relation(*rel, count), count)])
        header.subscriptions.CopyFrom(chunk.pages)


def replication_origins(origins: list[tuple[bytes, bytes]]) -> bytes:
    """The file replorigin_checkpoint from (ORIGIN key, value) pairs.

    A magic u32; for each origin its id u16, 6 bytes of padding and the remote LSN u64; the
    CRC-32C u32 of all before it. Source: replication/logical/origin.c.
    """
    body = struct.pack("<I", REPLICATION_STATE_MAGIC)
    for raw, value in origins:
        (remote_lsn,) = struct.unpack_from("<Q", value)
        body += struct.pack("<H6xQ", Key.unpack(raw).block, remote_lsn)
    return body + struct.pack("<I", crc32c(body))


def rel_tag(relation: Relation) -> pb.RelTag:
    return pb.RelTag(
        spc_oid=relation.spc, db_oid=relation.db, rel_number=relation.rel, fork=relation.fork
    )


def _page_chunks(
    snapshot: Snapshot, lsn: int, redo: RedoPool | None, chosen: list[tuple[Relation, int]]
) -> Iterator[pb.BaseBackupChunk]:
    """A chunk a relation; all of their pages are read at once."""
    keys = b"".join(
        keyspace.rel_block(*relation[:4], block).pack()
        for relation, count in chosen
        for block in range(count)
    )
    data = memoryview(snapshot.read_pages(keys, lsn, redo))
    at = 0
    for relation, count in chosen:
        pages = [
            bytes(data[i : i + PAGE_SIZE]) for i in range(at, at + count * PAGE_SIZE, PAGE_SIZE)
        ]
        at += count * PAGE_SIZE
        yield pb.BaseBackupChunk(
            pages=pb.BackupPages(rel=rel_tag(relation), blocks=range(count), pages=pages)
        )
