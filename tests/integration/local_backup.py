"""A base backup without a page server: the chunks of an import, as the page server would
send them back with every page hot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pagestore._native import crc32c
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.pgformat import slru
from pagestore.transfer.pgdata import read_pgdata
from pagestore.v1 import page_pb2 as pb

EVERYTHING: Callable[[pb.RelTag], bool] = lambda rel: True  # noqa: E731


def backup_chunks(
    pgdata: Path, hot: Callable[[pb.RelTag], bool] = EVERYTHING
) -> Iterator[pb.BaseBackupChunk]:
    files = 0
    end = None
    for chunk in read_pgdata(pgdata, DEFAULT_TENANT, TimelineId.generate()):
        kind = chunk.WhichOneof("chunk")
        if kind == "header":
            yield pb.BaseBackupChunk(
                header=pb.BackupHeader(
                    lsn=chunk.header.lsn,
                    counters=chunk.header.counters,
                    settings=chunk.header.settings,
                )
            )
        elif kind == "file":
            files += 1
            data = chunk.file.data
            if chunk.file.path.startswith("pg_twophase/"):
                data += crc32c(data).to_bytes(4, "little")
            yield pb.BaseBackupChunk(file=pb.BackupFile(path=chunk.file.path, data=data))
        elif kind == "slru":
            files += 1
            path = slru.segment_path(chunk.slru.kind, chunk.slru.segment)
            yield pb.BaseBackupChunk(file=pb.BackupFile(path=path, data=chunk.slru.data))
        elif kind == "relations":
            yield pb.BaseBackupChunk(relations=chunk.relations)
        elif kind == "pages":
            if hot(chunk.pages.rel):
                yield pb.BaseBackupChunk(pages=chunk.pages)
        else:
            end = chunk.end
    assert end is not None
    yield pb.BaseBackupChunk(end=pb.BackupEnd(relations=end.relations, files=files))
