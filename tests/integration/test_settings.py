"""A user's own settings, libraries and passwords: taken, kept, refused by name, or set aside."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pagestore.client.control import ControlClient
from tests.integration.installation import Whole, patiently, sql, whole_pagestore
from tests.plain_postgres import MAJOR


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        yield running


@pytest.fixture(scope="module")
def control(whole: Whole) -> Iterator[ControlClient]:
    with whole.control() as client:
        yield client


@pytest.fixture
def app(control: ControlClient) -> Iterator[str]:
    control.create("app")
    yield "app"
    control.delete("app", if_exists=True)


def restart(control: ControlClient, name: str) -> None:
    control.stop(name)
    control.wake(name)


def connect(control: ControlClient, name: str, **overrides: str) -> psycopg.Connection[Any]:
    url = control.get(name, brief=True, reveal=True).url
    return psycopg.connect(url, autocommit=True, **overrides)


def ask(control: ControlClient, name: str, *statements: str) -> list[tuple[Any, ...]]:
    with connect(control, name) as session:
        for statement in statements:
            cursor = session.execute(statement)
        return cursor.fetchall() if cursor.description else []


LISTED = "$1, $2, $3" if MAJOR < 18 else "$1 /*, ... */"
"""How pg_stat_statements names three constants."""
STATEMENTS = """
    SELECT query, calls, rows FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND query ~ 'counted|\\$1 AS "ONE"' ORDER BY query COLLATE "C"
"""


def test_pg_stat_statements_counts_normalizes_and_crosses_a_restart(
    control: ControlClient, app: str
) -> None:
    """The essence of contrib's own suite."""
    ask(control, app, "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
    restart(control, app)
    with connect(control, app) as session:
        session.execute("CREATE EXTENSION pg_stat_statements")
        session.execute("SET pg_stat_statements.track_utility = on")
        session.execute("SELECT pg_stat_statements_reset()")
        for statement in (
            'SELECT 1 AS "ONE"',
            'SELECT 2 AS "ONE"',
            "CREATE TABLE counted (a int, b text)",
            "INSERT INTO counted VALUES (1, 'x'), (2, 'y')",
            "INSERT INTO counted VALUES (3, 'x'), (4, 'y')",
            "UPDATE counted SET b = 'bb' WHERE a > 2",
            "SELECT * FROM counted WHERE a IN (1, 2, 3) ORDER BY a",
            "DELETE FROM counted WHERE a = 1",
        ):
            session.execute(statement)
        expected = [
            ("CREATE TABLE counted (a int, b text)", 1, 0),
            ("DELETE FROM counted WHERE a = $1", 1, 1),
            ("INSERT INTO counted VALUES ($1, $2), ($3, $4)", 2, 4),
            ('SELECT $1 AS "ONE"', 2, 2),
            (f"SELECT * FROM counted WHERE a IN ({LISTED}) ORDER BY a", 1, 3),
            ("UPDATE counted SET b = $1 WHERE a > $2", 1, 2),
        ]
        assert session.execute(STATEMENTS).fetchall() == expected
        plans = session.execute(
            "SELECT dealloc, stats_reset IS NOT NULL FROM pg_stat_statements_info"
        )
        assert plans.fetchall() == [(0, True)]
    restart(control, app)
    with connect(control, app) as session:
        assert session.execute(STATEMENTS).fetchall() == expected
        session.execute("SELECT pg_stat_statements_reset()")
        assert session.execute(STATEMENTS).fetchall() == []
        shown = session.execute("SHOW shared_preload_libraries").fetchone()
        assert shown is not None
        assert "pagestore_shim" in shown[0]
        # What a tool that appends to the list shown would write is taken too.
        session.execute(
            psycopg.sql.SQL("ALTER SYSTEM SET shared_preload_libraries = {}").format(
                psycopg.sql.SQL(", ").join(
                    item.strip().strip('"') for item in (*shown[0].split(","), "auto_explain")
                )
            )
        )
    restart(control, app)
    assert ask(control, app, "SHOW auto_explain.log_min_duration") == [("-1",)]
    assert ask(control, app, "SELECT count(*) > 0 FROM pg_stat_statements") == [(True,)]


def test_a_database_is_created_with_settings(whole: Whole, control: ControlClient) -> None:
    whole.run("create", "logical", "--set", "wal_level=logical", "--set", "work_mem=7MB")
    assert ask(control, "logical", "SHOW wal_level") == [("logical",)]
    restart(control, "logical")
    assert ask(control, "logical", "SHOW work_mem") == [("7MB",)]
    control.delete("logical")


def test_a_create_with_settings_that_do_not_start_makes_nothing(whole: Whole) -> None:
    error = whole.error("create", "huge", "--set", "shared_buffers=900GB")
    assert error["reason"] == "COMPUTE_FAILED"
    assert "could not map anonymous shared memory" in error["message"]
    assert "\n" not in error["message"]
    assert ".log" in error["hint"]
    assert whole.error("create", "huge", "--set", "fsync=on")["reason"] == "SETTING_FIXED"
    assert whole.error("show", "huge")["reason"] == "DATABASE_NOT_FOUND"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER SYSTEM SET wal_level = minimal",
        "ALTER SYSTEM SET max_wal_senders = 0",
        "ALTER SYSTEM SET max_replication_slots = 0",
        "ALTER SYSTEM SET max_worker_processes = 0",
        "ALTER SYSTEM SET hba_file = '/nowhere'",
        "ALTER SYSTEM SET data_directory = '/nowhere'",
        "ALTER SYSTEM SET port = 1",
        "ALTER SYSTEM SET listen_addresses = ''",
        "ALTER SYSTEM SET unix_socket_directories = '/tmp'",
        "ALTER SYSTEM SET fsync = on",
        "ALTER SYSTEM SET recovery_target_name = 'x'",
        "ALTER SYSTEM SET restore_command = 'false'",
        "ALTER SYSTEM SET \"Pagestore.Lsn\" = '0/1'",
        "ALTER SYSTEM SET logging_collector = on",
        "ALTER ROLE ALL SET wal_sender_timeout = '1ms'",
    ],
)
def test_what_a_compute_needs_is_refused_by_name(
    control: ControlClient, shared: str, statement: str
) -> None:
    name = statement.split(" SET ")[1].split(" ")[0].strip('"')
    with pytest.raises(psycopg.Error, match=f"(?i){name}.*cannot be changed"):
        ask(control, shared, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER SYSTEM SET session_preload_libraries = 'nope'",
        "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements, auto_explain'",
        "ALTER ROLE postgres SET local_preload_libraries = 'nope'",
        "ALTER DATABASE shared SET session_preload_libraries = '$libdir/nope'",
    ],
)
def test_libraries_that_are_not_there_are_refused(
    control: ControlClient, shared: str, statement: str
) -> None:
    with pytest.raises(psycopg.errors.UndefinedFile, match="not on this machine"):
        ask(control, shared, statement)


