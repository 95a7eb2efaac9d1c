"""Plain Postgres, the alternative that every part is held against."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from pagestore.client.urls import without_password
from pagestore.errors import PagestoreError
from pagestore.pgformat import versions
from pagestore.postgres import majors
from pagestore.postgres.listening import free_port

MAJOR = max(majors.installed(majors.BINDIR), default=versions.OLDEST.major)
"""Of Postgres, that is measured: the newest."""
BINDIR = majors.place(majors.BINDIR, MAJOR)
USER = "postgres"
START_SECONDS = 120.0


def unprivileged() -> dict[str, Any]:
    """Arguments for ``subprocess`` that make the child not root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def give(path: Path) -> None:
    """Makes Postgres's user the owner."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def run_tool(
    name: str,
    *args: object,
    secret: Mapping[str, str] | None = None,
    is_client: bool = False,
) -> str:
    """What one of Postgres's programs printed; raises when it fails.

    Args:
        secret: environment variables that are not for the command line.
        is_client: it runs as we do, to whom a compute's socket is open, not as Postgres's user.
    """
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(BINDIR / name), *map(str, args)],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        env={**os.environ, **(secret or {})},
        **({} if is_client else unprivileged()),
    )
    if done.returncode != 0:
        raise PagestoreError("POSTGRES_FAILED", f"{name}: {done.stderr or done.stdout}")
    return done.stdout


class PlainCluster:
    """One cluster in ``root/data``; stopped until :meth:`start`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.log = root / "postgres.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def initdb(self, **settings: object) -> None:
        self.root.mkdir()
        give(self.root)
        options = ("-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-N")
        run_tool("initdb", "-D", self.data, "-U", USER, *options)
        self.configure(**settings)

    def copy(self, root: Path) -> PlainCluster:
        """Another cluster on a copy of this stopped one's files."""
        root.mkdir()
        give(root)
        other = PlainCluster(root)
        subprocess.run(["cp", "-a", str(self.data), str(other.data)], check=True)
        return other

    def configure(self, **settings: object) -> None:
        """Takes effect at the next start, or a reload."""
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(BINDIR / "postgres"),
                    *("-D", str(self.data), "-c", f"port={self.port}"),
                    *("-c", "listen_addresses=127.0.0.1"),
                    *("-c", f"unix_socket_directories={self.root}"),
                ],
                stdout=log,
                stderr=log,
                cwd="/",
                **unprivileged(),
            )

    def start(self) -> None:
        """Returns when it accepts connections."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError as error:
                process = self._process
                if process is None or process.poll() is not None or time.monotonic() > deadline:
                    raise PagestoreError("POSTGRES_FAILED", self.log.read_text()) from error
                time.sleep(0.002)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(120)
            self._process = None

    @property
    def direct(self) -> str:
        """Over its Unix socket, as `Stack.direct` is."""
        return f"host={self.root} port={self.port} user={USER} dbname=postgres"

    @property
    def conninfo(self) -> str:
        """Over TCP, as the proxy's URL is."""
        return f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres"

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(f"{self.conninfo} dbname={dbname}", autocommit=True)

    def sql(self, statement: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        return sql(f"{self.conninfo} dbname={dbname}", statement)


@contextmanager
def plain_cluster(root: Path, **settings: object) -> Iterator[PlainCluster]:
    """A running cluster, its files gone at the end."""
    cluster = PlainCluster(root)
    try:
        cluster.initdb(**settings)
        cluster.start()
        yield cluster
    finally:
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(root, ignore_errors=True)


def sql(conninfo: str, statement: str) -> list[tuple[Any, ...]]:
    """Runs SQL (several statements too); the last one's rows, or none."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []


def pgbench(conninfo: str, *options: object) -> str:
    bare, secret = without_password(conninfo)
    return run_tool("pgbench", *options, bare, secret=secret, is_client=True)


def transactions_a_second(conninfo: str, clients: int, seconds: float, *options: object) -> float:
    """By pgbench, prepared, without the time of connecting.

    It vacuums its small tables first: with the dead rows of earlier runs, plans differ by chance.
    """
    threads = min(clients, os.cpu_count() or 1)
    said = pgbench(
        conninfo,
        *("-M", "prepared", "-c", clients, "-j", threads),
        *("-T", max(1, round(seconds)), *options),
    )
    found = re.search(r"tps = ([\d.]+) \(without", said)
    if found is None:
        raise PagestoreError("POSTGRES_FAILED", f"pgbench said nothing of its speed: {said}")
    return float(found[1])


def tree_bytes(directory: Path) -> int:
    return sum(
        path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def seconds_of(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
