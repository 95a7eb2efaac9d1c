"""What clients were told about their rows, and what a database shows of them.

A row is (client, number, attempt). A client works on one number until an attempt of it is
acknowledged; an attempt whose connection broke has an unknown outcome, and the next one is
another row. So in whatever state of the database comes later:

- an acknowledged row is there once;
- a row of unknown outcome is there once or not at all;
- no other row is there.

No index helps the database to be right about that.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable

import psycopg

from tests.network import Host

TABLE = "CREATE TABLE ledger (client int, number int, attempt int, filler text)"
SELECT = "SELECT client, number, attempt FROM ledger"
_INSERT = "INSERT INTO ledger VALUES (%s, %s, %s, repeat('x', 100))"

Row = tuple[int, int, int]


class Client(threading.Thread):
    """Commits row after row from `host`, over connections that may break at any time."""

    def __init__(self, host: Host, url: str, number: int) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.begun: list[Row] = []
        self.acknowledged: list[Row] = []
        self.errors: list[str] = []
        self.fault: BaseException | None = None
        self.done = threading.Event()
        self._host = host
        self._url = url
        self._number = number

    def run(self) -> None:
        try:
            self._host.enter()
            while not self.done.is_set():
                try:
                    with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as session:
                        self._commit_rows(session)
                except psycopg.Error as error:
                    self.errors.append(str(error).strip())
                    time.sleep(0.05)
        except BaseException as fault:
            self.fault = fault
            raise

    def _commit_rows(self, session: psycopg.Connection[tuple[object, ...]]) -> None:
        while not self.done.is_set():
            row = self._next_row()
            self.begun.append(row)
            session.execute(_INSERT, row)
            self.acknowledged.append(row)

    def _next_row(self) -> Row:
        number = len(self.acknowledged)
        attempt = 0
        if self.begun and self.begun[-1][1] == number:
            attempt = self.begun[-1][2] + 1
        return self._number, number, attempt


class Ledger:
    """The clients together."""

    def __init__(self, host: Host, url: str, clients: int) -> None:
        self.clients = [Client(host, url, number) for number in range(clients)]

    def start(self) -> None:
        for client in self.clients:
            client.start()

    def stop(self) -> None:
        for client in self.clients:
            client.done.set()
        for client in self.clients:
            client.join(timeout=60)
            assert not client.is_alive(), f"{client.name} waits for its commit"
            assert client.fault is None

    @property
    def committed(self) -> int:
        return sum(len(client.acknowledged) for client in self.clients)

    @property
    def errors(self) -> list[str]:
        return [error for client in self.clients for error in client.errors]

    def acknowledged(self) -> set[Row]:
        return {row for client in self.clients for row in client.acknowledged[:]}

    def begun(self) -> set[Row]:
        return {row for client in self.clients for row in client.begun[:]}

    def wait_progress(self, rows: int = 10, seconds: float = 120) -> None:
        """Until every client has committed so many more."""
        before = [len(client.acknowledged) for client in self.clients]
        deadline = time.monotonic() + seconds
        while any(
            len(client.acknowledged) < count + rows
            for client, count in zip(self.clients, before, strict=True)
        ):
            assert time.monotonic() < deadline, f"commits do not go on; {self.errors[-3:]}"
            assert not any(client.fault for client in self.clients)
            time.sleep(0.02)

    def wait_standstill(self, seconds: float) -> None:
        """Until nothing is under way any more; then nothing is acknowledged for so long."""
        deadline = time.monotonic() + 20
        count, since = self.committed, time.monotonic()
        while time.monotonic() < since + seconds:
            assert time.monotonic() < deadline, "commits go on without a quorum"
            time.sleep(0.05)
            if self.committed != count:
                count, since = self.committed, time.monotonic()

    def check(self, acknowledged: set[Row], found: Iterable[Row], where: str) -> None:
        """`found` holds what was `acknowledged` before it was read, and nothing invented."""
        times = Counter(found)
        missing = acknowledged - set(times)
        assert not missing, f"{where}: {len(missing)} acknowledged rows are lost: {_some(missing)}"
        twice = {row for row, count in times.items() if count > 1}
        assert not twice, f"{where}: {len(twice)} rows are there twice: {_some(twice)}"
        invented = set(times) - self.begun()
        assert not invented, f"{where}: {len(invented)} rows were never sent: {_some(invented)}"


def _some(rows: set[Row]) -> list[Row]:
    return sorted(rows)[:5]
