"""A client that commits numbers and knows which of them were acknowledged."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from pagestore.installation.status import described
from tests.integration.installation import Whole

PATIENCE = 60.0
BULK_ROWS = 2000
"""Some 2 MB of WAL."""


class Client:
    """Commits numbers, and knows which of them were acknowledged."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole
        self.url = whole.json("create", "app")["url"]
        self.acknowledged: set[int] = set()
        self._next = 0
        self._bulks = 0
        with self._connect() as session:
            session.execute("CREATE TABLE t (a int); CREATE TABLE bulk (b text)")

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
            bulks = self._bulks
            there = [row[0] for row in session.execute("SELECT a FROM t").fetchall()]
            (count,) = session.execute("SELECT count(*) FROM bulk").fetchall()[0]
        assert self.acknowledged <= set(there)
        assert len(there) == len(set(there))
        assert count >= bulks * BULK_ROWS

    def bulk(self) -> None:
        """Commits some megabytes, which one part or another must find room for."""
        with self._connect() as session:
            session.execute(
                "INSERT INTO bulk SELECT repeat(md5(i::text), 30) FROM generate_series(1, %s) i",
                [BULK_ROWS],
            )
        self._bulks += 1

    def behind(self, work: Callable[[], None]) -> Behind:
        return Behind(work)

    def serves(self) -> bool:
        """Whether every part does, and nobody complains."""
        said = described(self.whole.installation)
        return bool(said["serving"]) and not said["troubles"]

    def seconds_to_serve(self) -> float:
        """Until every part serves, a commit returns, and another process knows of it."""
        began = time.monotonic()
        while True:
            waiting = self.behind(self.commit)
            try:
                waiting.join(PATIENCE)
                assert self.serves()
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
                pid = int(control.get("app").compute_pid)
                assert pid, "its clients keep it awake"
                return pid
        return installation.parts()["compute" if part == "agent" else part].pid

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


class Behind:
    """Work in a thread of its own, since a commit may wait for as long as a disk is full.

    It must not be cancelled: Postgres would say that it is committed.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Its end, or what it ended by.

        Raises:
            AssertionError: it has not ended.
        """
        self._thread.join(seconds)
        assert not self.waits, "it still waits"
        if self.error is not None:
            raise self.error