@pytest.fixture(scope="module")
def shared(control: ControlClient) -> str:
    control.create("shared")
    return "shared"


def test_the_last_superuser_stays_one(control: ControlClient, shared: str) -> None:
    for statement in ("ALTER ROLE postgres NOLOGIN", "ALTER ROLE postgres NOSUPERUSER"):
        with pytest.raises(psycopg.Error, match=r"(last|bootstrap) superuser"):
            ask(control, shared, statement)


BAD = [
    ("ssl", "on", "server.crt"),
    ("shared_buffers", "900GB", "could not map anonymous shared memory"),
    ("huge_pages", "on", "could not map anonymous shared memory"),
    ("superuser_reserved_connections", "500", "superuser_reserved_connections"),
]


def test_what_does_not_start_is_set_aside_and_told(
    whole: Whole, control: ControlClient, app: str
) -> None:
    ask(control, app, "CREATE TABLE t AS SELECT 1 AS i", "ALTER SYSTEM SET work_mem = '5MB'")
    restart(control, app)
    for name, value, complaint in BAD:
        ask(control, app, f"ALTER SYSTEM SET {name} = '{value}'")
        control.stop(app)
        started = whole.run("start", app)
        assert f"{name} = {value}" in started.stderr
        shown = whole.json("show", app)
        assert shown["set_aside"] == {name: value}
        assert complaint in shown["set_aside_complaint"]
        event = whole.json("log", app)["entries"][0]
        assert event["verb"] == "settings"
        assert name in event["detail"]
        assert complaint in event["detail"]
        assert ask(control, app, "SHOW work_mem") == [("5MB",)]
        assert ask(control, app, "SELECT i FROM t") == [(1,)]
    whole.run("settings", app, "--reset", "superuser_reserved_connections")
    assert dict(control.settings(app).settings) == {"work_mem": "5MB"}


