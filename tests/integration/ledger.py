"""Clients that note each row whose COMMIT returned, over connections that may break."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import psycopg

TABLE = "CREATE TABLE ledger (client int, number int, UNIQUE (client, number))"


class Ledger(threading.Thread):
    """Commits ascending numbers over connections that may break at any time."""

    def __init__(self, url: str, client: int) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.client = client
        self.acknowledged: list[int] = []
        self.done = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        number = 0
        while not self.done.is_set():
            try:
                with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
                    connection.execute("SET statement_timeout = '20s'")
                    while not self.done.is_set():
                        number += 1
                        connection.execute(
                            "INSERT INTO ledger VALUES (%s, %s)", (self.client, number)
                        )
                        self.acknowledged.append(number)
            except psycopg.Error:
                time.sleep(0.1)
            except BaseException as failure:
                self.failure = failure
                raise


def wait_for_progress(ledgers: Sequence[Ledger], seconds: float = 90) -> None:
    """Returns when every client has committed 20 times more."""
    before = [len(ledger.acknowledged) for ledger in ledgers]
    deadline = time.monotonic() + seconds
    while any(len(x.acknowledged) < n + 20 for x, n in zip(ledgers, before, strict=True)):
        assert time.monotonic() < deadline, "commits did not resume"
        time.sleep(0.05)


def finish(ledgers: Sequence[Ledger]) -> set[tuple[int, int]]:
    """Ends the clients; every (client, number) that was acknowledged."""
    for ledger in ledgers:
        ledger.done.set()
    for ledger in ledgers:
        ledger.join(timeout=60)
        assert ledger.failure is None
    return {(x.client, number) for x in ledgers for number in x.acknowledged}
