"""The main job, end to end, on real Postgres: ``python -m pagestore.cli.tour --scale 20``.

Loads a database with pgbench, takes a checkpoint, breaks the data, undoes it, branches it ten
times and to points of its past, and shows what each branch costs. Every claim is checked: the
tour fails where a result is not what it must be. It types the commands a user would, and
leaves the service running.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from pagestore.cli.session import human_bytes
from pagestore.client.control import ControlClient
from pagestore.client.credentials import default_data_dir
from pagestore.client.sync import PageClient
from pagestore.client.urls import without_password
from pagestore.errors import PagestoreError
from pagestore.ids import DEFAULT_TENANT, TimelineId
from pagestore.installation.layout import Installation
from pagestore.postgres import majors

Rows = list[tuple[Any, ...]]

ACCOUNTS_PER_SCALE = 100_000
BRANCHES = 10
SUM = "SELECT count(*), sum(abalance), sum(aid) FROM pgbench_accounts"


class TourFailed(PagestoreError):
    """A result was not what it must be."""

    def __init__(self, message: str) -> None:
        super().__init__("TOUR_FAILED", message)


def expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise TourFailed(f"{what}: found {found!r}, not {wanted!r}.")


def execute(url: str, statement: str) -> tuple[Rows, str]:
    """The rows of SQL, and what Postgres calls what it did."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        rows = cursor.fetchall() if cursor.description else []
        return rows, cursor.statusmessage or ""


