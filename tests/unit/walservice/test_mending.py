"""Damaged segments are replaced by what others have of them, and only by what holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from pagestore import durable, lost_found
from pagestore.errors import PagestoreError, Unavailable
from pagestore.ids import TenantId, TimelineId
from pagestore.locks import take
from pagestore.lost_found import DIRECTORY
from pagestore.walservice import control_file, mending, segments
from pagestore.walservice.control_file import Control
from pagestore.walservice.mending import LOCK, Mended, mend
from pagestore.walservice.scrub import scrub
from tests.unit.walservice.test_control_file import STATE
from tests.unit.walservice.test_scrub import OWNER, directory
from tests.unit.walservice.test_segments import SEGMENT, Log, spoil, write

FIRST = 2 * SEGMENT
LOG = Log(FIRST - 8192, 700, 20000, 9 << 20, 1_300_000, 90, 12 << 20, 5000, 11 << 20, 400)
"""Four segments; a record goes on over each border."""
END = LOG.end.flush_lsn
NOW = 1_800_000_000.0


class Copy:
    name = "another"

    def __init__(self, start: int = LOG.start.flush_lsn, end: int = END) -> None:
        self.start, self.end = start, end
        self.flipped = -1
        self.away = False
        self.reads: list[tuple[int, int]] = []

    def read(
        self, tenant: TenantId, timeline: TimelineId, start: int, end: int
    ) -> Iterable[tuple[int, bytes]]:
        assert (tenant, timeline) == (OWNER.tenant, OWNER.timeline)
        if self.away:
            raise Unavailable("UNAVAILABLE", "It is away.")
        self.reads.append((start, end))
        start, end = max(start, self.start), min(end, self.end)
        base = LOG.start.flush_lsn
        data = bytearray(LOG.data[start - base : end - base])
        if start <= self.flipped < end:
            data[self.flipped - start] ^= 1
        middle = len(data) // 2
        yield start, bytes(data[:middle])
        yield start + middle, bytes(data[middle:])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(directory(tmp_path), LOG)
    state = replace(STATE, start=LOG.start, position=LOG.end)
    control_file.replace(directory(tmp_path), Control(state, True), OWNER)
    assert failure(tmp_path) is None
    return tmp_path


def failure(data: Path) -> PagestoreError | None:
    (found,) = scrub(data, OWNER.number)
    return found.failure


def mended(data: Path, *copies: Copy) -> tuple[list[Mended], PagestoreError | None]:
    return mend(data, directory(data), OWNER, copies, NOW)


def path_of(data: Path, lsn: int) -> Path:
    return segments.segment_path(directory(data), lsn)


def aside(data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((data / DIRECTORY).glob("*"))]


def contents(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory(data).iterdir()}


def flip_early(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[30_000] ^= 1
    path.write_bytes(raw)


def flip_late(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-30_000] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8192])


def exchange(path: Path) -> None:
    path.write_bytes(path.with_name(f"{path.name[:-1]}{int(path.name[-1]) % 3 + 1}").read_bytes())


DAMAGES: list[Callable[[Path], object]] = [flip_early, flip_late, cut, exchange, Path.unlink]


@pytest.mark.parametrize("damaging", DAMAGES)
def test_each_damage_of_a_segment_is_mended(data: Path, damaging: Callable[[Path], object]) -> None:
    before = contents(data)
    path = path_of(data, FIRST)
    damaging(path)
    damaged = [path.read_bytes()] if path.exists() else []
    assert failure(data) is not None
    (found,), why = mended(data, Copy())
    assert why is None
    assert (found.path, found.source) == (path, "another")
    assert contents(data) == before, "every other file is as it was"
    assert aside(data) == damaged
    assert failure(data) is None
    assert mended(data, Copy()) == ([], None)


def test_all_of_them(data: Path) -> None:
    before = contents(data)
    spoil(directory(data), FIRST - 5000, b"\0\0\0\0\0\0\0\0")
    path_of(data, FIRST).unlink()
    flip_late(path_of(data, FIRST + SEGMENT))
    found, why = mended(data, Copy())
    assert (len(found), why) == (3, None)
    assert contents(data) == before


def test_a_copy_of_what_is_damaged_is_enough(data: Path) -> None:
    """As the object store has only what lies behind the layers there."""
    at = FIRST + SEGMENT - 30_000
    flip_late(path_of(data, FIRST))
    found, why = mended(data, Copy(at - 100, at + 100))
    assert (len(found), why) == (1, None)
    assert failure(data) is None


def test_what_does_not_hold_is_not_put_in_place(data: Path) -> None:
    path = path_of(data, FIRST)
    flip_early(path)
    flip_late(path)
    damaged = path.read_bytes()
    wrong, short, away = Copy(), Copy(end=FIRST + (1 << 20)), Copy()
    wrong.flipped, away.away = FIRST + 500_000, True
    for copies in ([], [wrong], [short], [away]):
        found, why = mended(data, *copies)
        assert (found, why is not None and why.reason) == ([], "WAL_INCOMPLETE")
        assert path.read_bytes() == damaged
        assert aside(data) == []
        assert not list(directory(data).glob("*.tmp"))
    found, why = mended(data, wrong, away, short, Copy())
    assert (len(found), why) == (1, None)


def test_a_segment_that_is_written_is_left_alone(data: Path) -> None:
    spoil(directory(data), END - 100, b"\x55")
    damaged = contents(data)
    found, why = mended(data, Copy())
    assert found == []
    assert why is not None
    assert "still written" in why.message
    assert contents(data) == damaged


def test_nothing_is_replaced_that_is_not_known_to_be_committed(data: Path) -> None:
    """Of several safekeepers: this one's log may be another than the one that counts."""
    members = control_file.read(directory(data), OWNER).state.configuration
    several = replace(members, members=(*STATE.configuration.members, *PEERS))
    state = replace(
        STATE,
        start=LOG.start,
        position=LOG.end,
        configuration=several,
        known_commit_lsn=FIRST + SEGMENT + 100,
    )
    control_file.replace(directory(data), Control(state, True), OWNER)
    flip_late(path_of(data, FIRST + SEGMENT))
    found, why = mended(data, Copy())
    assert (found, why is not None) == ([], True)
    flip_early(path_of(data, FIRST))
    found, why = mended(data, Copy())
    assert [item.path for item in found] == [path_of(data, FIRST)]
    assert why is not None


