"""A whole pagestore to be measured: what ``pagestore up`` starts, on a directory of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pagestore.bench.plain import PlainCluster
from pagestore.client import PageClient
from pagestore.client.control import ControlClient
from pagestore.client.credentials import Credentials
from pagestore.client.wal import WalClient
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.installation.keys import SIGNING_KEY
from pagestore.postgres.checkpoint import end_of_checkpoint
from pagestore.postgres.cluster import read_control
from pagestore.postgres.listening import free_ports
from pagestore.tokens import Signer
from pagestore.transfer.pgdata import read_pgdata

_T = TypeVar("_T")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """The most that a process had resident since this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")

    def bytes(self) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def wait_until(done: Callable[[], bool], what: str, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise PagestoreError("BENCH_TIMEOUT", f"Not within {seconds:.0f} s: {what}.")
        time.sleep(0.01)


class Stack:
    """The parts of a running installation, by their addresses and process ids."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.addresses: dict[str, str] = {}
        self.control = ControlClient("127.0.0.1:0")
        self.pages = PageClient("127.0.0.1:0")

    def command(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "pagestore.cli.main", *arguments, "--json"],
            env={**os.environ, "PAGESTORE_DATA": str(self.data)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PagestoreError("BENCH_FAILED", f"pagestore {arguments[0]}: {done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def up(self) -> None:
        self.addresses = self.command("up")["parts"]
        ours = self.credentials
        self.control = ControlClient(self.addresses["control"], credentials=ours)
        self.pages = PageClient(self.addresses["pageserver"], timeout=600, credentials=ours)

    @property
    def credentials(self) -> Credentials:
        """The operator's."""
        return Credentials.of_data_dir(self.data)

    def token_of(self, timeline: TimelineId) -> str:
        """What a compute of it would show."""
        return self.signer.of_timeline(DEFAULT_TENANT, timeline, time.time(), 3600)

    @property
    def signer(self) -> Signer:
        return Signer.parse((self.data / SIGNING_KEY).read_text())

    def direct(self, name: str) -> str:
        """The URL of a database's own socket, past the proxy; it stays awake from now on."""
        self.command("idle", name, "never")
        self.control.wake(name)
        return str(self.command("url", name, "--direct")["url"])

    def pid(self, part: str) -> int:
        found = json.loads((self.data / "parts.json").read_text())
        return int(found[part]["pid"])

    def restart_page_server(self) -> None:
        """Its caches are empty afterwards."""
        before = self.pid("pageserver")
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.pid("pageserver") != before, "a new page server", 60)
        self.pages.list_timelines(DEFAULT_TENANT)

    @contextmanager
    def page_server_frozen(self) -> Iterator[None]:
        pid = self.pid("pageserver")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def wal(self, work: Callable[[WalClient], Coroutine[Any, Any, _T]]) -> _T:
        """Runs `work` with a client of the safekeeper."""

        async def main() -> _T:
            address, ours = self.addresses["safekeeper"], self.credentials
            async with WalClient(address, timeout=60, credentials=ours) as client:
                return await work(client)

        return asyncio.run(main())

    def import_cluster(self, cluster: PlainCluster) -> Followed:
        """A stopped cluster, as a new timeline here and at the safekeeper."""
        timeline = TimelineId.generate()
        info = self.pages.import_timeline(read_pgdata(cluster.data, DEFAULT_TENANT, timeline))
        control = read_control(cluster.data)
        self.wal(
            lambda client: client.create_timeline(
                DEFAULT_TENANT,
                timeline,
                info.last_record_lsn,
                prev_record_lsn=control.checkpoint_lsn,
                system_id=control.system_id,
            )
        )
        return Followed(self, timeline, info.last_record_lsn)


class Followed:
    """A timeline whose WAL a plain cluster writes, which the safekeeper pulls."""

    def __init__(self, stack: Stack, timeline: TimelineId, start_lsn: int) -> None:
        self.stack = stack
        self.timeline = timeline
        self.start_lsn = start_lsn
        self.term = 0

    def attach(self, conninfo: str) -> None:
        async def work(client: WalClient) -> int:
            term = (await client.vote_next(DEFAULT_TENANT, self.timeline)).term
            address = self.stack.signer.sign_address(DEFAULT_TENANT, self.timeline, term, conninfo)
            await client.attach_compute(
                DEFAULT_TENANT, self.timeline, term, address, self.start_lsn
            )
            return int(term)

        self.term = self.stack.wal(work)

    def detach(self, end: int) -> None:
        """Once the safekeeper has everything up to `end`."""
        self.stack.wal(
            lambda client: client.detach_compute(
                DEFAULT_TENANT, self.timeline, self.term, wait_flush_lsn=end, wait_ms=300_000
            )
        )

    def wait_ingested(self, end: int) -> None:
        pages = self.stack.pages
        wait_until(
            lambda: pages.get_timeline(DEFAULT_TENANT, self.timeline).last_record_lsn >= end,
            "ingest",
        )

    def delete(self) -> None:
        self.stack.wal(lambda client: client.delete_timeline(DEFAULT_TENANT, self.timeline))
        self.stack.pages.delete_timeline(DEFAULT_TENANT, self.timeline)


def end_of_wal(cluster: PlainCluster) -> int:
    """Of a cleanly stopped cluster: the end of its shutdown checkpoint."""
    return end_of_checkpoint(read_control(cluster.data).checkpoint_lsn)


@contextmanager
def running_stack(data: Path, safekeepers: int = 1) -> Iterator[Stack]:
    """Up at the start; down, and its files gone, at the end."""
    data.mkdir()
    data.chmod(0o711)
    computes = data / "computes"
    several = [f"[[safekeepers]]\nid = {number + 1}" for number in range(safekeepers)]
    heads = ["[control]", "[pageserver]", *(several if safekeepers > 1 else ["[safekeeper]"])]
    ports = zip(heads, free_ports(len(heads)), strict=True)
    lines = [f'{head}\nlisten = "127.0.0.1:{port}"' for head, port in ports]
    lines += ["[computes]", f'directory = "{computes}"']
    (data / "pagestore.toml").write_text("\n".join(lines) + "\n")
    stack = Stack(data)
    try:
        stack.up()
        yield stack
    finally:
        stack.control.close()
        stack.pages.close()
        stack.command("down")
        shutil.rmtree(data, ignore_errors=True)
