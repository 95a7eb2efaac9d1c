"""A page server's store of one timeline, made without any Postgres: images, and pages of records.

Relation IMAGES has pages that are images of random bytes. Each page of relation RECORDS is made by
one record of a sequence, so that it needs a redo helper.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

from pagestore import keyspace
from pagestore._native import Batch
from pagestore.client import Rel
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.keyspace import PAGE_SIZE, WILL_INIT, ValueKind
from pagestore.pg_control_values import pack_settings
from pagestore.pgformat.wal import record_bytes
from pagestore.timeline import Repository
from pagestore.v1 import page_pb2
from tests.plain_postgres import VERSION

TIMELINE = TimelineId(bytes(15) + b"\x07")
IMAGES, RECORDS = Rel(1663, 5, 100), Rel(1663, 5, 16384)
START_LSN = 1000
END_LSN = 9000
RM_SEQ = 15


def make_store(data_dir: Path, *, images: int, records: int) -> None:
    """The store of a page server that is not running yet."""
    data_dir.mkdir()
    repository = Repository.open(data_dir / "store")
    noise = random.Random(7)
    with repository.create_root(DEFAULT_TENANT, TIMELINE, START_LSN, 900) as root:
        batch = Batch()
        settings = page_pb2.ControlSettings(catalog_version=VERSION.catalog_version)
        _put(batch, keyspace.SETTINGS, pack_settings(settings))
        for rel, blocks in ((IMAGES, images), (RECORDS, records)):
            _put(batch, keyspace.rel_size(*_numbers(rel), 0), struct.pack("<I", blocks))
        for block in range(images):
            _put(batch, keyspace.rel_block(*_numbers(IMAGES), 0, block), noise.randbytes(PAGE_SIZE))
        for block in range(records):
            _put(batch, keyspace.rel_block(*_numbers(RECORDS), 0, block), bytes(PAGE_SIZE))
        root.put(batch)
        timeline = root.commit()
    batch = Batch()
    for block in range(records):
        key = keyspace.rel_block(*_numbers(RECORDS), 0, block).pack()
        batch.put(key, 2000 + block, ValueKind.RECORD, WILL_INIT, sequence_record(block))
    timeline.append(batch, END_LSN, END_LSN - 8)
    timeline.freeze()
    timeline.flush()
    repository.close()


def _numbers(rel: Rel) -> tuple[int, int, int]:
    return rel.spc_oid, rel.db_oid, rel.rel_number


def _put(batch: Batch, key: keyspace.Key, value: bytes) -> None:
    batch.put(key.pack(), START_LSN, ValueKind.IMAGE, 0, value)


def sequence_record(block: int) -> bytes:
    """XLOG_SEQ_LOG: makes its page anew, with one tuple of zeros."""
    numbers = struct.pack("<III", *_numbers(RECORDS))
    main = numbers + bytes(40)
    reference = struct.pack("<BBH", 0, 0x40, 0) + numbers + struct.pack("<I", block)
    return record_bytes(RM_SEQ, 0, 3, 0, reference + bytes((255, len(main))) + main)