PEERS = (control_file.Member(8, 1), control_file.Member(9, 1))


def test_two_scrubs_do_not_repair_at_once(data: Path) -> None:
    flip_early(path_of(data, FIRST))
    held = take(data / LOCK)
    assert held is not None
    try:
        found, why = mended(data, Copy())
    finally:
        os.close(held)
    assert (found, why is not None and why.reason) == ([], "SCRUB_UNDER_WAY")


class Killed(BaseException):
    """As by a signal: nothing is cleaned up by those who catch failures."""


STEPS = ("begin", "move_aside", "rename", "sync_directory")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_one_that_was_killed_is_finished_by_the_next(
    data: Path, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    before = contents(data)
    path = path_of(data, FIRST)
    flip_early(path)
    damaged = path.read_bytes()
    where = {"move_aside": lost_found, "rename": Path}.get(step, durable)
    real = getattr(where, step)

    def killed(*arguments: object, **options: object) -> object:
        if moment == "after":
            real(*arguments, **options)
        raise Killed

    monkeypatch.setattr(mending, "_remove", lambda made: None)
    monkeypatch.setattr(where, step, killed)
    with pytest.raises(Killed):
        mended(data, Copy())
    monkeypatch.undo()
    found, why = mended(data, Copy())
    assert why is None
    assert len(found) <= 1
    assert failure(data) is None
    assert {
        name: raw for name, raw in contents(data).items() if not name.endswith(".tmp")
    } == before
    assert damaged in aside(data)
