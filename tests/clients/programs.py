"""Clients of other languages: small programs that do what they are told, line by line.

A program gets its :class:`Door` as JSON in its last argument. It reads a verb a line, and answers
each by a line of JSON: ``{"ok": ...}``, or ``{"failed": "why"}``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.clients.cache import cache, missing
from tests.clients.client import CHANNEL, LARGE, ROWS, SESSIONS, WORK_MEM, Door

_HERE = Path(__file__).parent
_BUILD_SECONDS = 200  # less than a test may take


class Program:
    def __init__(self, door: Door, build: Callable[[], list[str]]) -> None:
        facts = {name: str(value) if value else "" for name, value in asdict(door).items()}
        facts |= {"channel": CHANNEL, "work_mem": WORK_MEM}
        numbers = {"port": door.port, "rows": ROWS, "large": LARGE, "sessions": SESSIONS}
        self._process = subprocess.Popen(
            [*build(), json.dumps(facts | numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the program ended with {self._process.wait(20)}"
        answer = json.loads(line)
        assert "ok" in answer, answer
        return answer["ok"]

    def _tell(self, verb: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{verb}\n")
        self._process.stdin.flush()
        return self._answer()

    def exercise(self) -> None:
        self._tell("exercise")

    def settle(self) -> None:
        self._tell("settle")

    def check(self) -> None:
        self._tell("check")

    def heard(self) -> list[str]:
        found = self._tell("heard")
        assert isinstance(found, list)
        assert found, "nothing was notified"
        return found

    def close(self) -> None:
        self._tell("close")
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(20) == 0


def _made(name: str) -> Path:
    """A copy of a program's sources, beside which its package manager may write."""
    if shutil.which(name) is None:
        missing(f"{name} is not installed")
    place = cache() / name
    shutil.copytree(_HERE / name, place, dirs_exist_ok=True)
    return place


def _attempt(place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    words = {"cwd": place, "env": _ENVIRONMENT, "capture_output": True, "text": True}
    try:
        return subprocess.run(command, timeout=_BUILD_SECONDS, **words)
    except subprocess.TimeoutExpired:
        missing(f"{' '.join(command)} has not ended within {_BUILD_SECONDS} s")


def _works(place: Path, *command: str) -> bool:
    return _attempt(place, *command).returncode == 0


def _run(place: Path, *command: str) -> None:
    done = _attempt(place, *command)
    if done.returncode != 0:
        missing(f"{' '.join(command)}: {(done.stderr or done.stdout)[-600:]}")


_ENVIRONMENT = {**os.environ, "GOFLAGS": "-mod=mod", "npm_config_update_notifier": "false"}


def node() -> list[str]:
    place = _made("node")
    if not (place / "node_modules/pg").exists():
        _run(place, "npm", "install", "--no-audit", "--no-fund", "--silent")
    return ["node", str(place / "client.js")]


def go() -> list[str]:
    place = _made("go")
    _run(place, "go", "build", "-o", "client", ".")
    return [str(place / "client")]


def java() -> list[str]:
    place = _made("java")
    if shutil.which("mvn") is None:
        missing("mvn is not installed")
    # What is fetched already is not asked for again, nor is the network.
    if not _works(place, "mvn", "-o", "-q", "-B", "package"):
        _run(place, "mvn", "-q", "-B", "package")
    return ["java", "-cp", f"{place}/target/classes:{place}/target/lib/*", "Client"]
