"""Promise 1: a commit that returned is there afterwards, whatever was killed meanwhile.

Clients write numbered rows and note each one whose COMMIT returned. Meanwhile every process is
killed with SIGKILL in turn. At the end every noted row must be in the database, in a branch
of it, and in a compute started from nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from pagestore.errors import Unavailable
from pagestore.v1.control_pb2 import Database
from tests.integration.installation import Whole, patiently, whole_pagestore

VICTIMS = ["pageserver", "safekeeper", "control", "compute"]
CLIENTS = 3


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


def _shown(whole: Whole) -> Database:
    """Raises AssertionError while the control plane, killed before, is coming back."""
    try:
        return whole.control().get("app", brief=True)
    except Unavailable as away:
        raise AssertionError from away


def _pid_of(whole: Whole, victim: str) -> int:
    if victim == "compute":
        return int(patiently(lambda: _shown(whole)).compute_pid)
    return whole.installation.parts()[victim].pid


def _wait_for_progress(ledgers: list[Ledger]) -> None:
    before = [len(ledger.acknowledged) for ledger in ledgers]
    deadline = time.monotonic() + 90
    while any(len(x.acknowledged) < n + 20 for x, n in zip(ledgers, before, strict=True)):
        assert time.monotonic() < deadline, "commits did not resume"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.json("create", "app")
        running.sql("app", "CREATE TABLE ledger (client int, number int, UNIQUE (client, number))")
        yield running


def _rows(whole: Whole, name: str) -> set[tuple[int, int]]:
    return set(whole.sql(name, "SELECT client, number FROM ledger"))


def test_nothing_acknowledged_is_lost(whole: Whole) -> None:
    url = whole.json("url", "app")["url"]
    ledgers = [Ledger(url, client) for client in range(CLIENTS)]
    for ledger in ledgers:
        ledger.start()
    for victim in VICTIMS * 2:
        _wait_for_progress(ledgers)
        os.kill(_pid_of(whole, victim), signal.SIGKILL)
    _wait_for_progress(ledgers)
    for ledger in ledgers:
        ledger.done.set()
    for ledger in ledgers:
        ledger.join(timeout=60)
        assert ledger.failure is None
    acknowledged = {(x.client, number) for x in ledgers for number in x.acknowledged}
    assert len(acknowledged) > CLIENTS * 20 * len(VICTIMS)
    whole.json("branch", "app", "copy")
    assert acknowledged <= _rows(whole, "app")
    assert acknowledged <= _rows(whole, "copy")
    whole.json("stop", "app")
    whole.json("start", "app")
    assert acknowledged <= _rows(whole, "app")