def test_a_bad_setting_holds_up_neither_branch_nor_restore(
    whole: Whole, control: ControlClient, app: str
) -> None:
    control.checkpoint(app, "before")
    ask(control, app, "ALTER SYSTEM SET huge_pages = on", "ALTER SYSTEM SET work_mem = '3MB'")
    whole.run("branch", app, "twig")
    assert ask(control, "twig", "SHOW work_mem") == [("3MB",)]
    assert whole.json("show", "twig")["set_aside"] == {"huge_pages": "on"}
    whole.run("restore", app, "before")
    assert ask(control, app, "SELECT 1") == [(1,)]
    assert "huge_pages" in whole.json("show", app)["set_aside"]
    control.delete("twig")


def test_a_killed_compute_keeps_what_alter_system_set(
    whole: Whole, control: ControlClient, app: str
) -> None:
    ask(control, app, "ALTER SYSTEM SET work_mem = '8MB'")
    os.kill(whole.json("show", app)["compute_pid"], signal.SIGKILL)
    assert patiently(lambda: ask(control, app, "SHOW work_mem")) == [("8MB",)]


def test_settings_from_outside(whole: Whole, control: ControlClient, app: str) -> None:
    assert dict(control.settings(app).settings) == {}
    changed = whole.json(
        "settings", app, "work_mem=2MB", "shared_preload_libraries=pg_stat_statements,auto_explain",
        "auto_explain.log_min_duration=5s",
    )  # fmt: skip
    assert changed["after_restart"] == ["shared_preload_libraries"]
    assert ask(control, app, "SHOW work_mem") == [("2MB",)]
    restart(control, app)
    assert ask(control, app, "SHOW auto_explain.log_min_duration") == [("5s",)]
    control.stop(app)
    whole.run("settings", app, "work_mem=3MB", "--reset", "shared_preload_libraries")
    control.wake(app)
    assert ask(control, app, "SHOW work_mem") == [("3MB",)]
    assert whole.error("settings", app, "port=1")["reason"] == "SETTING_FIXED"
    assert whole.error("settings", app, "nonsense=1")["reason"] == "INVALID_SETTING"
    assert whole.error("settings", app, "work_mem=lots")["reason"] == "INVALID_SETTING"
    assert whole.error("settings", app, "work_mem")["reason"] == "INVALID_SETTING"
    error = whole.error("settings", app, "session_preload_libraries=nope")
    assert "'nope'" in error["message"]


def test_the_operator_gets_in_whatever_was_done_to_the_url(
    whole: Whole, control: ControlClient, app: str
) -> None:
    ask(control, app, "CREATE DATABASE elsewhere")
    assert whole.json("url", app)["fault"] is None
    with connect(control, app, dbname=f"{app}/elsewhere") as session:
        for statement in (
            "ALTER ROLE postgres PASSWORD 'mine'",
            "ALTER DATABASE app RENAME TO renamed",
            "ALTER ROLE postgres SET default_transaction_read_only = on",
            "ALTER ROLE ALL SET statement_timeout = 1",
            "ALTER ROLE ALL SET search_path = nowhere",
        ):
            session.execute(statement)
    assert "renamed" in whole.json("url", app)["fault"]
    assert "renamed" in whole.run("url", app).stderr
    assert whole.run("psql", app, "--", "-Atc", "SELECT 'in'").stdout == "in\n"
    reset = whole.json("password", app, "--reset")
    assert reset["password"] == whole.run("password", app).stdout.strip()
    assert whole.json("url", app)["fault"] is None
    assert ask(control, app, "SHOW default_transaction_read_only") == [("on",)]
    with connect(
        control, app, options="-c default_transaction_read_only=off -c statement_timeout=0"
    ) as session:
        session.execute("ALTER ROLE postgres PASSWORD 'mine'")
    assert "not known" in whole.json("url", app)["fault"]


