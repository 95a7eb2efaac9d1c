"""What one client, one disk or one redo helper may do to all others of a page server: little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagestore.client import PageClient, ReadLsn, Rel
from pagestore.ids import DEFAULT_TENANT
from pagestore.services.page_memory import DEFAULT_BYTES
from tests import access
from tests.integration.page_process import PageProcess
from tests.integration.page_store import END_LSN, IMAGES, RECORDS, TIMELINE, make_store
from tests.waiting import stays, wait_still

ROOT = Path(__file__).parents[2]
BLOCKS = 2048


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    data = tmp_path_factory.mktemp("pressure") / "data"
    make_store(data, images=BLOCKS, records=200)
    with PageProcess(data, redo_helpers=1) as server:
        yield server


def read(client: PageClient, rel: Rel, blocks: list[int]) -> float:
    """The seconds that it took."""
    begun = time.monotonic()
    found = client.get_pages(DEFAULT_TENANT, TIMELINE, ReadLsn(END_LSN), rel, blocks)
    assert len(found) == len(blocks)
    return time.monotonic() - begun


class Peak:
    """The highest resident set of a process, in bytes, looked at a hundred times a second."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._statm = Path(f"/proc/{pid}/statm")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            resident = int(self._statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            self.bytes = max(self.bytes, resident)

    def end(self) -> int:
        self._over.set()
        self._thread.join()
        return self.bytes


@contextmanager
def slow_readers(
    address: str, connections: int, streams: int, blocks: int
) -> Iterator[subprocess.Popen[str]]:
    readers = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.slow_readers", address]
        + [str(number) for number in (connections, streams, blocks)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=access.environment(),
    )
    try:
        assert readers.stdout is not None
        assert readers.stdout.readline() == "asked\n"
        yield readers
    finally:
        readers.kill()
        readers.wait()


def test_forty_connections_that_take_nothing_cost_no_more_than_the_bound(
    pages: PageProcess,
) -> None:
    peak = Peak(pages.pid)
    try:
        with slow_readers(pages.address, 40, 4, 1024), pages.client() as good:
            wait_still(lambda: cpu_ticks(pages.pid), 0.3)  # it holds all that it may hold
            small = [read(good, IMAGES, list(range(start, start + 32))) for start in range(500)]
            large = read(good, IMAGES, list(range(1024)))
            again = read(good, IMAGES, list(range(1024)))
    finally:
        highest = peak.end()
    assert highest < DEFAULT_BYTES, f"{highest >> 20} MiB"
    assert max(small) < 2.0
    assert max(large, again) < 30.0
    assert "SLOW_READER" in pages.log.read_text()


def test_small_responses_that_nobody_takes_are_ended_when_others_wait(pages: PageProcess) -> None:
    with slow_readers(pages.address, 20, 4, 64), pages.client() as good:
        wait_still(lambda: cpu_ticks(pages.pid), 0.3)
        first = read(good, IMAGES, list(range(64)))
        assert first < 30.0


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_hung_redo_helper_holds_up_its_own_page_only_and_is_replaced(
    pages: PageProcess,
) -> None:
    before = children(pages.pid)
    with pages.client() as client, ThreadPoolExecutor(1) as threads:
        read(client, RECORDS, [0])
        (helper,) = children(pages.pid) - before
        os.kill(helper, signal.SIGSTOP)
        with pages.client() as unlucky:
            hung = threads.submit(read, unlucky, RECORDS, [1])
            assert stays(lambda: not hung.done(), 0.2)
            images = [read(client, IMAGES, [block]) for block in range(100)]
            others = [read(client, RECORDS, [block]) for block in range(2, 22)]
            assert not hung.done()
            assert exists(helper)
            assert max(images) < 0.5
            assert max(others) < 2.5
            assert hung.result(20) > 2.0
        assert not exists(helper)
        assert read(client, RECORDS, list(range(200))) < 2.0
