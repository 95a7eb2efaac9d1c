"""Everything is back from the object store alone, and who was replaced does no harm."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pagestore.installation.layout import Installation
from pagestore.postgres.process import start_ticks
from tests.integration.installation import Whole, patiently, whole_pagestore

ROWS = 3000
SETTLED = 50
SECONDS = 120.0


class Kept:
    """An installation with an object store, and a copy of its key elsewhere."""

    def __init__(self, whole: Whole, root: Path) -> None:
        self.whole = whole
        self.url = f"file://{root}/objects"
        self.key = root / "operator-key"

    def is_even(self) -> bool:
        """Whether the object store has all there is."""
        figures = self.whole.json("status")["objects"]
        return all(
            not part["behind_bytes"]
            and not part["behind_seconds"]
            and not part["wal_seconds"]
            and part["generation"]
            for part in figures.values()
        )

    def settle(self) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.is_even():
            assert time.monotonic() < deadline, self.whole.json("status")["objects"]
            time.sleep(0.2)


def fill(whole: Whole, name: str, first: int) -> None:
    whole.sql(
        name,
        "CREATE TABLE IF NOT EXISTS t (n int PRIMARY KEY, words text); "
        f"INSERT INTO t SELECT n, repeat(md5(n::text), 4) FROM generate_series({first}, "
        f"{first + ROWS - 1}) n",
    )


def rows(whole: Whole, name: str) -> tuple[int, int]:
    ((count, total),) = whole.sql(name, "SELECT count(*), sum(length(words) + n) FROM t")
    return count, total


def destroyed(whole: Whole) -> None:
    """Every process that it has started is killed at once, without a word to anybody."""
    supervisor = whole.installation.running_supervisor()
    assert supervisor is not None
    pids = [supervisor, *(part.pid for part in whole.installation.parts().values())]
    computes = whole.installation.running_computes()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for compute in computes:
        compute.process.send(signal.SIGKILL)
        compute.end_sandbox()
    deadline = time.monotonic() + 20
    while any(start_ticks(pid) is not None for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)


class Ledger(threading.Thread):
    """Writes one number after the other, each when the last was committed, up to a limit, until it
    is cut off."""

    def __init__(self, whole: Whole, name: str) -> None:
        super().__init__(daemon=True)
        self._connection = whole.connect(name)
        self._connection.execute("CREATE TABLE ledger (n int)")
        self.committed = 0
        self.limit = SETTLED

    def run(self) -> None:
        with contextlib.suppress(psycopg.Error):
            while True:
                while self.committed == self.limit:
                    time.sleep(0.01)
                self._connection.execute("INSERT INTO ledger VALUES (%s)", [self.committed + 1])
                self.committed += 1

    def reaches(self, count: int) -> None:
        deadline = time.monotonic() + SECONDS
        while self.committed < count:
            assert self.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    root = tmp_path_factory.mktemp("kept")
    with whole_pagestore() as whole:
        whole.run("create", "app")
        fill(whole, "app", 1)
        whole.down()
        # It had none before: what there is goes up, too.
        whole.run("up", "--objects", f"file://{root}/objects")
        yield Kept(whole, root)


@pytest.mark.timeout(900)
def test_everything_is_back_from_the_object_store_alone(kept: Kept, tmp_path: Path) -> None:
    old = kept.whole
    ledger, expected = written(kept)
    never = old.json("show", "never")["timeline_id"]
    (kept.key).write_bytes((old.data / "operator-key").read_bytes())
    kept.key.chmod(0o600)
    config = old.installation.config_file.read_text()
    ledger.limit = 0
    ledger.reaches(SETTLED + 100)
    destroyed(old)
    old_copy, no_files = tmp_path / "old", shutil.ignore_patterns("computes", "socket", "*.sock")
    shutil.copytree(old.data, old_copy, symlinks=True, ignore=no_files)
    shutil.rmtree(old.data)

    old.data.mkdir()
    (old.data / "precious").write_text("x")
    command = ["recover", "--from", kept.url, "--operator-key", str(kept.key)]
    assert old.error(*command)["reason"] == "DIRECTORY_NOT_EMPTY"
    (old.data / "precious").unlink()
    found = old.json(*command)
    assert (found["databases"], list(found["missing"]), found["strangers"]) == (4, [], 0)
    assert not list((old.data / "safekeeper").rglob(never)), "nothing was started on it"
    assert not list((old.data / "pageserver").rglob("*.delta"))
    # The same ports and programs of Postgres as before.
    old.installation.config_file.write_text(config)
    old.installation.forget_config()
    new = Whole(old.data, {})
    new.up()

    for name, what in expected.items():
        assert patiently(lambda name=name: rows(new, name)) == what
    # Up to the last WAL that went up: all that had, and nothing is missing in between.
    ((first, last, count),) = new.sql("other", "SELECT min(n), max(n), count(*) FROM ledger")
    assert (first, count) == (1, last)
    assert SETTLED <= last <= ledger.committed + 1
    for name, point in (("was", "first"), ("before", "second")):
        new.run("branch", "app", name, "--at", point)
    assert rows(new, "was")[0] == ROWS
    assert rows(new, "before")[0] == 2 * ROWS
    assert checkpoints(new) == {"first", "second"}
    fill(new, "app", 100_000)
    kept.settle()
    assert rows(new, "app")[0] == expected["app"][0] + ROWS
    new.down()
    replaced_page_server_ends(old_copy, kept.url)


def checkpoints(whole: Whole) -> set[str]:
    """Of app, those that somebody has named."""
    found = whole.json("log", "app")["entries"]
    return {row["checkpoint"] for row in found if "checkpoint" in row and not row["automatic"]}


def written(kept: Kept) -> tuple[Ledger, dict[str, tuple[int, int]]]:
    """Databases with a past: what each has, now; and who goes on writing to one."""
    whole = kept.whole
    whole.run("create", "other")
    fill(whole, "other", 1)
    whole.run("checkpoint", "app", "first")
    whole.run("branch", "app", "side")
    fill(whole, "side", 50_000)
    fill(whole, "app", 10_000)
    whole.run("checkpoint", "app", "second")
    fill(whole, "app", 20_000)
    whole.run("restore", "app", "second")
    fill(whole, "app", 30_000)
    found = {name: rows(whole, name) for name in ("app", "other", "side")}
    whole.run("branch", "side", "never")  # on which nothing is started before it is recovered
    found["never"] = found["side"]
    ledger = Ledger(whole, "other")
    ledger.start()
    ledger.reaches(SETTLED)
    kept.settle()
    return ledger, found


def replaced_page_server_ends(copy: Path, url: str) -> None:
    """One of the old directory is told that it was replaced, and deletes nothing."""
    objects = Path(url.removeprefix("file://"))
    before = {path: path.stat().st_mtime_ns for path in objects.rglob("*") if path.is_file()}
    whole = Whole(copy, {})
    assert whole.error("up")["reason"] == "GENERATION_SUPERSEDED"
    done = whole.run(
        *("pageserver", "--data-dir", str(copy / "pageserver"), "--objects", url),
        *("--wal-service", "127.0.0.1:1"),
        check=False,
    )
    assert done.returncode != 0
    assert "has taken over" in done.stdout + done.stderr
    after = {path: path.stat().st_mtime_ns for path in objects.rglob("*") if path.is_file()}
    assert after == before
    assert Installation(copy).running_supervisor() is None
