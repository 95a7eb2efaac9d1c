"""A whole pagestore for tests: `pagestore up` on a data directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from pagestore.client.control import ControlClient
from pagestore.installation.layout import Installation
from pagestore.postgres import majors
from pagestore.postgres.listening import free_ports
from tests import access
from tests.plain_postgres import BINDIR

PROGRAMS = BINDIR if len(majors.installed(majors.BINDIR)) > 1 else majors.BINDIR
"""Where whole stacks have Postgres: the major under test alone, though others may be installed."""
RUNS_WITHIN = 30.0
"""Seconds; the supervisor pauses longer and longer before it starts a part again."""


class Whole:
    """A running installation, its command line and its client."""

    def __init__(self, data: Path, environment: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.environment = {**os.environ, **(environment or {}), "PAGESTORE_DATA": str(data)}
        self.installation = Installation(data)
        self.within: list[str] = []
        """What each command line runs in, such as `nsenter` with its options."""

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command line, as a user types it."""
        done = subprocess.run(
            [*self.within, sys.executable, "-m", "pagestore.cli.main", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments}: {done.stderr}\n{self.logs()}")
        return done

    def json(self, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(*arguments, "--json").stdout)
        return answer

    def error(self, *arguments: str) -> dict[str, Any]:
        """What a verb that fails says of it, under --json."""
        done = self.run(arguments[0], "--json", *arguments[1:], check=False)
        assert done.returncode != 0, arguments
        assert "Traceback" not in done.stderr
        error: dict[str, Any] = json.loads(done.stdout or done.stderr)["error"]
        return error

    def connect(self, name: str, dbname: str | None = None) -> psycopg.Connection[Any]:
        overrides = {"dbname": f"{name}/{dbname}"} if dbname else {}
        return psycopg.connect(self.json("url", name)["url"], autocommit=True, **overrides)

    def sql(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        """Runs SQL on a database by its name."""
        return sql(self.json("url", name)["url"], statement)

    def up(self) -> None:
        self.run("up")

    def down(self) -> None:
        self.run("down")

    def control(self) -> ControlClient:
        return ControlClient(
            self.installation.address("control"), credentials=self.installation.credentials
        )

    def logs(self) -> str:
        parts = ("supervisor", *self.installation.part_names)
        return "\n".join(f"{part}: {self.installation.log_tail(part, 25)}" for part in parts)

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Ends a part as a crash would, once it runs: it may be starting again; its process id."""
        deadline = time.monotonic() + RUNS_WITHIN
        while True:
            pid = self.installation.parts()[part].pid
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return pid

    def end(self) -> None:
        """Ends everything, whatever state it is in, and removes it."""
        self.run("down", check=False)
        for compute in self.installation.running_computes():
            compute.process.send(signal.SIGQUIT)
        shutil.rmtree(self.installation.compute_dir, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)


@contextmanager
def whole_pagestore(
    settings: Mapping[str, str] | None = None,
    *,
    safekeepers: int = 1,
    environment: Mapping[str, str] | None = None,
    directory: str = "/tmp",
    within: Sequence[str] = (),
    programs: Path = PROGRAMS,
    objects: str | None = None,
) -> Iterator[Whole]:
    """Up at the start, down and removed at the end, in a place of its own below `directory`.

    Args:
        settings: for each compute's postgresql.conf.
        environment: of `up`, and so of the parts.
        within: what each command line runs in; see Whole.
        programs: of Postgres; ``majors.BINDIR`` for every major that is installed.
        objects: the URL of its object store.
    """
    data = Path(tempfile.mkdtemp(prefix="ps-whole-", dir=directory))
    data.chmod(0o711)
    whole = Whole(data, environment)
    whole.within = [*within]
    try:
        configure(whole.installation.config_file, settings or {}, safekeepers, programs)
        access.give_keys(data)
        whole.run("up", *(("--objects", objects) if objects else ()))
        yield whole
    finally:
        whole.end()


def configure(
    path: Path, settings: Mapping[str, str], safekeepers: int, programs: Path = PROGRAMS
) -> None:
    """As the first `up` would, but with ports that no other test's `up` looks for."""
    several = [f"[[safekeepers]]\nid = {n + 1}" for n in range(safekeepers)]
    heads = ["[control]", "[pageserver]", *(several if safekeepers > 1 else ["[safekeeper]"])]
    *ports, clients, service = free_ports(len(heads) + 2)
    lines = [
        f'{head}\nlisten = "127.0.0.1:{port}"' for head, port in zip(heads, ports, strict=True)
    ]
    # What a test does not touch for a minute stays awake; test_outliving and others say otherwise.
    lines += ["[proxy]", f'listen = "127.0.0.1:{clients}"', 'idle = "never"']
    lines += [f'service = "127.0.0.1:{service}"']
    lines += ["[computes]", f'postgres_bindir = "{programs}"']
    lines += ["[computes.settings]", *(f'{name} = "{value}"' for name, value in settings.items())]
    path.write_text("\n".join(lines) + "\n")


def sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Runs SQL over the URL; the last statement's rows, or none."""
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def patiently(action: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Repeats what fails while a part or a compute is coming back."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except (psycopg.OperationalError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
