"""What a compute takes of the disk: measured when it can matter, and all of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pagestore.agent.disk import MEASURE_SECONDS, DiskWatch, Taken, measured
from pagestore.compute.walls import Room, walled
from pagestore.postgres.datadir import Owner
from pagestore.postgres.process import Identity
from tests.waiting import wait_until

MOST = 1 << 30
UID = 1_900_070_001
OWNER = Owner(UID, UID) if os.geteuid() == 0 else None
NOBODY = Identity(0, 0, "")


def free(gib: float, files: int = 1 << 20) -> Taken:
    return Taken(int(gib * (1 << 30)), files)


def test_it_is_measured_at_first_and_once_a_minute(tmp_path: Path) -> None:
    watch = DiskWatch(tmp_path, MOST)
    assert watch.is_due(free(50), 0.0)
    assert not watch.is_due(free(50), MEASURE_SECONDS - 1)
    assert watch.is_due(free(50), MEASURE_SECONDS + 1)


def test_it_is_measured_when_the_disk_is_fuller_by_a_part_of_the_bound(tmp_path: Path) -> None:
    """Also after others have freed a lot, since when it fills again."""
    watch = DiskWatch(tmp_path, MOST)
    assert watch.is_due(free(50), 0.0)
    assert not watch.is_due(free(49.95), 1.0)
    assert watch.is_due(free(49.9), 2.0)
    assert not watch.is_due(free(70), 3.0)
    assert watch.is_due(free(69.9), 4.0)
    assert watch.is_due(free(69.9, (1 << 20) - MOST // 16_384 // 8), 5.0)


def test_too_much_of_either_is_said(tmp_path: Path) -> None:
    watch = DiskWatch(tmp_path, MOST)
    assert watch.fault(Taken(MOST, MOST // 16_384)) == ""
    assert "took 1025 MiB of local disk, and a database may take 1024" in watch.fault(
        Taken(MOST + (1 << 20), 1)
    )
    assert "it had 65537 files" in watch.fault(Taken(0, 65_537))


def test_files_are_measured_by_what_they_take_and_no_link_is_followed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep/er").mkdir(parents=True)
    (data / "deep/er/full").write_bytes(bytes(1 << 20))
    os.truncate(data / "deep/er/full", 1 << 40)
    (tmp_path / "elsewhere").write_bytes(bytes(8 << 20))
    (data / "link").symlink_to(tmp_path / "elsewhere")
    (data / "away").symlink_to("/")
    taken = measured(data, 0, NOBODY)
    assert taken is not None
    assert 1 << 20 <= taken.bytes < 2 << 20
    assert taken.files == 6
    assert measured(tmp_path / "nothing", 0, NOBODY) is None


@pytest.mark.skipif(OWNER is None, reason="measures as another user")
def test_a_directory_on_a_way_that_its_user_cannot_pass_is_measured(tmp_path: Path) -> None:
    data = tmp_path / "closed/data"
    data.mkdir(parents=True, mode=0o700)
    (data / "full").write_bytes(bytes(1 << 20))
    for path in (data, data / "full"):
        os.chown(path, UID, UID)
    (tmp_path / "closed").chmod(0o700)
    taken = measured(data, UID, NOBODY)
    assert taken is not None
    assert taken.bytes >= 1 << 20


def test_what_was_deleted_and_is_open_counts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if OWNER is not None:
        os.chown(data, *OWNER)
    script = f"cd {data}; exec 5>gone; rm gone; head -c 3000000 /dev/zero >&5; touch full; read x"
    child = subprocess.Popen(
        walled(["sh", "-c", script], Room((data,)), OWNER), stdin=subprocess.PIPE
    )
    try:
        wait_until(lambda: (data / "full").exists())
        server = next(
            Identity.of(int(path.name))
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and _is_within(path, script)
        )
        assert server is not None
        taken = measured(data, 0, server)
        assert taken is not None
        assert 3_000_000 <= taken.bytes < 4_000_000
    finally:
        child.communicate(b"x\n", timeout=30)


def _is_within(process: Path, script: str) -> bool:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")[:3] == [
            b"sh",
            b"-c",
            script.encode(),
        ]
    except OSError:
        return False
