"""A pagestore over a network that can be cut; `unshare --net python -m` runs it.

Safekeepers are in network namespaces of their own, on a bridge; page server, control plane and
computes are on the host of the bridge. What is cut off stays running and keeps its connections.
Prints what was acknowledged and found; exits with 0 when nothing is missing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from pagestore.client.control import ControlClient
from pagestore.errors import PagestoreError
from tests.integration.ledger import TABLE, Ledger, finish, wait_for_progress
from tests.plain_postgres import reachable_dir

HUB = "10.77.0.100"
NUMBERS = (1, 2, 3)
CLIENTS = 3
ROUNDS = int(os.environ.get("ROUNDS", "2"))
CUT_SECONDS = 8.0
SHIM = Path(__file__).parents[2] / "native/postgres/pagestore_shim.so"


def ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True)


class Network:
    """A bridge here, and a namespace a safekeeper."""

    def __init__(self) -> None:
        self._names = {number: f"ps-{os.getpid()}-sk{number}" for number in NUMBERS}
        ip("link", "set", "lo", "up")
        ip("link", "add", "hub", "type", "bridge")
        ip("addr", "add", f"{HUB}/24", "dev", "hub")
        ip("link", "set", "hub", "up")
        for number, name in self._names.items():
            ip("netns", "add", name)
            ip("link", "add", f"sk{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"sk{number}", "master", "hub", "up")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def inside(self, number: int) -> list[str]:
        return ["ip", "netns", "exec", self._names[number]]

    def cut(self, number: int) -> None:
        ip("link", "set", f"sk{number}", "down")

    def heal(self, number: int) -> None:
        ip("link", "set", f"sk{number}", "up")

    def remove(self) -> None:
        for name in self._names.values():
            ip("netns", "del", name)


class Parts:
    def __init__(self, root: Path, network: Network) -> None:
        self._root, self._network = root, network
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.addresses = {number: f"10.77.0.{number}:7432" for number in NUMBERS}
        self.commands: dict[str, list[str]] = {}
        for number in NUMBERS:
            others = (f"{n}={a}" for n, a in self.addresses.items() if n != number)
            self.commands[f"sk{number}"] = [
                *network.inside(number),
                *self._verb("safekeeper", f"sk{number}", self.addresses[number]),
                *("--id", str(number), "--peers", ",".join(others)),
            ]
        services = [w for n, a in self.addresses.items() for w in ("--wal-service", f"{n}={a}")]
        run_as = ["--run-as", "postgres"]
        self.commands["pages"] = [
            *self._verb("pageserver", "pages", f"{HUB}:7431"),
            *(*services, *run_as),
        ]
        self.commands["control"] = [
            *self._verb("control", "control", f"{HUB}:7430"),
            *("--page-server", f"{HUB}:7431", *services, *run_as),
            *("--compute-dir", str(root / "computes"), "--compute-host", HUB),
            *("--shim-library", str(SHIM)),
        ]

    def _verb(self, verb: str, name: str, listen: str) -> list[str]:
        command = [sys.executable, "-m", "pagestore.cli.main", verb]
        return [*command, "--data-dir", str(self._root / name), "--listen", listen]

    def start(self, name: str) -> None:
        with (self._root / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(self.commands[name], stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def end(self) -> None:
        for name in ("control", "pages", *(f"sk{number}" for number in NUMBERS)):
            if name in self._running:
                self.kill(name)

    def logs(self) -> str:
        return "\n".join(
            f"{path.name}: {path.read_text()[-1500:]}" for path in self._root.glob("*.log")
        )


def ask(verb: Callable[[ControlClient], Any], seconds: float = 120) -> Any:
    """A verb, repeated while something is away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with ControlClient(f"{HUB}:7430") as control:
                return verb(control)
        except PagestoreError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def rows(url: str) -> set[tuple[int, int]]:
    with psycopg.connect(url) as session:
        return set(session.execute("SELECT client, number FROM ledger"))


def work(network: Network, parts: Parts) -> None:
    for name in parts.commands:
        parts.start(name)
    database = ask(lambda control: control.create("app", if_not_exists=True))
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(TABLE)
    ledgers = [Ledger(database.url, client) for client in range(CLIENTS)]
    for ledger in ledgers:
        ledger.start()
    for number in NUMBERS * ROUNDS:
        wait_for_progress(ledgers)
        network.cut(number)
        wait_for_progress(ledgers)
        # A majority is the other two: a compute that starts now has only them.
        pid = ask(lambda control: control.get("app", brief=True)).compute_pid
        os.kill(pid, signal.SIGKILL)
        wait_for_progress(ledgers)
        time.sleep(CUT_SECONDS)
        network.heal(number)
        wait_for_progress(ledgers)
        following(database.url)
        parts.kill("pages")
        parts.start("pages")
    wait_for_progress(ledgers)
    acknowledged = finish(ledgers)
    ask(lambda control: control.branch("app", "copy", if_not_exists=True))
    for name in ("app", "copy"):
        found = rows(ask(lambda control, name=name: control.get(name)).url)
        missing = acknowledged - found
        sys.stdout.write(f"{name}: {len(acknowledged)} acknowledged, {len(found)} found\n")
        assert not missing, sorted(missing)[:10]


def following(url: str, seconds: float = 60) -> None:
    """Returns when all three follow the compute again."""
    deadline = time.monotonic() + seconds
    query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
    while True:
        with psycopg.connect(url, autocommit=True) as session:
            if session.execute(query).fetchone() == (3,):
                return
        assert time.monotonic() < deadline, "a safekeeper did not come back"
        time.sleep(0.2)


def main() -> None:
    root = reachable_dir("ps-cut-")
    network = Network()
    parts = Parts(root, network)
    try:
        work(network, parts)
    except BaseException:
        sys.stdout.write(parts.logs())
        raise
    finally:
        parts.end()
        for pid_file in root.glob("computes/*/data/postmaster.pid"):
            os.kill(int(pid_file.read_text().split("\n", 1)[0]), signal.SIGQUIT)
        network.remove()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