@dataclass
class Tour:
    scale: int
    data: Path
    name: str = "tour"
    timings: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Says what is done, and how long it took."""
        say(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}")
        began = time.monotonic()
        yield
        elapsed = time.monotonic() - began
        self.timings.append((title, elapsed))
        say(f"  {elapsed * 1000:.0f} ms")

    def pagestore(self, *arguments: str) -> dict[str, Any]:
        """Runs a verb with --json, and says so; its answer."""
        say(f"  $ pagestore {' '.join(arguments)}")
        done = subprocess.run(
            [sys.executable, "-m", "pagestore.cli.main", *arguments, "--json"],
            capture_output=True,
            text=True,
            env={**os.environ, "PAGESTORE_DATA": str(self.data)},
            check=False,
        )
        if done.returncode != 0:
            raise TourFailed(f"pagestore {' '.join(arguments)}: {done.stderr.strip()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        if "url" in answer:
            say(f"    {answer['name']} at LSN {answer['lsn']}, {answer['elapsed_ms']:.0f} ms")
        return answer

    def sql(self, url: str, statement: str) -> Rows:
        """Runs SQL, and prints it with its result."""
        say(f"  =# {statement}")
        rows, status = execute(url, statement)
        for line in [" | ".join(map(str, row)) for row in rows[:5]] or [status]:
            say(f"    {line}")
        return rows

    def sql_in_each(self, urls: dict[str, str], statement: str) -> dict[str, Rows]:
        """Runs SQL in several databases, ``{name}`` standing for each one's name."""
        say(f"  =# {statement}    -- in each")
        results = {name: execute(url, statement.format(name=name)) for name, url in urls.items()}
        said = [
            f"{name}: {rows[0][0] if rows else status}" for name, (rows, status) in results.items()
        ]
        say("    " + ", ".join(said))
        return {name: rows for name, (rows, _) in results.items()}

    # The steps

    def run(self) -> None:
        url = self.start_and_create()
        self.load(url)
        whole = self.checkpoint(url)
        self.break_it(url)
        self.undo(url, whole)
        self.sleep(url)
        names = self.ten_branches(whole)
        self.past(url, whole)
        self.costs(names)
        self.farewell(url)

    def start_and_create(self) -> str:
        with self.step("Start everything"):
            self.pagestore("up")
        self._forget_earlier()
        with self.step("Create a database"):
            url = str(self.pagestore("create", self.name)["url"])
        self.sql(url, "SELECT version()")
        return url

    def _forget_earlier(self) -> None:
        listed = self.pagestore("ls")["databases"]
        earlier = [
            database["name"]
            for database in listed
            if database["name"] == self.name or database["name"].startswith(f"{self.name}-")
        ]
        if earlier:
            with self.step("Remove what an earlier tour left"):
                self.pagestore("rm", *earlier)

    def load(self, url: str) -> None:
        with self.step(f"Load it: pgbench at scale {self.scale}"):
            self._pgbench("--initialize", f"--scale={self.scale}", "--quiet", url)
            rows = self.sql(url, "SELECT count(*) FROM pgbench_accounts")
            expect(rows[0][0], self.scale * ACCOUNTS_PER_SCALE, "Accounts after the load")
            self.sql(url, "SELECT pg_size_pretty(pg_database_size(current_database()))")
        with self.step("Some transactions on it"):
            self._pgbench("--transactions=500", "--client=4", "--no-vacuum", url)
            self.sql(url, "SELECT count(*), sum(delta) FROM pgbench_history")

    def _pgbench(self, *arguments: str) -> None:
        bindir = Installation(self.data).config.computes.postgres_bindir
        program = majors.latest_programs(bindir) / "pgbench"
        *options, url = arguments
        say(f"  $ pgbench {' '.join(options)}")
        bare, secret = without_password(url)
        done = subprocess.run(
            [program, *options, bare],
            env={**os.environ, **secret},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise TourFailed(f"pgbench: {done.stderr.strip()[-600:]}")

    def checkpoint(self, url: str) -> tuple[Any, ...]:
        # Before the checkpoint: what autovacuum may write behind it, no undo brings back.
        self.before = self.sql(url, "SELECT clock_timestamp(), pg_current_wal_flush_lsn()")[0]
        with self.step("Take a checkpoint before the migration"):
            self.pagestore("checkpoint", self.name, "before-migration")
        return self.sql(url, SUM)[0]

    def break_it(self, url: str) -> None:
        with self.step("The migration goes wrong: a DROP, and an UPDATE without WHERE"):
            self.sql(url, "DROP TABLE pgbench_history")
            self.sql(url, "UPDATE pgbench_accounts SET abalance = 0")
            self.sql(url, SUM)
        missing = self.sql(url, "SELECT to_regclass('pgbench_history')")
        expect(missing[0][0], None, "pgbench_history after the DROP")

    def undo(self, url: str, whole: tuple[Any, ...]) -> None:
        with psycopg.connect(url, autocommit=True) as idle:
            idle.execute("SET application_name = 'a client that stays connected'")
            with self.step("Undo it, while a client is connected and idle"):
                answer = self.pagestore("undo", self.name)
                say(f"    {answer['summary']}")
                expect(answer["url"], without_password(url)[0], "The URL after the undo")
            with self.step("The client has noticed nothing"):
                query = "SELECT to_regclass('pgbench_history'), current_setting('application_name')"
                say(f"  =# {query}")
                found = idle.execute(query.encode()).fetchone()
                say("    " + " | ".join(map(str, found or ())))
                wanted = ("pgbench_history", "a client that stays connected")
                expect(found, wanted, "What the idle client sees after the undo")
        with self.step("The data is whole, at the same URL"):
            expect(self.sql(url, SUM)[0], whole, "The accounts after the undo")
            self.sql(url, "SELECT count(*), sum(delta) FROM pgbench_history")

    def sleep(self, url: str) -> None:
        with self.step("Put it to sleep: it costs no process"):
            self.pagestore("stop", self.name)
        with self.step("Whoever connects wakes it"):
            self.sql(url, "SELECT count(*) FROM pgbench_history")
        with self.step("The past has a name, too"):
            past = f"{url}%40before-migration"
            self.sql(
                past,
                "SELECT current_setting('transaction_read_only'), count(*) FROM pgbench_history",
            )

    def ten_branches(self, whole: tuple[Any, ...]) -> list[str]:
        names = [f"{self.name}-{number}" for number in range(1, BRANCHES + 1)]
        urls: dict[str, str] = {}
        with self.step(f"Branch it {BRANCHES} times at the checkpoint"):
            for name in names:
                answer = self.pagestore("branch", self.name, name, "--at", "before-migration")
                urls[name] = answer["url"]
        with self.step("Write different rows in each"):
            self.sql_in_each(urls, "CREATE TABLE mark AS SELECT '{name}' AS branch")
        with self.step("None sees another's rows"):
            for name, rows in self.sql_in_each(urls, "SELECT branch FROM mark").items():
                expect(rows, [(name,)], f"Rows in {name}")
            expect(self.sql(urls[names[0]], SUM)[0], whole, f"The accounts in {names[0]}")
        with self.step("Stop them: a stopped database costs no process"):
            self.pagestore("stop", *names)
        return names

    def past(self, url: str, whole: tuple[Any, ...]) -> None:
        moment, lsn = self.before
        say("")
        rows = self.sql(url, "SELECT to_regclass('mark')")
        expect(rows[0][0], None, "The branches' table in the parent")
        for title, point, name in (
            ("at an LSN", str(lsn), f"{self.name}-lsn"),
            ("at a time of the past", moment.isoformat(), f"{self.name}-time"),
        ):
            with self.step(f"Branch it {title}"):
                answer = self.pagestore("branch", self.name, name, "--at", point)
                expect(self.sql(answer["url"], SUM)[0], whole, f"The accounts in {name}")
            self.pagestore("stop", name)

    def costs(self, names: list[str]) -> None:
        installation = Installation(self.data)
        ours = installation.credentials
        with (
            self.step("What each branch costs: pages in the store, and WAL"),
            ControlClient(installation.address("control"), credentials=ours) as control,
            PageClient(installation.address("pageserver"), credentials=ours) as pages,
        ):
            for name in (self.name, *names, f"{self.name}-lsn", f"{self.name}-time"):
                database = control.get(name)
                info = pages.flush(DEFAULT_TENANT, TimelineId(database.timeline_id))
                say(
                    f"    {name:10} {human_bytes(info.physical_bytes):>10} of pages, "
                    f"{human_bytes(database.wal_bytes):>10} of WAL"
                )

    def farewell(self, url: str) -> None:
        say("\nDone. What each step took:")
        for title, elapsed in self.timings:
            say(f"  {elapsed:8.2f} s  {title}")
        command = Path(sys.executable).parent / "pagestore"
        shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
        option = "" if self.data == default_data_dir() else f" --data {self.data}"
        say(
            f"\nThe database is at\n  {url}\n\nWhat to do next:\n"
            f"  {shown} psql{option} {self.name}\n"
            f"  {shown} log{option} {self.name}\n"
            f"  {shown} create{option} app\n"
            f"  {shown} --help\n"
            f"  {shown} down{option}      stops everything"
        )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tour(
    scale: Annotated[int, typer.Option(min=1, help="pgbench's; 1 is about 15 MB.")] = 20,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR")] = None,
) -> None:
    """Walk the main job on real Postgres."""
    try:
        Tour(scale, (data or default_data_dir()).expanduser().absolute()).run()
    except PagestoreError as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(tour)
