"""Promise 1: a commit that returned is there afterwards, whatever was killed meanwhile.

Clients write numbered rows and note each one whose COMMIT returned. Meanwhile every process is
killed with SIGKILL in turn. At the end every noted row must be in the database, in a branch
of it, and in a compute started from nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pagestore.errors import Unavailable
from pagestore.v1.control_pb2 import Database
from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.integration.ledger import TABLE, Ledger, finish, wait_for_progress
from tests.waiting import let_pass

VICTIMS = ["pageserver", "safekeeper", "control", "compute"]
QUORUM = ["safekeeper-1", "pageserver", "safekeeper-2", "control", "safekeeper-3", "compute"]
FROZEN_SECONDS = 2.0
CLIENTS = 3


def _shown(whole: Whole) -> Database:
    """Raises AssertionError while the control plane, killed before, is coming back."""
    try:
        return whole.control().get("app", brief=True)
    except Unavailable as away:
        raise AssertionError from away


def _pid_of(whole: Whole, victim: str) -> int:
    if victim == "compute":
        pid = int(patiently(lambda: _shown(whole)).compute_pid)
        assert pid, "somebody commits, so there is one"
        return pid
    return whole.installation.parts()[victim].pid


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.json("create", "app")
        running.sql("app", TABLE)
        yield running


def _rows(whole: Whole, name: str) -> set[tuple[int, int]]:
    return set(whole.sql(name, "SELECT client, number FROM ledger"))


def test_nothing_acknowledged_is_lost(whole: Whole) -> None:
    url = whole.json("url", "app")["url"]
    ledgers = [Ledger(url, client) for client in range(CLIENTS)]
    for ledger in ledgers:
        ledger.start()
    for victim in VICTIMS * 2:
        wait_for_progress(ledgers)
        os.kill(_pid_of(whole, victim), signal.SIGKILL)
    wait_for_progress(ledgers)
    acknowledged = finish(ledgers)
    assert len(acknowledged) > CLIENTS * 20 * len(VICTIMS)
    whole.json("branch", "app", "copy")
    assert acknowledged <= _rows(whole, "app")
    assert acknowledged <= _rows(whole, "copy")
    whole.json("stop", "app")
    whole.json("start", "app")
    assert acknowledged <= _rows(whole, "app")


def test_nothing_acknowledged_is_lost_on_three_safekeepers() -> None:
    _rotate(rounds=1, quorum=QUORUM)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_on_three_safekeepers_for_long() -> None:
    _rotate(rounds=5, quorum=QUORUM)


def _rotate(rounds: int, quorum: list[str]) -> None:
    """Each victim is killed, and frozen while another is killed."""
    with whole_pagestore(safekeepers=3) as whole:
        whole.json("create", "app")
        whole.sql("app", TABLE)
        ledgers = [Ledger(whole.json("url", "app")["url"], client) for client in range(CLIENTS)]
        for ledger in ledgers:
            ledger.start()
        for number, victim in enumerate(quorum * rounds):
            wait_for_progress(ledgers)
            os.kill(_pid_of(whole, victim), signal.SIGKILL)
            wait_for_progress(ledgers)
            frozen = _pid_of(whole, quorum[(number + 1) % len(quorum)])
            os.kill(frozen, signal.SIGSTOP)
            let_pass(FROZEN_SECONDS)
            os.kill(_pid_of(whole, victim), signal.SIGKILL)
            let_pass(FROZEN_SECONDS)
            os.kill(frozen, signal.SIGCONT)
        wait_for_progress(ledgers)
        acknowledged = finish(ledgers)
        whole.json("branch", "app", "copy")
        for _ in range(2):
            assert acknowledged <= _rows(whole, "app")
            assert acknowledged <= _rows(whole, "copy")
            whole.json("stop", "app")
            whole.json("start", "app")
