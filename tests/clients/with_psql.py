"""psql as people use it: commands typed into one that runs, and one that Ctrl-C stops."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.clients.client import CHANNEL, LARGE, ROWS, WORK_MEM, Door
from tests.clients.debian_psql import psql_command

_END = "that-was-it"


class Psql:
    def __init__(self, door: Door, major: int = 15) -> None:
        self._command = [*psql_command(major), "-XAtq", "-d", door.libpq()]
        self._major = major
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._say("SELECT 1") == ["1"]

    def _say(self, *lines: str) -> list[str]:
        """What it prints, errors too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        commanded = (line.startswith("\\") or " \\" in line for line in lines)
        typed = [
            line if is_one else f"{line};" for line, is_one in zip(lines, commanded, strict=True)
        ]
        self._process.stdin.write("\n".join([*typed, f"\\echo {_END}\n"]))
        self._process.stdin.flush()
        found: list[str] = []
        for line in self._process.stdout:
            if line.rstrip("\n") == _END:
                return found
            found.append(line.rstrip("\n"))
        raise AssertionError(f"psql ended: {found}")

    def exercise(self) -> None:
        # Backslashes keep several statements in one message.
        assert self._say("SELECT 1\\; SELECT 2\\; SELECT 3")[-1] == "3"
        assert "division by zero" in "".join(self._say("SELECT 1 / 0"))
        if self._major >= 16:
            assert self._say("\\bind 41", "SELECT $1::int + 1") == ["42"]
        self._copy()
        assert len(self._say(f"SELECT repeat('z', {LARGE})")[0]) == LARGE
        self._say("\\set FETCH_COUNT 100")
        assert len(self._say(f"SELECT generate_series(1, {ROWS})")) == ROWS
        self._say("\\unset FETCH_COUNT")
        self._large_object()
        self._cancel()

    def _copy(self) -> None:
        with tempfile.TemporaryDirectory(prefix="ps-psql-") as directory:
            told = Path(directory) / "rows"
            told.write_text("".join(f"{number}\t{'x' * 40}\n" for number in range(ROWS)))
            self._say("CREATE TABLE psql_rows (a int, b text)")
            assert self._say(f"\\copy psql_rows from '{told}'") == []
            assert self._say(f"\\copy psql_rows to '{told}2'") == []
            assert told.read_bytes() == Path(f"{told}2").read_bytes()
            assert "invalid input" in "".join(self._say("\\copy psql_rows from '/etc/hostname'"))
            self._say("DROP TABLE psql_rows")

    def _large_object(self) -> None:
        """psql calls functions for them by the protocol's own message."""
        with tempfile.TemporaryDirectory(prefix="ps-psql-") as directory:
            (Path(directory) / "in").write_bytes(os.urandom(100_000))
            self._say(f"\\lo_import '{directory}/in'")
            assert self._say(f"\\lo_export :LASTOID '{directory}/out'") == []
            assert (Path(directory) / "in").read_bytes() == (Path(directory) / "out").read_bytes()
            assert self._say("\\lo_unlink :LASTOID") == []

    def _cancel(self) -> None:
        """Ctrl-C ends a script; so it is another psql."""
        other = subprocess.Popen(
            [*self._command, "-c", "SELECT pg_sleep(60)"], stderr=subprocess.PIPE, text=True
        )
        query = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
        deadline = time.monotonic() + 20
        while self._say(query) != ["1"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        other.send_signal(signal.SIGINT)
        _, told = other.communicate(timeout=20)
        assert "canceling statement due to user request" in told

    def settle(self) -> None:
        said = self._say(
            f"SET work_mem = '{WORK_MEM}'",
            "SET app.tenant = 'ann'",
            "PREPARE more (int) AS SELECT $1 + 1",
            f"LISTEN {CHANNEL}",
        )
        assert said == []
        if self._major >= 18:
            assert self._say("SELECT $1::int + 2 \\parse two") == []

    def check(self) -> None:
        assert self._say("EXECUTE more (41)") == ["42"]
        assert self._say("SHOW work_mem", "SHOW app.tenant") == [WORK_MEM, "ann"]
        if self._major >= 18:
            assert self._say("\\bind_named two 40 \\g") == ["42"]

    def heard(self) -> list[str]:
        # psql looks for them behind each command; the server sends them when it has the signal.
        deadline = time.monotonic() + 20
        while True:
            found = [
                line.split('payload "')[1].split('"')[0]
                for line in self._say("SELECT 1")
                if line.startswith("Asynchronous notification")
            ]
            if found:
                return found
            assert time.monotonic() < deadline, "nothing was notified"
            time.sleep(0.02)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(20) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()
