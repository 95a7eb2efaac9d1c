"""Parts on hosts of their own, started one by one with the commands that docs/cli.md shows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pagestore.client.control import ControlClient
from pagestore.compute.record import running_computes
from pagestore.installation.layout import lib_dir
from pagestore.postgres.majors import library
from tests import access
from tests.integration.installation import PROGRAMS
from tests.network import Host, Network, network_or_skip
from tests.plain_postgres import RUN_AS, passable_dir

PORT, PROXY_PORT, CLIENTS_PORT = 7432, 7433, 5432
POSTGRES = ["--postgres-bindir", str(PROGRAMS)]


class Part:
    """One part on its host. Every start is on the same data and address."""

    def __init__(self, host: Host, data: Path, words: list[str], listen: str) -> None:
        self.host = host
        self.data = data
        self.log = data.with_suffix(".log")
        self.listen = listen
        self._words = [*words, "--data-dir", str(data), "--listen", listen]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def begin(self) -> None:
        """Without waiting for it: parts wait for each other."""
        (self.data / "address").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.host.command(sys.executable, "-m", "pagestore.cli.main", *self._words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=access.environment(),
            )

    def wait(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not (self.data / "address").exists():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.log.read_text()[-4000:])
            time.sleep(0.02)

    def start(self) -> None:
        self.begin()
        self.wait()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def wipe(self) -> None:
        """Its disk is lost. Only for one that has ended."""
        shutil.rmtree(self.data)


class Spread:
    """An installation over hosts: `safekeepers`, `pages`, `control` with the agent of computes and
    the proxy, and a host for clients.

    Args:
        control_socket: the control plane listens on a Unix socket, which `plane` reaches from
            wherever the test runs.
    """

    def __init__(
        self, root: Path, network: Network, safekeepers: int, control_socket: bool
    ) -> None:
        self.root = root
        self.network = network
        self.client = network.add("client")
        keeping = {n: network.add(f"wal{n}") for n in range(1, safekeepers + 1)}
        places = {n: host.at(PORT) for n, host in keeping.items()}
        self.safekeepers = {n: self._safekeeper(n, host, places) for n, host in keeping.items()}
        self.pages = self._page_server(network.add("pages"), places)
        host = network.add("control")
        listen = f"unix:{root}/control.sock" if control_socket else host.at(PORT)
        self.agent = self._agent(host, places)
        self.control = self._control_plane(host, places, listen)
        self.proxy = self._proxy(host, listen)
        hosts = [self.client, *keeping.values(), self.pages.host, host]
        access.certify([each.address for each in hosts])

    @property
    def parts(self) -> list[Part]:
        return [*self.safekeepers.values(), self.pages, self.agent, self.control, self.proxy]

    def _safekeeper(self, number: int, host: Host, places: dict[int, str]) -> Part:
        peers = [f"{n}={place}" for n, place in places.items() if n != number]
        words = ["safekeeper", "--id", str(number)]
        words += ["--peers", ",".join(peers)] if peers else []
        return Part(host, self.root / f"safekeeper-{number}", words, host.at(PORT))

    def _page_server(self, host: Host, places: dict[int, str]) -> Part:
        words = ["pageserver", "--redo-library", str(lib_dir() / library("redo")), *_postgres()]
        words += _wal_services(places)
        return Part(host, self.root / "pageserver", words, host.at(PORT))

    def _agent(self, host: Host, places: dict[int, str]) -> Part:
        words = ["compute", "--page-server", self.pages.host.at(PORT)]
        words += _wal_services(places)
        words += ["--compute-dir", str(self.root / "computes"), "--compute-host", host.address]
        words += ["--shim-library", str(lib_dir() / library("shim")), *_postgres()]
        return Part(host, self.root / "compute", words, f"unix:{self.root}/compute.sock")

    def _control_plane(self, host: Host, places: dict[int, str], listen: str) -> Part:
        words = ["control", "--page-server", self.pages.host.at(PORT)]
        words += _wal_services(places)
        words += ["--compute-agent", self.agent.listen, *POSTGRES]
        words += ["--address", host.at(CLIENTS_PORT), "--proxy", host.at(PROXY_PORT)]
        return Part(host, self.root / "control", words, listen)

    def _proxy(self, host: Host, control: str) -> Part:
        certificate, key = access.certificate()
        words = ["proxy", "--control", control, "--service", host.at(PROXY_PORT)]
        words += ["--certificate", str(certificate), "--key", str(key), "--idle", "never"]
        return Part(host, self.root / "proxy", words, host.at(CLIENTS_PORT))

    def start(self) -> None:
        """In an order in which everybody has to wait for somebody."""
        for part in reversed(self.parts):
            part.begin()
        for part in self.parts:
            part.wait()

    def compute_pid(self, name: str) -> int:
        """Of a database that runs, or is being started again."""
        deadline = time.monotonic() + 60
        with self.plane() as control:
            while not (pid := control.get(name, brief=True).compute_pid):
                assert time.monotonic() < deadline, f"{name} has no compute"
                time.sleep(0.1)
        return pid

    def plane(self) -> ControlClient:
        return ControlClient((self.control.data / "address").read_text().strip())

    def run(self, *arguments: str) -> dict[str, Any]:
        """A verb, typed on the control plane's host; what it answers under --json."""
        words = ["-m", "pagestore.cli.main", *arguments, "--json", "--data", str(self.root)]
        done = subprocess.run(
            self.control.host.command(sys.executable, *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            env=access.environment(),
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{self.logs()}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def logs(self) -> str:
        tails = [f"{part.data.name}:\n{part.log.read_text()[-3000:]}" for part in self.parts]
        return "\n".join(tails)

    def end(self) -> None:
        for compute in running_computes(self.root / "computes"):
            for number in (signal.SIGCONT, signal.SIGQUIT):
                compute.process.send(number)
        for part in self.parts:
            part.end()


def _wal_services(places: dict[int, str]) -> list[str]:
    return [word for n, place in places.items() for word in ("--wal-service", f"{n}={place}")]


def _postgres() -> list[str]:
    return [*POSTGRES, *(["--run-as", RUN_AS] if RUN_AS else [])]


@contextmanager
def spread_pagestore(safekeepers: int, *, control_socket: bool = False) -> Iterator[Spread]:
    """Everything made, nothing started; ended and removed at the end."""
    root = passable_dir()
    try:
        with network_or_skip() as network:
            spread = Spread(root, network, safekeepers, control_socket)
            try:
                yield spread
            finally:
                spread.end()
    finally:
        shutil.rmtree(root, ignore_errors=True)
