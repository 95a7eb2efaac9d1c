"""A plain Postgres cluster of the distribution: the oracle, and the source of WAL.

It runs as an unprivileged user (``postgres`` when the tests run as root), in a directory
that this user can reach, on a Unix socket in that directory and a free loopback port.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from pagestore.pgformat import versions
from pagestore.postgres import majors

_STILL_IN_USE = "pre-existing shared memory block"


def _major() -> int:
    named = os.environ.get("PAGESTORE_TEST_MAJOR")
    there = majors.installed(majors.BINDIR)
    return int(named) if named else min(there, default=versions.OLDEST.major)


MAJOR = _major()
"""Of Postgres, under test: the oldest that is installed, or what PAGESTORE_TEST_MAJOR names."""
VERSION = versions.of_major(MAJOR)
BINDIR = majors.place(majors.BINDIR, MAJOR)


def module(name: str) -> Path:
    """Our library of that name, as it was built for the major under test."""
    folder = Path(__file__).resolve().parents[1] / "native/postgres"
    return folder / majors.place(Path(majors.library(name)), MAJOR)


RUN_AS = "postgres" if os.geteuid() == 0 else None
"""The user that parts of ours run Postgres as; None for their own."""


def unprivileged() -> dict[str, Any]:
    """Arguments for ``subprocess`` that make the child not root."""
    if RUN_AS is None:
        return {}
    entry = pwd.getpwnam(RUN_AS)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reachable_dir(prefix: str = "ps-test-") -> Path:
    """A new directory that the unprivileged user owns and can reach."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    # ext4 then puts the clusters in it apart: see compute.launcher.spread_children.
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["chattr", "+T", path], stderr=subprocess.DEVNULL, check=False)
    if RUN_AS is not None:
        entry = pwd.getpwnam(RUN_AS)
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return path


def passable_dir(prefix: str = "ps-test-") -> Path:
    """A new directory of our own that the unprivileged user can pass through."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    path.chmod(0o711)
    return path


class PlainPostgres:
    """One cluster in ``root/data``. Make it with :func:`plain_postgres`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def tool(self, name: str, *args: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Runs one of Postgres's programs as the unprivileged user; raises when it fails."""
        done = subprocess.run(
            [str(BINDIR / name), *map(str, args)],
            capture_output=True,
            text=True,
            cwd=self.root,
            **unprivileged(),
            **kwargs,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed: {done.stderr or done.stdout}")
        return done

    def initdb(self, *options: str) -> None:
        if VERSION.checksums_by_default and not {"-k", "--data-checksums"} & set(options):
            options = ("--no-data-checksums", *options)
        self.tool("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", *options)

    def configure(self, **settings: object) -> None:
        """Appends to postgresql.conf; takes effect at the next start."""
        with (self.data / "postgresql.conf").open("a") as conf:
            for name, value in settings.items():
                conf.write(f"{name} = '{value}'\n")

    def start(self) -> None:
        """Launches the server and waits until it accepts connections."""
        deadline = time.monotonic() + 60
        while True:
            said = len(self.log_text()) if self._killed else 0
            self.launch()
            try:
                self._wait_ready(deadline)
            except RuntimeError as error:
                # Of a postmaster that was killed the backends take a moment to notice.
                if not (self._killed and _STILL_IN_USE in str(error)[said:]):
                    raise
                time.sleep(0.05)
            else:
                self._killed = False
                return

    def launch(self) -> None:
        log = (self.root / "postgres.log").open("ab")
        self._process = subprocess.Popen(
            [
                str(BINDIR / "postgres"),
                *("-D", str(self.data)),
                *("-c", f"port={self.port}"),
                *("-c", "listen_addresses=127.0.0.1"),
                *("-c", f"unix_socket_directories={self.root}"),
            ],
            stdout=log,
            stderr=log,
            **unprivileged(),
        )
        log.close()

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_text(self) -> str:
        return (self.root / "postgres.log").read_text()

    def _wait_ready(self, deadline: float) -> None:
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError as error:
                if not self.alive() or time.monotonic() > deadline:
                    raise RuntimeError(self.log_text()) from error
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: fast and clean; SIGQUIT: as a crash."""
        if self._process is not None:
            self._killed = how is signal.SIGKILL
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def conninfo(self, dbname: str = "postgres") -> str:
        return f"host={self.root} port={self.port} user=postgres dbname={dbname}"

    def connect(self, dbname: str = "postgres", **kwargs: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.conninfo(dbname), autocommit=True, **kwargs)

    def sql(self, text: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs SQL; the last statement's rows, or none."""
        with self.connect(dbname) as connection:
            cursor = connection.execute(text)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


@contextmanager
def plain_postgres(*initdb_options: str, **settings: object) -> Iterator[PlainPostgres]:
    """A running plain cluster, removed at the end."""
    cluster = PlainPostgres(reachable_dir())
    try:
        cluster.initdb(*initdb_options)
        cluster.configure(**settings)
        cluster.start()
        yield cluster
    finally:
        cluster.stop(signal.SIGQUIT)
        shutil.rmtree(cluster.root, ignore_errors=True)
