"""CREATE DATABASE ... STRATEGY file_copy: a database copied behind the WAL's back.

Its WAL record says only "copy that directory". So ingest stops at the record (a *barrier* of
the core), reads every relation of the source database as it was just before it, and puts the
copy as images whose LSN is the record's end. They stay invisible until the timeline's last
record LSN moves there, so the copy may be put in many batches, and flushed between them; after
a crash it is made again, with the same result.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pagestore import keyspace
from pagestore._native import Batch, RedoPool, Snapshot
from pagestore.keyspace import PAGE_SIZE, Key, Kind, ValueKind

BLOCKS_PER_READ = 512
_ZEROS = bytes(PAGE_SIZE)
_U32 = struct.Struct("<I")

Directories = tuple[int, int, int, int]
"""(source tablespace, source database, target tablespace, target database)."""


def clone_batches(
    snapshot: Snapshot,
    read_lsn: int,
    write_lsn: int,
    directories: Directories,
    redo: RedoPool | None,
) -> Iterator[Batch]:
    """Images at `write_lsn` of what the source database held at `read_lsn`."""
    source_spc, source_db, target_spc, target_db = directories
    bounds = keyspace.database_range(Kind.REL_SIZE, source_spc, source_db)
    for raw_key, raw_size in snapshot.scan(*bounds, read_lsn):
        key = Key.unpack(raw_key)
        batch = Batch()
        copy = keyspace.rel_size(target_spc, target_db, key.rel, key.fork)
        batch.put(copy.pack(), write_lsn, ValueKind.IMAGE, 0, raw_size)
        yield batch
        (blocks,) = _U32.unpack(raw_size)
        for start in range(0, blocks, BLOCKS_PER_READ):
            some = range(start, min(start + BLOCKS_PER_READ, blocks))
            keys = [keyspace.rel_block(*key[1:5], block).pack() for block in some]
            data = snapshot.read_pages(b"".join(keys), read_lsn, redo)
            yield _images(copy, some, data, write_lsn)


def _images(copy: Key, blocks: range, data: bytes, lsn: int) -> Batch:
    batch = Batch()
    for i, block in enumerate(blocks):
        key = keyspace.rel_block(*copy[1:5], block).pack()
        page = data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
        if page == _ZEROS:
            batch.put(key, lsn, ValueKind.ZERO, 0, b"")
        else:
            batch.put(key, lsn, ValueKind.IMAGE, 0, page)
    return batch
