"""What a killed process left is removed by the next one, and nothing else is."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from pagestore.oracle.scratch import scratch_directory

KIND = "pagestore-test"
PROGRAM = """
import asyncio, sys
from pathlib import Path
from pagestore.oracle.scratch import scratch_directory

async def main():
    async with scratch_directory("pagestore-test", Path(sys.argv[1]), None) as directory:
        (directory / "data").mkdir()
        (directory / "data/large").write_bytes(bytes(100))
        print(directory, flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


def holder(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def make_another(parent: Path) -> None:
    async def main() -> None:
        async with scratch_directory(KIND, parent, None) as directory:
            assert directory.stat().st_mode & 0o777 == 0o700
        assert not directory.exists()

    asyncio.run(main())


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    alive, held = holder(tmp_path)
    dead, left = holder(tmp_path)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    make_another(tmp_path)
    assert not left.exists()
    assert (held / "data/large").exists(), "its process lives"
    alive.communicate("")
    assert not held.exists()


def test_what_is_not_of_that_kind_is_let_be(tmp_path: Path) -> None:
    stranger, file = tmp_path / "pagestore-other-1", tmp_path / f"{KIND}-file"
    stranger.mkdir()
    file.touch()
    aim = tmp_path / "aim"
    (aim / "precious").mkdir(parents=True)
    link = tmp_path / f"{KIND}-link"
    link.symlink_to(aim)
    make_another(tmp_path)
    assert stranger.exists()
    assert file.exists()
    assert (aim / "precious").exists()
    assert link.is_symlink()
