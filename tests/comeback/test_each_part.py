"""Each part, broken in each way: it serves again by itself, and nothing acknowledged is lost.

How long that takes is printed as a table, and asserted nowhere but by the test's patience: seconds
from the kill, or from when a freeze is over. A killed supervisor is
started by a service manager; here by `up`, whose time counts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pagestore.installation.status import described
from tests.integration.installation import Whole, whole_pagestore

PARTS = ("pageserver", "safekeeper", "control", "supervisor", "compute")
FROZEN_SECONDS = 1.5
PATIENCE = 60.0
Table = dict[tuple[str, str], float]


class Client:
    """Commits numbers, and knows which of them were acknowledged."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole
        self.url = whole.json("create", "app")["url"]
        self.acknowledged: set[int] = set()
        self._next = 0
        with self._connect() as session:
            session.execute("CREATE TABLE t (a int)")

    def _connect(self) -> psycopg.Connection[tuple[int, ...]]:
        return psycopg.connect(
            self.url, autocommit=True, connect_timeout=2, options="-c statement_timeout=5s"
        )

    def commit(self) -> None:
        self._next += 1
        number = self._next
        with self._connect() as session:
            session.execute("INSERT INTO t VALUES (%s)", [number])
        self.acknowledged.add(number)

    def check(self) -> None:
        with self._connect() as session:
            there = [row[0] for row in session.execute("SELECT a FROM t").fetchall()]
        assert self.acknowledged <= set(there)
        assert len(there) == len(set(there))

    def seconds_to_serve(self) -> float:
        """Until every part serves, a commit returns, and another process knows of it."""
        began = time.monotonic()
        while True:
            try:
                self.commit()
                assert described(self.whole.installation)["serving"]
                break
            except (psycopg.Error, AssertionError):
                assert time.monotonic() - began < PATIENCE, self.whole.logs()
                time.sleep(0.05)
        took = time.monotonic() - began
        self.check()
        return took

    def pid(self, part: str) -> int:
        installation = self.whole.installation
        if part == "supervisor":
            pid = installation.running_supervisor()
            assert pid is not None
            return pid
        if part == "compute":
            with self.whole.control() as control:
                return int(control.get("app").compute_pid)
        return installation.parts()[part].pid

    def kill(self, part: str) -> None:
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        while _runs(pid):
            time.sleep(0.005)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    found: Table = {}
    yield found
    capture = request.config.pluginmanager.getplugin("capturemanager")
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if capture is not None and reporter is not None:
        with capture.global_and_fixture_disabled():
            reporter.write_line("\n" + as_text(found))


def as_text(found: Table) -> str:
    """A row a part, a column a fault."""
    faults = list(dict.fromkeys(fault for _, fault in found))
    lines = [f"{'serves after':12}" + "".join(f"{fault:>12}" for fault in faults)]
    for part in dict.fromkeys(part for part, _ in found):
        cells = (found.get((part, fault)) for fault in faults)
        words = ("-" if cell is None else f"{cell:.2f} s" for cell in cells)
        lines.append(f"{part:12}" + "".join(f"{word:>12}" for word in words))
    return "\n".join(lines)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with whole_pagestore() as whole:
        yield Client(whole)


@pytest.mark.parametrize("part", PARTS)
def test_killed(client: Client, table: Table, part: str) -> None:
    client.commit()
    before = client.pid(part)
    began = time.monotonic()
    client.kill(part)
    if part == "supervisor":
        client.whole.up()
    client.seconds_to_serve()
    table[part, "kill"] = time.monotonic() - began
    assert client.pid(part) != before


@pytest.mark.parametrize("part", PARTS)
def test_frozen(client: Client, table: Table, part: str) -> None:
    client.commit()
    pid = client.pid(part)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(FROZEN_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    table[part, "freeze"] = client.seconds_to_serve()
    assert client.pid(part) == pid
