"""A disk that is full is told as such, however LMDB puts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import contextlib, os, pathlib, subprocess, sys
import lmdb
from pagestore.errors import DataLoss, PagestoreError
from pagestore.lmdbfile.failing import store_errors

def fill(place, left):
    with contextlib.suppress(OSError), (place / "fill").open("wb", buffering=0) as filling:
        while filling.write(bytes(4096)) == 4096:
            pass
    os.truncate(place / "fill", (place / "fill").stat().st_size - left)

def full(place, left):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    with lmdb.open(str(place / "store"), map_size=1 << 24) as env:
        fill(place, left)
        with store_errors(place / "store/data.mdb", DataLoss, full="MAP_FULL", env=env):
            for number in range(500):
                with env.begin(write=True) as txn:
                    txn.put(b"%d" % number, bytes(3000 * (number % 7 + 1)))

place = pathlib.Path(sys.argv[1])
for left in range(0, 20 * 4096, 4096):
    try:
        full(place, left)
    except PagestoreError as error:
        print(error.reason, error.message)
    subprocess.run(["umount", "-l", place], check=True)
"""


def test_a_commit_of_which_a_part_had_room_is_of_a_full_disk(tmp_path: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("did NOT run: this machine lets nobody mount anything of his own")
    command = [*alone, sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = done.stdout.splitlines()
    assert len(told) == 20
    assert {line.split()[0] for line in told} == {"STORE_FULL"}
    assert any("Input/output error" in line for line in told), "or there is nothing to tell apart"
