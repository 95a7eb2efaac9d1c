"""Each part, broken in each way: it serves again by itself, and nothing acknowledged is lost.

How long that takes is printed as a table, and asserted nowhere but by the test's patience: seconds
from the kill, or from when a freeze, a full disk or a failing one is over. A killed supervisor is
started by a service manager; here by `up`, whose time counts.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from pagestore.installation.status import described
from tests.integration.failing_disk import preload, small_disk
from tests.integration.installation import Whole, whole_pagestore

PARTS = ("pageserver", "safekeeper", "control", "supervisor", "compute")
FROZEN_SECONDS = 1.5
BROKEN_SECONDS = 3.0
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
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        return
    faults = list(dict.fromkeys(fault for _, fault in found))
    reporter.write_line("\nseconds to serve again")
    reporter.write_line(f"{'':12}" + "".join(f"{fault:>12}" for fault in faults))
    for part in dict.fromkeys(part for part, _ in found):
        cells = (found.get((part, fault)) for fault in faults)
        row = "".join(f"{'-' if cell is None else f'{cell:.2f}':>12}" for cell in cells)
        reporter.write_line(f"{part:12}{row}")


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


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Not a byte is left on the disk of `directory`."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


def broken_for_a_while(client: Client, part: str, broken: Callable[[], None]) -> None:
    """A part that dies while the disk is broken: whoever keeps it must outlive that, too."""
    client.commit()
    client.kill(part)
    end = time.monotonic() + BROKEN_SECONDS
    while time.monotonic() < end:
        try:
            client.commit()
        except psycopg.Error:
            time.sleep(0.1)
    broken()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_part_dies_on_a_full_disk(table: Table) -> None:
    disk = Path(tempfile.gettempdir(), f"comeback-{os.getpid()}")
    with small_disk(disk, "256m"):
        disk.chmod(0o711)
        with whole_pagestore(directory=str(disk)) as whole:
            client = Client(whole)
            for part in ("pageserver", "safekeeper", "control", "compute"):
                with filled(disk):
                    broken_for_a_while(client, part, lambda: None)
                table[part, "full disk"] = client.seconds_to_serve()
    disk.rmdir()


@pytest.mark.slow
def test_a_part_dies_while_syncs_fail(tmp_path: Path, table: Table) -> None:
    trigger = tmp_path / "fail"
    with whole_pagestore(environment=preload(tmp_path)) as whole:
        client = Client(whole)
        for part in ("pageserver", "safekeeper", "control", "compute"):
            trigger.touch()
            broken_for_a_while(client, part, trigger.unlink)
            table[part, "EIO"] = client.seconds_to_serve()
