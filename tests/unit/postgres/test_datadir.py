"""What a base backup may not contain, and what is laid from one."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from pagestore.compute.hydrating import HydratingDirectory
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.postgres import remote_map
from pagestore.postgres.datadir import DataDirectory
from pagestore.v1 import page_pb2 as pb

HEADER = pb.BaseBackupChunk(header=pb.BackupHeader(lsn=8))
REL = pb.RelTag(spc_oid=1663, db_oid=5, rel_number=16384)


def relations(nblocks: int = 2, rel: pb.RelTag = REL) -> pb.BaseBackupChunk:
    length = pb.RelationLength(rel=rel, nblocks=nblocks)
    return pb.BaseBackupChunk(relations=pb.BackupRelations(relations=[length]))


def pages(*blocks: int, size: int = 8192, rel: pb.RelTag = REL) -> pb.BaseBackupChunk:
    images = [bytes(size) for _ in blocks]
    return pb.BaseBackupChunk(pages=pb.BackupPages(rel=rel, blocks=blocks, pages=images))


def file(path: str, data: bytes = b"") -> pb.BaseBackupChunk:
    return pb.BaseBackupChunk(file=pb.BackupFile(path=path, data=data))


def end(relations: int = 0, files: int = 0) -> pb.BaseBackupChunk:
    return pb.BaseBackupChunk(end=pb.BackupEnd(relations=relations, files=files))


def feed_all(directory: DataDirectory, chunks: list[pb.BaseBackupChunk]) -> None:
    for chunk in chunks:
        directory.feed(chunk)


REFUSED = {
    "no header": [file("PG_VERSION")],
    "two headers": [HEADER, HEADER],
    "something after the end": [HEADER, end(), file("PG_VERSION")],
    "an empty chunk": [HEADER, pb.BaseBackupChunk()],
    "a lost relation": [HEADER, relations(), end(relations=2)],
    "a lost file": [HEADER, file("PG_VERSION"), end()],
    "a relation twice": [HEADER, relations(), relations()],
    "a fifth fork": [
        HEADER,
        relations(rel=pb.RelTag(spc_oid=1663, db_oid=5, rel_number=1, fork=4)),
    ],
    "a page before its relation": [HEADER, pages(0)],
    "a page beyond the end": [HEADER, relations(2), pages(1, 2)],
    "a short page": [HEADER, relations(), pages(0, size=100)],
    "a path outside": [HEADER, file("../../etc/passwd")],
    "an absolute path": [HEADER, file("/etc/passwd")],
    "a configuration file": [HEADER, file("postgresql.auto.conf")],
    "a file in the place of a relation": [HEADER, file("base/5/1259")],
    "a line break in a path": [HEADER, file("PG_VERSION\n")],
    "a damaged relation map": [HEADER, file("global/pg_filenode.map", bytes(512))],
}


@pytest.mark.parametrize("kind", [DataDirectory, HydratingDirectory])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, kind: type[DataDirectory], tmp_path: Path) -> None:
    *before, last = REFUSED[case]
    with kind(tmp_path / "data") as directory:
        for chunk in before:
            directory.feed(chunk)
        with pytest.raises(DataLoss):
            feed_all(directory, [last, end(relations=2)])


def test_files_are_sparse_and_as_long_as_they_should_be(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data") as directory:
        for chunk in [HEADER, relations(300_000), pages(0, 131072, 299_999), end(relations=1)]:
            directory.feed(chunk)
        assert directory.complete
    base = tmp_path / "data/base/5"
    sizes = {path.name: path.stat().st_size for path in base.iterdir()}
    gib = 1 << 30
    assert sizes == {"16384": gib, "16384.1": gib, "16384.2": (300_000 - 262144) * 8192}
    assert sum(path.stat().st_blocks for path in base.iterdir()) * 512 < 1 << 20


def test_an_unlogged_relation_starts_as_its_init_fork(tmp_path: Path) -> None:
    init = pb.RelTag(spc_oid=1663, db_oid=5, rel_number=7, fork=3)
    with DataDirectory(tmp_path / "data") as directory:
        for chunk in [HEADER, relations(1, init), end(relations=1)]:
            directory.feed(chunk)
        fork = (1663, 5, 7, 3)
        assert directory.unlogged_forks() == [fork]
        with pytest.raises(DataLoss, match="of which 0 pages came"):
            directory.write_unlogged({})
        image = bytes(range(256)) * 32
        directory.write_unlogged({fork: [image]})
        assert (directory.root / "base/5/7").read_bytes() == image
        assert (directory.root / "base/5/7_init").read_bytes() == image


def test_a_hydrating_directory_has_files_of_unlogged_relations_only(tmp_path: Path) -> None:
    init = pb.RelTag(spc_oid=1663, db_oid=5, rel_number=7, fork=3)
    with HydratingDirectory(tmp_path / "data") as directory:
        for chunk in [HEADER, relations(1, init), relations(9), pages(3), end(relations=2)]:
            directory.feed(chunk)
        directory.write_unlogged({(1663, 5, 7, 3): [bytes(8192)]})
        directory.write_remote_map()
    files = {path.name for path in (tmp_path / "data/base/5").iterdir()}
    assert files == {"7", "7_init"}
    data = (tmp_path / "data" / remote_map.FILE_NAME).read_bytes()
    assert remote_map.HEADER.unpack_from(data)[2] == 1
    assert remote_map.HEADER.unpack_from(data)[7] == 1


def test_relations_may_come_packed(tmp_path: Path) -> None:
    packed = struct.pack("<10I", 1663, 5, 7, 0, 3, 1663, 5, 9, 2, 0)
    chunk = pb.BaseBackupChunk(relations=pb.BackupRelations(packed=packed))
    with DataDirectory(tmp_path / "data") as directory:
        directory.feed(HEADER)
        directory.feed(chunk)
        assert directory.lengths == {(1663, 5, 7, 0): 3, (1663, 5, 9, 2): 0}
        chunk.relations.packed = packed[:-1]
        with pytest.raises(DataLoss, match="odd length"):
            directory.feed(chunk)


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="not empty"):
        DataDirectory(tmp_path)


def test_a_directory_that_is_refused_is_not_kept_open(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition) as refusal:  # whose frames keep what was half made
        DataDirectory(tmp_path)
    open_now = {os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()}
    assert refusal.value.reason == "DIRECTORY_NOT_EMPTY"
    assert str(tmp_path) not in open_now
