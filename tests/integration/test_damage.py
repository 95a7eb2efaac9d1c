"""Damaged files are named and refused, never served; a full disk and absent parts do no harm."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.installation import Whole, whole_pagestore
from tests.integration.test_three_safekeepers import wait_for
from tests.waiting import stays

ROWS = "SELECT i, md5(i::text) FROM generate_series(1, 20000) i"


@pytest.fixture(scope="module")
def installation() -> Iterator[Whole]:
    with whole_pagestore() as running:
        yield running


@pytest.fixture
def whole(installation: Whole) -> Iterator[Whole]:
    """With a database of its own for each test."""
    installation.json("create", "app")
    yield installation
    installation.json("rm", "app", "other", "--if-exists")


def test_a_flipped_bit_in_a_layer_is_named_and_others_are_untouched(whole: Whole) -> None:
    whole.json("create", "other")
    whole.sql("app", f"CREATE TABLE t AS {ROWS}")
    whole.json("stop", "app")
    whole.json("down")
    timeline = timeline_of(whole, "app")
    layers = [p for p in whole.data.rglob(f"*{timeline}*/*") if p.is_file() and "wal" not in str(p)]
    layers = [p for p in layers if "safekeeper" not in str(p) and p.stat().st_size > 4096]
    assert layers, "the stop flushed nothing"
    for layer in layers:
        body = bytearray(layer.read_bytes())
        for at in range(1000, len(body) - 1000, 2000):
            body[at] ^= 0x10
        layer.write_bytes(bytes(body))
    whole.json("up")
    done = whole.run("start", "app", "--json", check=False)
    if done.returncode == 0:
        with pytest.raises(psycopg.Error, match=r"LAYER_CORRUPT"):
            whole.sql("app", "SELECT count(*), min(md5) FROM t")
    else:
        assert "CORRUPT" in done.stdout + done.stderr
    whole.json("start", "other")
    assert whole.sql("other", "SELECT 1") == [(1,)]


def timeline_of(whole: Whole, name: str) -> str:
    whole.json("up")
    timeline = str(whole.json("show", name)["timeline_id"])
    whole.json("down")
    return timeline


def test_queries_wait_for_the_page_server_and_can_be_cancelled(whole: Whole) -> None:
    whole.sql("app", f"CREATE TABLE t AS {ROWS}")
    whole.json("stop", "app")
    whole.json("start", "app")
    pageserver = whole.installation.parts()["pageserver"].pid
    with whole.connect("app") as connection:
        connection.execute("SET statement_timeout = '500ms'")
        os.kill(pageserver, signal.SIGSTOP)
        try:
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT count(*), max(md5) FROM t")
        finally:
            os.kill(pageserver, signal.SIGCONT)
    assert whole.sql("app", "SELECT count(*) FROM t") == [(20000,)]


def test_queries_survive_a_restart_of_the_page_server(whole: Whole) -> None:
    whole.sql("app", f"CREATE TABLE t AS {ROWS}")
    whole.json("stop", "app")
    whole.json("start", "app")
    with whole.connect("app") as connection:
        os.kill(whole.installation.parts()["pageserver"].pid, signal.SIGKILL)
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (20000,)


COMMITS = {
    "insert": ("", "INSERT INTO t VALUES (1)"),
    "prepare": ("BEGIN; INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'p'"),
    "commit-prepared": (
        "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'p'",
        "COMMIT PREPARED 'p'",
    ),
}


WAITS_FOR = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"


@pytest.mark.parametrize(("before", "commit"), COMMITS.values(), ids=COMMITS.keys())
def test_no_commit_is_acknowledged_while_the_safekeeper_is_away(
    whole: Whole, before: str, commit: str
) -> None:
    """Not even by a cancel, which in stock Postgres ends the wait with a warning."""
    whole.sql("app", "CREATE TABLE t (i int)")
    safekeeper = whole.installation.parts()["safekeeper"].pid
    returned = threading.Event()

    def run_it() -> None:
        waiting.execute(commit)
        returned.set()

    with whole.connect("app") as waiting, whole.connect("app") as other:
        [[backend]] = waiting.execute("SELECT pg_backend_pid()").fetchall()
        if before:
            waiting.execute(before)
        os.kill(safekeeper, signal.SIGSTOP)
        thread = threading.Thread(target=run_it)
        thread.start()
        wait_for(lambda: other.execute(WAITS_FOR, [backend]).fetchone() == ("SyncRep",), whole)
        other.execute("SELECT pg_cancel_backend(%s)", [backend])
        waited = stays(lambda: not returned.is_set(), 1.0)
        os.kill(safekeeper, signal.SIGCONT)
        thread.join(timeout=30)
    assert waited
    assert returned.is_set()
    prepared = [("p",)] if "PREPARE TRANSACTION" in commit else []
    assert whole.sql("app", "SELECT gid FROM pg_prepared_xacts") == prepared
    assert whole.sql("app", "SELECT i FROM t") == ([] if prepared else [(1,)])


def test_a_session_that_ends_while_it_waits_gets_no_acknowledgement(whole: Whole) -> None:
    whole.sql("app", "CREATE TABLE t (i int)")
    safekeeper = whole.installation.parts()["safekeeper"].pid
    with whole.connect("app") as waiting, whole.connect("app") as other:
        [[backend]] = waiting.execute("SELECT pg_backend_pid()").fetchall()
        os.kill(safekeeper, signal.SIGSTOP)
        ender = threading.Timer(
            1.0,
            other.execute,
            ["SELECT pg_terminate_backend(%s)", [backend]],
        )
        ender.start()
        try:
            with pytest.raises(psycopg.OperationalError):
                waiting.execute("INSERT INTO t VALUES (1)")
        finally:
            ender.join()
            os.kill(safekeeper, signal.SIGCONT)
    whole.sql("app", "INSERT INTO t VALUES (2)")
    assert (2,) in whole.sql("app", "SELECT i FROM t")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 200 MB; needs root, as mounting does."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path = Path(f"/tmp/ps-small-{os.getpid()}")
    path.mkdir(mode=0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
        path.rmdir()


def test_a_full_disk_stops_writes_without_a_false_acknowledgement(small_disk: Path) -> None:
    whole = Whole(small_disk / "data")
    whole.json("up")
    try:
        whole.json("create", "app")
        whole.sql("app", "CREATE TABLE t (i int, pad text)")
        ballast = small_disk / "ballast"
        acknowledged = _write_until_it_stops(whole, ballast)
        ballast.unlink()
        deadline = time.monotonic() + 60
        while True:
            try:
                with whole.connect("app") as connection:
                    connection.execute("SET statement_timeout = '5s'")
                    connection.execute("INSERT INTO t VALUES (-1, '')")
                break
            except psycopg.Error:
                assert time.monotonic() < deadline, "writes did not resume"
                time.sleep(0.5)
        present = {row[0] for row in whole.sql("app", "SELECT i FROM t")}
        assert acknowledged <= present
    finally:
        whole.run("down")


def _write_until_it_stops(whole: Whole, ballast: Path) -> set[int]:
    free = os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - (24 << 20), 1 << 20))
    acknowledged: set[int] = set()
    try:
        with whole.connect("app") as connection:
            connection.execute("SET statement_timeout = '5s'")
            for number in range(200):
                connection.execute(
                    "INSERT INTO t SELECT %s, repeat(md5(random()::text), 30)"
                    " FROM generate_series(1, 1000)",
                    (number,),
                )
                acknowledged.add(number)
    except psycopg.Error:
        return acknowledged
    pytest.fail("a full disk stopped nothing")
