"""An import's stream is taken whole and in order, or refused with what is wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from pagestore import keyspace
from pagestore._native import Batch
from pagestore.errors import InvalidInput
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.ingest.importer import Importer, file_key
from pagestore.keyspace import Key, Kind, ValueKind
from pagestore.reader.basebackup import replication_origins
from pagestore.v1 import page_pb2 as pb

TIMELINE = TimelineId(bytes(range(16)))
LSN = 0x2000028
PAGE = b"\x01" * 8192


class Root:
    """Keeps what is put, and checks that each batch is sorted."""

    def __init__(self) -> None:
        self.values: dict[Key, tuple[int, int, bytes]] = {}
        self.committed = False
        self.aborted = False

    def put(self, batch: Batch) -> None:
        entries = [batch[i] for i in range(len(batch))]
        assert [e[0] for e in entries] == sorted(e[0] for e in entries)
        for key, lsn, kind, _, payload in entries:
            assert Key.unpack(key) not in self.values
            self.values[Key.unpack(key)] = lsn, kind, payload

    def commit(self) -> None:
        self.committed = True

    def abort(self) -> None:
        self.aborted = True


def header() -> pb.ImportChunk:
    return pb.ImportChunk(
        header=pb.ImportHeader(
            tenant_id=DEFAULT_TENANT.raw,
            timeline_id=TIMELINE.raw,
            lsn=LSN,
            checkpoint_lsn=LSN - 0x78,
            counters=pb.ControlCounters(next_full_xid=731),
            settings=pb.ControlSettings(system_id=42),
        )
    )


def lengths(**blocks: int) -> pb.ImportChunk:
    return pb.ImportChunk(
        relations=pb.BackupRelations(
            relations=[
                pb.RelationLength(rel=tag(int(name[1:])), nblocks=n) for name, n in blocks.items()
            ]
        )
    )


def tag(rel: int) -> pb.RelTag:
    return pb.RelTag(spc_oid=1663, db_oid=5, rel_number=rel)


def pages(rel: int, blocks: list[int], page: bytes = PAGE) -> pb.ImportChunk:
    return pb.ImportChunk(
        pages=pb.BackupPages(rel=tag(rel), blocks=blocks, pages=[page] * len(blocks))
    )


def file(path: str, data: bytes = b"x") -> pb.ImportChunk:
    return pb.ImportChunk(file=pb.BackupFile(path=path, data=data))


def end(relations: int, files: int) -> pb.ImportChunk:
    return pb.ImportChunk(end=pb.BackupEnd(relations=relations, files=files))


def run(*chunks: pb.ImportChunk, root: Root | None = None) -> Root:
    made = root or Root()

    def open_root(tenant: TenantId, timeline: TimelineId, lsn: int, prev: int) -> Root:
        assert (tenant, timeline, lsn, prev) == (DEFAULT_TENANT, TIMELINE, LSN, LSN - 0x78)
        return made

    importer = Importer(open_root)
    try:
        for chunk in chunks:
            importer.take(chunk)
        importer.finish()
    finally:
        importer.abort()
    return made


def test_everything_becomes_images_at_the_header_lsn() -> None:
    slru = pb.ImportSlruSegment(kind=pb.SLRU_KIND_XACT, segment=1, data=PAGE + bytes(8192) + PAGE)
    origins = replication_origins([(Key(Kind.ORIGIN, block=7).pack(), struct.pack("<QQ", 9, 0))])
    root = run(
        header(),
        file("PG_VERSION", b"15\n"),
        file("base/5/PG_VERSION", b"15\n"),
        file("base/5/pg_filenode.map", b"m" * 512),
        file("global/pg_filenode.map", b"g" * 512),
        file("pg_twophase/000002DB", b"state"),
        file("pg_logical/replorigin_checkpoint", origins),
        pb.ImportChunk(slru=slru),
        lengths(r100=3, r200=0),
        pages(100, [0]),
        pages(100, [1], bytes(8192)),
        pages(100, [2]),
        end(2, 6),
    )
    assert root.committed
    assert not root.aborted
    values = root.values
    assert {lsn for lsn, _, _ in values.values()} == {LSN}
    assert values[keyspace.rel_block(1663, 5, 100, 0, 0)][1:] == (ValueKind.IMAGE, PAGE)
    assert values[keyspace.rel_block(1663, 5, 100, 0, 1)][1:] == (ValueKind.ZERO, b"")
    assert values[keyspace.rel_size(1663, 5, 100, 0)][2] == struct.pack("<I", 3)
    assert values[keyspace.rel_size(1663, 5, 200, 0)][2] == struct.pack("<I", 0)
    assert values[keyspace.slru_size(1, 1)][2] == struct.pack("<I", 3)
    assert values[keyspace.slru_page(1, 33)][1:] == (ValueKind.ZERO, b"")
    assert values[keyspace.slru_page(1, 34)][1:] == (ValueKind.IMAGE, PAGE)
    assert values[keyspace.database(1663, 5)][2] == struct.pack("<I", 1)
    assert values[keyspace.relmap(1664, 0)][2] == b"g" * 512
    assert values[keyspace.two_phase(0x2DB)][2] == b"state"
    assert values[Key(Kind.ORIGIN, block=7)][2] == struct.pack("<QQ", 9, 0)
    assert values[keyspace.SETTINGS][2][:8] == struct.pack("<Q", 42)


def test_pages_leave_memory_before_the_end() -> None:
    root = Root()
    chunks = [pages(100, list(range(start, start + 128))) for start in range(0, 1280, 128)]
    with pytest.raises(InvalidInput):
        run(header(), lengths(r100=1280), *chunks, root=root)
    assert len(root.values) >= 1024
    assert root.aborted
    assert not root.committed


Fault = tuple[str, Callable[[], list[pb.ImportChunk]]]
FAULTS: list[Fault] = [
    ("INVALID_IMPORT", lambda: [lengths(r1=0)]),
    ("INVALID_IMPORT", lambda: [header(), header()]),
    ("INVALID_IMPORT", lambda: [header(), pages(1, [0])]),
    ("INVALID_IMPORT", lambda: [header(), lengths(r1=1), pages(1, [1])]),
    ("INVALID_IMPORT", lambda: [header(), lengths(r1=2), pages(1, [1, 0])]),
    ("INVALID_IMPORT", lambda: [header(), lengths(r1=1), pages(1, [0], b"short")]),
    ("INVALID_IMPORT", lambda: [header(), lengths(r1=2), pages(1, [0]), end(1, 0)]),
    ("INVALID_IMPORT", lambda: [header(), lengths(r1=0), lengths(r1=0)]),
    ("INVALID_IMPORT", lambda: [header(), end(1, 0)]),
    ("INVALID_IMPORT", lambda: [header(), end(0, 1)]),
    ("INVALID_IMPORT", lambda: [header(), end(0, 0), lengths(r1=0)]),
    ("INVALID_IMPORT", lambda: [header(), pb.ImportChunk()]),
    ("INVALID_IMPORT", lambda: [header(), file("../../etc/passwd")]),
    ("INVALID_IMPORT", lambda: [header(), file("base/99999999999/PG_VERSION")]),
    ("INVALID_IMPORT", lambda: [header(), file("pg_logical/replorigin_checkpoint", bytes(24))]),
    (
        "INVALID_IMPORT",
        lambda: [
            header(),
            pb.ImportChunk(slru=pb.ImportSlruSegment(kind="SLRU_KIND_XACT", data=b"1")),
        ],
    ),
    ("INVALID_IMPORT", lambda: [header(), pb.ImportChunk(slru=pb.ImportSlruSegment(data=PAGE))]),
    ("INCOMPLETE_IMPORT", lambda: [header(), lengths(r1=0)]),
    ("INCOMPLETE_IMPORT", list),
]


@pytest.mark.parametrize(("reason", "chunks"), FAULTS)
def test_a_stream_that_breaks_the_rules_leaves_nothing(
    reason: str, chunks: Callable[[], list[pb.ImportChunk]]
) -> None:
    root = Root()
    with pytest.raises(InvalidInput) as caught:
        run(*chunks(), root=root)
    assert caught.value.reason == reason
    assert not root.committed


def test_an_id_of_the_wrong_length_is_refused() -> None:
    chunk = header()
    chunk.header.timeline_id = b"short"
    with pytest.raises(InvalidInput) as caught:
        run(chunk)
    assert caught.value.reason == "INVALID_ID"


def test_files_that_no_compute_needs_have_no_key() -> None:
    assert file_key("PG_VERSION") is None
    assert file_key("pg_stat/pgstat.stat") == Key(Kind.FILE, block=1)


@pytest.mark.parametrize(("home", "spc"), [("base", 1663), ("pg_tblspc/17000/PG_17_2", 17000)])
def test_a_database_lies_in_the_default_tablespace_or_in_another(home: str, spc: int) -> None:
    assert file_key(f"{home}/16384/PG_VERSION") == Key(Kind.DATABASE, spc, 16384)
    assert file_key(f"{home}/16384/pg_filenode.map") == Key(Kind.RELMAP, spc, 16384)
    for name in ("0/PG_VERSION", "16384/pg_internal.init", "16384/1259"):
        with pytest.raises(InvalidInput, match="no place in the store"):
            file_key(f"{home}/{name}")
