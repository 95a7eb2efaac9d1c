"""Sessions as a load: the C program native/bench/session_load.c, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pagestore.bench.generators import session_load
from pagestore.errors import PagestoreError

USER, PASSWORD, DATABASE = "ann", "pass word", "app"


@dataclass(frozen=True)
class Gate:
    """Where sessions of the database are had: a server, or a proxy before it."""

    name: str
    port: int
    pid: int = 0
    """Of the process whose CPU and memory are a proxy's; 0 for none."""

    @property
    def url(self) -> str:
        """For pgbench, in plain text."""
        place = f"{USER}:{quote(PASSWORD)}@127.0.0.1:{self.port}/{DATABASE}"
        return f"postgresql://{place}?sslmode=disable&gssencmode=disable"


@dataclass(frozen=True)
class Answers:
    """Of sessions that asked, or connected, as fast as they could."""

    a_second: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """Of the gate's process, an answer."""


@dataclass(frozen=True)
class Rows:
    """Of sessions that asked at one moment: milliseconds until a row was there."""

    first_ms: float
    last_ms: float


@dataclass(frozen=True)
class Copied:
    """
    Args:
        speed: megabytes a second.
        cpu: milliseconds of the gate's process, a gigabyte.
    """

    speed: float
    cpu: float


def ask(gate: Gate, clients: int, seconds: float, *, tls: bool = False) -> Answers:
    """``SELECT 1``, over and over, in sessions that stay."""
    return _answers(_run(_command("ask", gate, clients, seconds, tls=tls)))


def connect(gate: Gate, clients: int, seconds: float, *, tls: bool = False) -> Answers:
    """Connect, ``SELECT 1``, close; so many clients at a time."""
    return _answers(_run(_command("connect", gate, clients, seconds, tls=tls)))


def once(gate: Gate, clients: int) -> Rows:
    """All connect at one moment, and ask."""
    return Rows(**_run(_command("once", gate, clients, 0)))


class Held:
    """Sessions that are connected, and idle but when they are told to ask."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self) -> Rows:
        """Each of them, once, at one moment."""
        return Rows(**self._say("ask"))

    def read(self, query: str) -> Copied:
        """In `copying`: the whole answer of a query."""
        said = self._say(query)
        megabytes = float(said["bytes"]) / 1e6
        return Copied(megabytes / float(said["seconds"]), float(said["cpu_ns"]) / 1e3 / megabytes)

    def _say(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise PagestoreError("BENCH_FAILED", errors.strip())
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def hold(gate: Gate, clients: int, *, tls: bool = False) -> Iterator[Held]:
    """So many idle sessions."""
    with _started("hold", gate, clients, tls=tls) as held:
        held.heard()
        yield held


@contextmanager
def copying(gate: Gate, *, tls: bool = False) -> Iterator[Held]:
    """A session whose answers are read as fast as they come."""
    with _started("copy", gate, 1, tls=tls) as held:
        yield held


@contextmanager
def _started(mode: str, gate: Gate, clients: int, *, tls: bool) -> Iterator[Held]:
    process = subprocess.Popen(
        _command(mode, gate, clients, 0, tls=tls),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    try:
        yield Held(process)
    finally:
        process.kill()
        process.communicate()


def _command(
    mode: str, gate: Gate, clients: int, seconds: float, *, tls: bool = False
) -> list[str]:
    return [
        *(str(session_load()), mode, "127.0.0.1", str(gate.port), USER, DATABASE),
        *(str(clients), str(seconds), "tls" if tls else "plain", str(gate.pid)),
    ]


def _environment() -> dict[str, str]:
    return {**os.environ, "PGPASSWORD": PASSWORD}


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != 0:
        raise PagestoreError("BENCH_FAILED", done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _answers(said: dict[str, Any]) -> Answers:
    count = int(said["answered"])
    a_second = count / float(said["seconds"])
    spent = float(said["cpu_ns"]) / 1e3 / max(count, 1)
    return Answers(a_second, said["p50_us"], said["p99_us"], spent)
