"""Each part, broken in each way: it serves again by itself, and nothing acknowledged is lost.

How long that takes is printed as a table, and asserted nowhere but by the test's patience: seconds
from the kill, or from when a freeze is over. A killed supervisor is started by a service manager;
here by `up`, whose time counts.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.comeback.client import Client
from tests.comeback.conftest import Table
from tests.waiting import let_pass

PARTS = ("pageserver", "safekeeper", "control", "supervisor", "agent", "compute")
FROZEN_SECONDS = 1.5


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
        let_pass(FROZEN_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    table[part, "freeze"] = client.seconds_to_serve()
    assert client.pid(part) == pid