def test_the_operator_gets_in_though_the_role_he_came_by_is_no_superuser_any_more(
    whole: Whole, control: ControlClient, app: str
) -> None:
    def operator(statement: str) -> str:
        return whole.run("psql", app, "-Atc", statement).stdout.strip()

    # Who may not log in any more, has another name, is gone, or is no superuser.
    ask(control, app, "CREATE ROLE boss SUPERUSER LOGIN", "ALTER ROLE postgres NOLOGIN")
    assert operator("SELECT session_user") == "boss"
    assert "NOLOGIN" in whole.json("url", app)["fault"]
    whole.run("password", app, "--reset")
    ask(control, app, "ALTER ROLE boss RENAME TO chief")
    whole.run("settings", app, "work_mem=3MB")
    ask(control, app, 'CREATE ROLE "a b""c" SUPERUSER LOGIN', "DROP ROLE chief")
    if MAJOR == 15:  # later ones refuse it of the role that initdb made
        ask(control, app, "ALTER ROLE postgres NOSUPERUSER")
    whole.run("settings", app, "work_mem=4MB")
    whole.run("password", app, "--reset")
    renamed = "SET SESSION AUTHORIZATION 'a b\"c'", "ALTER ROLE postgres RENAME TO nobody"
    ask(control, app, *renamed)
    assert operator("SELECT session_user") in ('a b"c', "nobody")
    assert "no role postgres" in whole.json("url", app)["fault"]
    whole.run("password", app, "--reset")
    assert ask(control, app, "SELECT session_user") == [("postgres",)]
    assert ask(control, app, "SHOW work_mem") == [("4MB",)]


def test_commits_go_on_though_the_role_safekeepers_came_by_may_not_log_in_any_more(
    whole: Whole, control: ControlClient, app: str
) -> None:
    ask(control, app, "CREATE ROLE boss SUPERUSER LOGIN", "CREATE TABLE t (i int)")
    with connect(control, app, options="-c statement_timeout=60s") as session:
        session.execute("ALTER ROLE postgres NOLOGIN")
        whole.kill("safekeeper")
        session.execute("INSERT INTO t VALUES (1)")
    whole.run("password", app, "--reset")
    assert ask(control, app, "SELECT i FROM t") == [(1,)]


def test_a_reset_password_stays_over_restore_and_branch(
    whole: Whole, control: ControlClient, app: str
) -> None:
    control.checkpoint(app, "before")
    leaked = whole.json("url", app)["url"]
    whole.run("password", app, "--reset")
    whole.run("restore", app, "before")
    assert ask(control, app, "SELECT 1") == [(1,)]
    with pytest.raises(psycopg.OperationalError, match="password"):
        sql(leaked, "SELECT 1")
    whole.run("branch", app, "twig", "--at", "before")
    assert ask(control, "twig", "SELECT 1") == [(1,)]
    control.delete("twig")


def test_a_clusters_settings_come_with_it_and_go_with_it(
    whole: Whole, control: ControlClient, app: str, tmp_path: Path
) -> None:
    control.change_settings(app, {"work_mem": "4MB", "pagestore.readahead": "32"})
    exported = whole.json("export", app, str(tmp_path / "out"))
    auto_conf = tmp_path / "out/postgresql.auto.conf"
    assert exported["settings"] == {"work_mem": "4MB"}
    assert [*exported["settings_left_out"]] == ["pagestore.readahead"]
    assert auto_conf.read_text() == "work_mem = '4MB'\n"
    with auto_conf.open("a") as file:
        file.write("ssl = on\nport = 7777\ndeadlock_timeout = '5s'\n")
        file.write("shared_preload_libraries = 'pg_stat_statements, nope'\n")
        file.write("lc_time = 'xx_XX'\ninclude '/etc/hosts'\n")
    imported = whole.json("import", "copy", "--from-pgdata", str(tmp_path / "out"))
    assert imported["settings"] == {"deadlock_timeout": "5s", "work_mem": "4MB"}
    left_out = {"ssl", "port", "shared_preload_libraries", "lc_time", "include /etc/hosts"}
    assert {*imported["settings_left_out"]} == left_out
    assert ask(control, "copy", "SHOW deadlock_timeout") == [("5s",)]
    control.delete("copy")
