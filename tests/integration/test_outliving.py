"""Idle sessions outlive sleep, moves, crashes, and every part but the proxy: clients with pools."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg_pool
import pytest
import sqlalchemy

from pagestore.client.urls import with_login
from tests.integration.installation import Whole, patiently, whole_pagestore

SIZE = 4


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.json("create", "app")
        with running.connect("app") as session:
            session.execute("CREATE TABLE facts AS SELECT 1 AS a")
        running.run("checkpoint", "app", "start")
        yield running


@pytest.fixture(autouse=True)
def serving(whole: Whole) -> None:
    """Parts that an earlier test has killed are back."""

    def serves() -> None:
        assert whole.run("status", check=False).returncode == 0

    patiently(serves)


def sleep(whole: Whole) -> None:
    whole.run("stop", "app")


def restore(whole: Whole) -> None:
    whole.run("restore", "app", "start")


def undo(whole: Whole) -> None:
    with whole.connect("app") as session:
        session.execute("INSERT INTO facts VALUES (2)")
    assert whole.json("undo", "app")["changed"]


def crash(whole: Whole) -> None:
    """What a client says to a backend that is about to notice is lost with it."""
    patiently(lambda: settled(whole))
    pid = int(whole.json("show", "app")["compute_pid"])
    os.kill(pid, signal.SIGKILL)

    def gone() -> None:
        assert whole.json("show", "app")["compute_pid"] != pid

    patiently(gone)


def settled(whole: Whole) -> None:
    """Every session of the proxy's has been at rest for long enough to be kept."""
    (row,) = [row for row in whole.json("status")["awake"] if row["name"] == "app"]
    assert row["idle_seconds"] > 3


def kill_parts(whole: Whole) -> None:
    for part in ("control", "pageserver", "safekeeper"):
        whole.kill(part)


def down_and_up(whole: Whole) -> None:
    whole.run("down", "--keep-sessions")
    whole.up()


EVENTS: list[Callable[[Whole], None]] = [sleep, restore, undo, crash, kill_parts, down_and_up]
happenings = pytest.mark.parametrize("happens", EVENTS, ids=lambda event: event.__name__)


@happenings
def test_a_pool_of_psycopgs_notices_nothing(whole: Whole, happens: Callable[[Whole], None]) -> None:
    def configure(session: psycopg.Connection[Any]) -> None:
        session.autocommit = True
        session.prepare_threshold = 0

    url = whole.json("url", "app")["url"]
    with psycopg_pool.ConnectionPool(
        url, min_size=SIZE, max_size=SIZE, configure=configure, open=True
    ) as pool:
        pool.wait()
        sessions = [pool.getconn() for _ in range(SIZE)]
        for number, session in enumerate(sessions):
            session.execute(f"SET work_mem = '{number + 5}MB'")
            session.execute("SELECT %s::int + 1", [number])
            session.execute(f"LISTEN channel_{number}")
        for session in sessions:
            pool.putconn(session)
        happens(whole)
        for number, session in enumerate(sessions):
            assert session.execute("SHOW work_mem").fetchone() == (f"{number + 5}MB",)
            assert session.execute("SELECT %s::int + 1", [number]).fetchone() == (number + 1,)
            assert session.execute("SELECT pg_listening_channels()").fetchall() == [
                (f"channel_{number}",)
            ]
        assert pool.get_stats().get("connections_lost", 0) == 0
        with pool.connection() as session:
            session.execute("NOTIFY channel_1, 'heard'")
        (heard,) = sessions[1].notifies(timeout=20, stop_after=1)
        assert heard.payload == "heard"


@happenings
def test_sqlalchemys_pool_notices_nothing(whole: Whole, happens: Callable[[Whole], None]) -> None:
    url = whole.json("url", "app")["url"].replace("postgresql:", "postgresql+psycopg:")
    engine = sqlalchemy.create_engine(url, pool_size=SIZE, pool_pre_ping=False)
    query = sqlalchemy.text("SELECT count(*) FROM facts WHERE a = :a")
    try:
        sessions = [engine.connect() for _ in range(SIZE)]
        for session in sessions:
            assert session.execute(query, {"a": 1}).scalar() == 1
        for session in sessions:
            session.close()
        happens(whole)
        for session in [engine.connect() for _ in range(SIZE)]:
            assert session.execute(query, {"a": 1}).scalar() == 1
            session.close()
    finally:
        engine.dispose()


@happenings
def test_asyncpgs_pool_notices_nothing(whole: Whole, happens: Callable[[Whole], None]) -> None:
    url = whole.json("url", "app")["url"]

    async def story() -> None:
        async with asyncpg.create_pool(url, min_size=SIZE, max_size=SIZE) as pool:
            query = "SELECT count(*) FROM facts WHERE a = $1"
            assert await asyncio.gather(*(pool.fetchval(query, 1) for _ in range(SIZE)))
            await asyncio.to_thread(happens, whole)
            found = await asyncio.gather(*(pool.fetchval(query, 1) for _ in range(SIZE)))
            assert found == [1] * SIZE

    asyncio.run(story())


def test_a_transaction_at_a_restore_ends_and_is_told_why(whole: Whole) -> None:
    with whole.connect("app") as session:
        session.execute("INSERT INTO facts VALUES (2)")  # so that the restore goes somewhere
        session.execute("BEGIN")
        session.execute("INSERT INTO facts VALUES (3)")
        whole.run("restore", "app", "start")
        with pytest.raises(psycopg.errors.AdminShutdown) as caught:
            session.execute("COMMIT")
    assert "was taken to checkpoint start (restore)" in str(caught.value)
    assert caught.value.diag.message_hint is not None
    assert "Connect again" in caught.value.diag.message_hint


