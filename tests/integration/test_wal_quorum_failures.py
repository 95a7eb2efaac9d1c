"""A member of three whose disk fails: nothing is answered, and nothing is taken for done later."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagestore.errors import PagestoreError
from tests import access
from tests.integration.failing_disk import preload, small_disk
from tests.safekeepers import ALL, Safekeepers, three_safekeepers


class Disk:
    """Of safekeeper 3: syncs of files whose path ends with `suffix` fail, one after another."""

    def __init__(self, trigger: Path, three: Safekeepers) -> None:
        self.trigger = trigger
        self.three = three

    def fails(self, suffix: str, work: Callable[[], object]) -> None:
        """`work` fails because of the disk, and the status says so."""
        self.trigger.write_text(suffix)
        with pytest.raises(PagestoreError) as failure:
            work()
        self.trigger.unlink()
        assert failure.value.reason == "WAL_WRITE_FAILED"
        assert self.three.status(3).last_error == failure.value.message


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Safekeepers, Disk]]:
    root = tmp_path_factory.mktemp("three")
    with three_safekeepers(root) as safekeepers:
        safekeepers.at[3].stop()
        safekeepers.at[3].timeout = 0.0
        safekeepers.at[3].start(env={**access.environment(), **preload(root)})
        yield safekeepers, Disk(root / "fail", safekeepers)


@pytest.fixture
def three(running: tuple[Safekeepers, Disk]) -> Safekeepers:
    running[0].forget()
    running[0].create()
    return running[0]


@pytest.fixture
def disk(running: tuple[Safekeepers, Disk]) -> Disk:
    return running[1]


def test_a_vote_that_is_not_durable_is_not_given(three: Safekeepers, disk: Disk) -> None:
    three.term = 1
    for suffix in ("control.tmp", str(three.timeline)):
        disk.fails(suffix, lambda: three.vote(3))
        assert three.status(3).term == 0
    assert three.vote(3).granted
    assert three.status(3).last_error == ""


def test_an_election_that_is_not_durable_is_not_answered(three: Safekeepers, disk: Disk) -> None:
    three.win((1, 2))
    three.vote(3)
    disk.fails("control.tmp", lambda: three.elect(3))
    assert not three.status(3).term_history
    assert three.elect(3).term == 1
    three.append((1, 2))
    three.fill(3, [1])


def test_a_fill_that_is_not_durable_does_not_count(three: Safekeepers, disk: Disk) -> None:
    three.win()
    three.append((1,), size=3 << 20)
    disk.fails("000000010000000000000001", lambda: three.fill(3, [1]))
    status = three.status(3)
    assert status.flush_lsn == three.start_lsn
    assert three.status(1).commit_lsn == three.start_lsn
    three.fill(3, [1])
    three.wait((1, 3), lambda status: status.commit_lsn == three.end[0])
    assert three.wal(3) == three.wal(1)


@pytest.mark.parametrize("suffix", ["control.tmp", "000000010000000000000001"])
def test_a_cut_that_is_not_durable_is_not_answered(
    three: Safekeepers, disk: Disk, suffix: str
) -> None:
    three.win()
    three.append(ALL)
    common = three.end
    three.append((3,), size=3 << 20)
    three.end = common
    three.win((1, 2))
    three.append((1, 2), size=20000)
    assert three.vote(3).granted
    disk.fails(suffix, lambda: three.elect(3))
    status = three.status(3)
    assert status.flush_lsn == common[0], "what has lost is not claimed any more"
    assert [item.term for item in status.term_history] == [1]
    assert three.elect(3).flush_lsn == common[0]
    three.fill(3, [1, 2])
    assert three.wal(3) == three.wal(1)


def test_an_admission_that_is_not_durable_leaves_nothing(three: Safekeepers, disk: Disk) -> None:
    three.win((1, 2))
    three.at[3].call(lambda client: client.delete_timeline(*three.key))
    for suffix in ("control.tmp", str(three.timeline)):
        disk.trigger.write_text(suffix)
        with pytest.raises(PagestoreError) as failure:
            three.admit(3)
        disk.trigger.unlink()
        assert failure.value.reason == "WAL_WRITE_FAILED"
        assert not three.directory(3).exists()
    assert three.admit(3).number == 3


def test_a_control_file_that_may_be_old_or_new_is_written_again(
    three: Safekeepers, disk: Disk
) -> None:
    """The directory's sync failed: a crash may find either file, and either is right."""
    three.win((1, 2))
    three.vote(3)
    disk.fails(str(three.timeline), lambda: three.elect(3))
    three.at[3].stop(signal.SIGKILL)
    three.at[3].start(env={**access.environment(), **preload(disk.trigger.parent)})
    assert three.elect(3).term == 1
    three.append((1, 2))
    three.fill(3, [1])
    assert three.wal(3) == three.wal(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_ends_a_filling_and_the_rest_comes_when_there_is_room(tmp_path: Path) -> None:
    with three_safekeepers(tmp_path) as three, small_disk(tmp_path / "small", "24m"):
        three.at[3].stop()
        three.at[3].data_dir = tmp_path / "small" / "sk3"
        three.at[3].start()
        three.create()
        three.win()
        three.append((1, 2), size=9 << 20)
        common = three.end
        three.append((1, 2), size=9 << 20)
        filler = tmp_path / "small" / "filler"
        filler.write_bytes(bytes(10 << 20))
        with pytest.raises(PagestoreError) as failure:
            three.fill(3, [1])
        assert failure.value.reason == "STORE_FULL"
        status = three.status(3)
        assert status.last_error == failure.value.message
        assert status.flush_lsn in (three.start_lsn, common[0]), "whole pieces or nothing"
        filler.unlink()
        assert three.fill(3, [1]).flush_lsn == three.end[0]
        assert three.wal(3) == three.wal(1)
