"""The record of a compute: read as it was written, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pagestore.compute.record import RECORD_FILE, ComputeRecord
from pagestore.compute.sandbox import Sandbox
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres.process import Identity

RECORD = ComputeRecord(
    TenantId(bytes(16)),
    TimelineId(bytes(range(16))),
    5432,
    "/run/somewhere",
    "/var/log/it.log",
    outside=("/dev/shm/it",),
    process=Identity(42, 4711, "a boot"),
    term=7,
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    RECORD.save(tmp_path)
    assert ComputeRecord.load(tmp_path) == RECORD


def test_a_record_of_before_checksums_is_read(tmp_path: Path) -> None:
    RECORD.save(tmp_path)
    facts = json.loads((tmp_path / RECORD_FILE).read_text())
    del facts["crc32c"]
    (tmp_path / RECORD_FILE).write_text(json.dumps(facts))
    assert ComputeRecord.load(tmp_path) == RECORD


def test_a_record_of_before_there_were_walls_is_read(tmp_path: Path) -> None:
    RECORD.save(tmp_path)
    facts = json.loads((tmp_path / RECORD_FILE).read_text())
    for name in ("crc32c", "sandbox", "uid", "groups"):
        del facts[name]
    (tmp_path / RECORD_FILE).write_text(json.dumps(facts))
    assert ComputeRecord.load(tmp_path) == RECORD


def test_walls_are_read_as_they_were_written(tmp_path: Path) -> None:
    sandbox = Sandbox(Identity(40, 4710, "a boot"), Identity(41, 4711, "a boot"))
    walled = replace(RECORD, sandbox=sandbox, uid=1_900_000_000, groups=("/sys/fs/cgroup/it",))
    walled.save(tmp_path)
    assert ComputeRecord.load(tmp_path) == walled


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    RECORD.save(tmp_path)
    whole = (tmp_path / RECORD_FILE).read_bytes()
    for at in range(len(whole)):
        for bit in (0, 3, 6):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            (tmp_path / RECORD_FILE).write_bytes(flipped)
            # White space between the words means nothing; a name that is another is passed over.
            assert ComputeRecord.load(tmp_path) in (None, RECORD)


def test_a_record_that_was_cut_is_none(tmp_path: Path) -> None:
    RECORD.save(tmp_path)
    whole = (tmp_path / RECORD_FILE).read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        (tmp_path / RECORD_FILE).write_bytes(whole[:length])
        assert ComputeRecord.load(tmp_path) is None