def copies_out(session: psycopg.Connection, pause: float = 0.0) -> None:
    """Rows without end, cut wherever they are."""
    rows = "SELECT g, repeat('x', 3001) FROM generate_series(1, 1000000000) g"
    with session.cursor() as cursor, cursor.copy(f"COPY ({rows}) TO STDOUT") as copy:
        for _ in copy:
            time.sleep(pause)


def streams(session: psycopg.Connection) -> None:
    for _ in session.cursor().stream(
        "SELECT repeat('x', 3001) FROM generate_series(1, 1000000000)"
    ):
        pass


def waits_in_a_transaction(session: psycopg.Connection) -> None:
    session.execute("BEGIN")
    session.execute("SELECT pg_sleep(600)")


WORK: list[Callable[[psycopg.Connection], None]] = [
    copies_out,
    functools.partial(copies_out, pause=0.01),
    streams,
    waits_in_a_transaction,
]


@contextlib.contextmanager
def at_work(whole: Whole) -> Iterator[dict[Callable[..., None], psycopg.Error]]:
    """Sessions that are each in the midst of something; afterwards, what ended them."""
    ended: dict[Callable[..., None], psycopg.Error] = {}
    begun = threading.Barrier(len(WORK) + 1)

    def work(what: Callable[[psycopg.Connection], None]) -> None:
        with whole.connect("app") as session:
            session.execute("SELECT 1")
            begun.wait()
            try:
                what(session)
            except psycopg.Error as error:
                ended[what] = error

    threads = [threading.Thread(target=work, args=(what,)) for what in WORK]
    for thread in threads:
        thread.start()
    begun.wait()
    time.sleep(1)  # they are in the midst of it
    yield ended
    for thread in threads:
        thread.join()


def test_whoever_is_at_work_at_a_restore_is_told_why(whole: Whole) -> None:
    with whole.connect("app") as session:
        session.execute("INSERT INTO facts VALUES (2)")
    with at_work(whole) as ended:
        whole.run("restore", "app", "start")
    for what in WORK:
        error = ended[what]
        assert isinstance(error, psycopg.errors.AdminShutdown), (what, error)
        assert "was taken to checkpoint start (restore)" in str(error), what
        assert error.diag.message_hint is not None
        assert "Connect again" in error.diag.message_hint


def test_whoever_is_at_work_in_a_crash_is_told_so(whole: Whole) -> None:
    """Where the server was killed in the midst of a message, nobody can be told anything."""
    with at_work(whole) as ended:
        os.kill(int(whole.json("show", "app")["compute_pid"]), signal.SIGKILL)
    error = ended[waits_in_a_transaction]
    assert isinstance(error, psycopg.errors.AdminShutdown), error
    assert "has ended" in str(error)
    assert error.diag.message_hint is not None
    with whole.connect("app") as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_session_whose_role_or_database_is_not_there_any_more_is_told_so(whole: Whole) -> None:
    with whole.connect("app") as session:
        session.execute("CREATE ROLE fleeting LOGIN PASSWORD 'short'")
        session.execute("CREATE DATABASE fleeting")
    url = whole.json("url", "app")["url"]
    with (
        psycopg.connect(with_login(url, "fleeting", "short"), autocommit=True) as by_role,
        psycopg.connect(f"{url}/fleeting", autocommit=True) as inner,
    ):
        for session in (by_role, inner):
            session.execute("SELECT 1")
        whole.run("restore", "app", "start")
        with pytest.raises(psycopg.errors.AdminShutdown, match="its role cannot log in") as caught:
            by_role.execute("SELECT 1")
        assert caught.value.diag.message_hint is not None
        with pytest.raises(psycopg.errors.AdminShutdown, match='"fleeting" does not exist'):
            inner.execute("SELECT 1")


def test_sessions_of_a_database_that_is_removed_end(whole: Whole) -> None:
    whole.run("branch", "app", "gone")
    with whole.connect("gone") as session:
        session.execute("SELECT 1")
        whole.run("rm", "gone")
        with pytest.raises(psycopg.OperationalError, match="gone was removed"):
            session.execute("SELECT 1")


def test_a_session_goes_on_under_another_name(whole: Whole) -> None:
    whole.run("branch", "app", "one")
    with whole.connect("one") as session:
        session.execute("SET work_mem = '9MB'")
        whole.run("rename", "one", "two")
        whole.run("stop", "two")
        assert session.execute("SHOW work_mem").fetchone() == ("9MB",)
    with whole.connect("two") as session:
        assert session.execute("SELECT a FROM facts").fetchall() == [(1,)]
    whole.run("rm", "two")


def test_a_compute_that_answers_no_more_is_ended_and_the_next_comes(whole: Whole) -> None:
    """And whoever is idle in it notices nothing."""
    with whole.connect("app") as idle:
        idle.execute("SET application_name = 'outlives'")
        patiently(lambda: settled(whole))
        frozen = processes(whole)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        with whole.connect("app") as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
        assert processes(whole)[0] != frozen[0]
        shown = idle.execute("SELECT current_setting('application_name')").fetchone()
        assert shown == ("outlives",)


def processes(whole: Whole) -> list[int]:
    """Of the compute: its postmaster, and what that has started."""
    first = int(whole.json("show", "app")["compute_pid"])
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children)]
