"""Page servers of several source trees under the same load, in turns: before and after a change.

    bench/page_servers_in_turns.py before=/tmp/base after=. [--rounds 30] [--seconds 0.3]

Each tree has a .venv of its own and makes its store itself (tests/integration/page_store of this
tree). All servers are up at once, and one at a time is loaded, so what else the machine does meets
all alike.
Lower quartiles over the rounds, since what else the machine does only ever adds; many short rounds
tell more than few long ones. CPU is the server's, without redo helpers, a page.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from pagestore.bench.generators import page_load
from pagestore.client import Rel
from pagestore.ids import DEFAULT_TENANT
from tests import access
from tests.integration import page_store
from tests.integration.page_process import _MAIN
from tests.integration.page_store import END_LSN, IMAGES, RECORDS, TIMELINE

BLOCKS = 4096
_MAKE = f"""
import pathlib, runpy, sys
make = runpy.run_path(sys.argv[1])["make_store"]
make(pathlib.Path(sys.argv[2]), images={BLOCKS}, records={BLOCKS})
"""
SHAPES = ((1, 1), (16, 1), (4, 32))
"""(clients, blocks a request)"""


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    address: str
    loads: dict[tuple[str, int, int], list[tuple[float, float, float]]] = field(
        default_factory=dict
    )


def start(name: str, tree: Path, folder: Path) -> Server:
    data, python = folder / name, str(tree / ".venv/bin/python")
    subprocess.run([python, "-c", _MAKE, str(page_store.__file__), str(data)], cwd=tree, check=True)
    settings = {"data_dir": str(data), "run_as": "postgres"}
    process = subprocess.Popen(
        [python, "-c", _MAIN, json.dumps(settings)],
        cwd=tree,
        stderr=(folder / f"{name}.log").open("wb"),
    )
    while not (data / "address").exists():
        if process.poll() is not None:
            sys.exit((folder / f"{name}.log").read_text())
        time.sleep(0.05)
    return Server(name, process, (data / "address").read_text().strip())


def cpu_nanoseconds(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def load(server: Server, rel: Rel, clients: int, blocks: int, seconds: float) -> dict[str, float]:
    host, _, port = server.address.rpartition(":")
    words = (host, port, DEFAULT_TENANT.raw.hex(), TIMELINE.raw.hex(), END_LSN)
    shape = (rel.spc_oid, rel.db_oid, rel.rel_number, 0, BLOCKS, clients, blocks, seconds, 0)
    token = access.signer().of_timeline(DEFAULT_TENANT, TIMELINE, time.time(), 3600)
    before = cpu_nanoseconds(server.process.pid)
    done = subprocess.run(
        [str(page_load()), *map(str, (*words, *shape)), "uniform"],
        env={**os.environ, "PAGESTORE_TOKEN": token},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    found["cpu_us"] = (cpu_nanoseconds(server.process.pid) - before) / found["pages"] / 1000
    return found


def measure(servers: list[Server], rounds: int, seconds: float) -> None:
    for number in range(rounds + 1):
        for name, rel in (("images", IMAGES), ("redo", RECORDS)):
            for clients, blocks in SHAPES:
                for server in servers if number % 2 else servers[::-1]:
                    found = load(server, rel, clients, blocks, seconds if number else 0.3)
                    one = (found["p50_us"], found["pages"] / found["seconds"], found["cpu_us"])
                    if number:  # the first round warms up
                        server.loads.setdefault((name, clients, blocks), []).append(one)
    print(f"{'':18}{'':10}{'p50 us':>10}{'pages/s':>10}{'CPU us/page':>13}")
    for case in servers[0].loads:
        for server in servers:
            columns = zip(*server.loads[case], strict=True)
            p50, rate, cpu = (statistics.quantiles(column, n=4) for column in columns)
            words = f"{case[0]} {case[1]} x {case[2]}"
            print(f"{words:18}{server.name:10}{p50[0]:10.0f}{rate[2]:10,.0f}{cpu[0]:13.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trees", nargs="+", metavar="NAME=TREE")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.3)
    given = parser.parse_args()
    access.use_it_here()
    servers: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="pageserver-turns-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        try:
            for tree in given.trees:
                label, _, path = tree.partition("=")
                servers.append(start(label, Path(path).resolve(), folder))
            measure(servers, given.rounds, given.seconds)
        finally:
            for server in servers:
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(30)


if __name__ == "__main__":
    main()
