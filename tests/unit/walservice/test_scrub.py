"""All the WAL that a safekeeper keeps is read record by record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pagestore.ids import TenantId, TimelineId
from pagestore.walservice import control_file, horizon, segments
from pagestore.walservice.control_file import Control
from pagestore.walservice.horizon import Horizon
from pagestore.walservice.owner import Owner
from pagestore.walservice.scrub import ScrubbedLog, scrub
from tests.unit.walservice.test_control_file import STATE
from tests.unit.walservice.test_segments import SEGMENT, Log, spoil, write

OWNER = Owner(TenantId(b"e" * 16), TimelineId(b"t" * 16), 3)
LENGTHS = [700, 20000, 1_300_000, 90, 400, 5000]
"""One is longer than what is looked at in one go, and lies over the border of a segment."""
LOG = Log(2 * SEGMENT - 50 * 8192, *LENGTHS)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    write(directory(tmp_path), LOG)
    state = replace(STATE, start=LOG.start, position=LOG.end)
    control_file.replace(directory(tmp_path), Control(state, True), OWNER)
    return LOG


def directory(data: Path) -> Path:
    path = data / str(OWNER.tenant) / str(OWNER.timeline)
    path.mkdir(parents=True, exist_ok=True)
    return path


def only(data: Path) -> ScrubbedLog:
    (found,) = scrub(data, OWNER.number)
    return found


def test_a_whole_log_is_whole(log: Log, tmp_path: Path) -> None:
    found = only(tmp_path)
    assert found.failure is None
    assert (found.start_lsn, found.end_lsn) == (log.start.flush_lsn, log.end.flush_lsn)


@pytest.mark.parametrize("number", range(len(LENGTHS)))
def test_a_flipped_byte_of_any_record_is_named(log: Log, tmp_path: Path, number: int) -> None:
    at = log.ends[number + 1].flush_lsn - 20
    was = log.data[at - log.start.flush_lsn]
    spoil(directory(tmp_path), at, bytes([was ^ 0x10]))
    failure = only(tmp_path).failure
    assert failure is not None
    assert failure.reason == "SEGMENT_DAMAGED"


def test_a_missing_segment_is_named(log: Log, tmp_path: Path) -> None:
    segments.segment_path(directory(tmp_path), log.end.flush_lsn).unlink()
    failure = only(tmp_path).failure
    assert failure is not None
    assert "missing" in failure.message


def test_what_was_dropped_is_missed_by_nobody(log: Log, tmp_path: Path) -> None:
    horizon.replace(directory(tmp_path), Horizon(2 * SEGMENT, {}), OWNER)
    segments.remove_before(directory(tmp_path), 2 * SEGMENT)
    found = only(tmp_path)
    assert (found.failure, found.start_lsn) == (None, 2 * SEGMENT)
    assert found.start_lsn < found.end_lsn


def test_a_damaged_control_file_is_named(log: Log, tmp_path: Path) -> None:
    path = directory(tmp_path) / "control"
    path.write_bytes(path.read_bytes()[:-1])
    failure = only(tmp_path).failure
    assert failure is not None
    assert failure.reason == "CONTROL_DAMAGED"
