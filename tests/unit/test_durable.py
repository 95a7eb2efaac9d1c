"""Writes that had room for a part only are told, not taken for whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pagestore import durable

PROGRAM = """
import os, resource, signal, sys
from pagestore import durable

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
assert os.pwrite(descriptor, b"x" * 8192, 0) == 6000, "what this is about"
try:
    durable.write_at(descriptor, bytes(8192), 0)
except OSError as error:
    print(error.errno)
os.ftruncate(descriptor, 0)
durable.write_at(descriptor, b"whole" * 1000, 1000)
print(os.pread(descriptor, 8192, 1000) == b"whole" * 1000)
"""


def test_what_had_no_room_altogether_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["27", "True"]  # EFBIG


MAY_BE_TORN = {
    "durable.py",
    "lmdbfile/witness.py",
    "walservice/memory_of_peers.py",
    "walservice/witness.py",
}


def test_nobody_else_takes_a_part_of_a_write_for_all_of_it() -> None:
    """But who writes notes that carry a sum, without which he does as well."""
    package = Path(durable.__file__).parent
    write = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "os.pwrite(" in path.read_text()
    }
    assert write == MAY_BE_TORN
