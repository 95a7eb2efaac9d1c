"""A log made of archived WAL is one that a safekeeper opens, up to the last whole record."""

from __future__ import annotations

from pathlib import Path

import pytest

from pagestore.consensus.acceptor import WalPosition
from pagestore.errors import DataLoss
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.walservice import log as log_files
from pagestore.walservice import segments
from pagestore.walservice.owner import Owner
from pagestore.walservice.rebuilt import Piece, rebuild
from tests.unit.walservice.test_segments import SEGMENT, STARTS, SYSTEM_ID, Log

OWNER = Owner(DEFAULT_TENANT, TimelineId(b"t" * 16), 1)


def pieces(log: Log, length: int, cut: int = 0) -> list[Piece]:
    data = log.data[: len(log.data) - cut]
    return [
        Piece(log.start.flush_lsn + at, data[at : at + length], 3 + at // 100_000)
        for at in range(0, len(data), length)
    ]


def opened(root: Path) -> log_files.Loaded:
    return log_files.load(root / str(OWNER.tenant) / str(OWNER.timeline), OWNER)


@pytest.mark.parametrize("start", STARTS)
def test_a_log_is_what_was_archived(tmp_path: Path, start: int) -> None:
    log = Log(start, 8, 100, 9000, 1, 40000, 8168, 50)
    end = rebuild(tmp_path, OWNER, log.start, SYSTEM_ID, pieces(log, 777))
    assert end == log.end
    state = opened(tmp_path).state
    assert (state.start, state.position, state.system_id) == (log.start, log.end, SYSTEM_ID)
    assert state.term == state.history[-1].term == 3
    directory = tmp_path / str(OWNER.tenant) / str(OWNER.timeline)
    assert segments.read_range(directory, start, log.end.flush_lsn) == log.data


def test_it_ends_at_the_last_whole_record_and_goes_on_from_there(tmp_path: Path) -> None:
    log = Log(SEGMENT + 40, 8, 100, 9000, 1)
    # Less than eight bytes are only what a record is filled up with.
    for cut in range(8, len(log.data), 97):
        root = tmp_path / str(cut)
        end = rebuild(root, OWNER, log.start, SYSTEM_ID, pieces(log, 1000, cut))
        assert end == max(e for e in log.ends if e.flush_lsn <= log.end.flush_lsn - cut)
        loaded = opened(root)
        directory = root / str(OWNER.tenant) / str(OWNER.timeline)
        files = log_files.LogFiles(directory, log.start.flush_lsn, loaded.control.epoch)
        rest = log.data[end.flush_lsn - log.start.flush_lsn :]
        assert log_files.append(files, end, end.flush_lsn, rest) == log.end


def test_without_archived_wal_it_is_a_log_that_is_empty(tmp_path: Path) -> None:
    start = WalPosition(SEGMENT + 40, SEGMENT)
    assert rebuild(tmp_path, OWNER, start, 0, []) == start
    state = opened(tmp_path).state
    assert (state.start, state.position, state.term, state.history) == (start, start, 0, ())


def test_a_second_attempt_makes_the_same(tmp_path: Path) -> None:
    log = Log(2 * SEGMENT - 64, 8, 100, 9000)
    for _ in range(2):
        assert rebuild(tmp_path, OWNER, log.start, 0, pieces(log, 500)) == log.end
    assert opened(tmp_path).state.position == log.end


def test_what_is_no_wal_is_named(tmp_path: Path) -> None:
    log = Log(SEGMENT + 40, 100, 5000, 5000, 9000, 30, 40)
    damaged = bytearray(log.data)
    damaged[3000] ^= 1
    with pytest.raises(DataLoss) as told:
        rebuild(tmp_path, OWNER, log.start, 0, [Piece(log.start.flush_lsn, bytes(damaged), 1)])
    assert told.value.reason == "SEGMENT_DAMAGED"
