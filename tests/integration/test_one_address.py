"""The one address of a whole installation: who comes in, who wakes, who outlives whom."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
import signal
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pagestore.agent.agent import NOBODYS_TIMELINE
from pagestore.compute.record import ComputeRecord
from pagestore.reader.hotpages import entered_databases
from tests.integration.installation import Whole, patiently, whole_pagestore
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with whole_pagestore() as running:
        running.json("create", "app")
        yield running


def connect(whole: Whole, database: str = "app", **facts: Any) -> psycopg.Connection[Any]:
    """Over the proxy; as the owner of app unless told otherwise."""
    words = {**owner(whole), "dbname": database, "autocommit": True, **facts}
    return psycopg.connect(**words)


@functools.cache
def owner(whole: Whole) -> dict[str, Any]:
    return conninfo_to_dict(whole.json("url", "app")["url"])


def state(whole: Whole) -> str:
    return str(whole.json("show", "app")["compute"])


def crash(whole: Whole) -> None:
    """Its postmaster is killed."""
    os.kill(int(whole.json("show", "app")["compute_pid"]), signal.SIGKILL)


def refusal(whole: Whole, **facts: Any) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(whole, **facts)
    return str(caught.value)


def test_a_database_and_another_one_inside_it(whole: Whole) -> None:
    with connect(whole) as session:
        assert session.execute("SELECT current_database()").fetchone() == ("app",)
        session.execute("CREATE DATABASE other")
    with connect(whole, "app/other") as session:
        assert session.execute("SELECT current_database()").fetchone() == ("other",)
    assert 'database "nothing" does not exist' in refusal(whole, database="app/nothing")


def test_the_catalogs_of_the_database_that_is_entered_travel_with_a_start(whole: Whole) -> None:
    with connect(whole) as session:
        found = session.execute("SELECT oid::int, datname FROM pg_database").fetchall()
    assert entered_databases(oid for oid, _ in found) == {dict(map(reversed, found))["app"]}


def spare(whole: Whole) -> ComputeRecord:
    """Of the server that waits for whoever wakes next."""

    def found() -> ComputeRecord:
        records = map(ComputeRecord.load, whole.installation.compute_dir.glob("0000000000-*"))
        waiting = [item for item in records if item and item.timeline == NOBODYS_TIMELINE]
        alive = [item for item in waiting if item.sandbox and item.sandbox.outer.alive]
        assert len(alive) == 1
        return alive[0]

    record: ComputeRecord = patiently(found)
    return record


@pytest.mark.walls
def test_who_wakes_next_finds_a_server_waiting(whole: Whole) -> None:
    with connect(whole):
        waits = spare(whole)
    whole.run("stop", "app")
    with connect(whole) as session:
        assert session.execute("SELECT current_database()").fetchone() == ("app",)
        shown = whole.json("show", "app")
        record = ComputeRecord.load(Path(shown["compute_dir"]))
        assert record is not None
        assert record.sandbox is not None
        assert waits.sandbox is not None
        assert (record.sandbox.outer, record.uid) == (waits.sandbox.outer, waits.uid)
        assert record.name[:10] == str(record.timeline)[:10]
        assert session.execute("SHOW pagestore.timeline_id").fetchone() == (str(record.timeline),)
        # Its files are replaced where it sees them, whatever they are called outside.
        session.execute("ALTER SYSTEM SET work_mem = '7MB'")
        session.execute("SELECT pg_reload_conf()")
        session.execute("DO 'BEGIN RAISE LOG $$said by %$$, current_database(); END'")
        assert "said by app" in Path(record.log).read_text()
    with connect(whole) as session:
        assert session.execute("SHOW work_mem").fetchone() == ("7MB",)
        session.execute("ALTER SYSTEM RESET work_mem")


@pytest.mark.walls
def test_a_waiting_server_that_was_killed_hinders_nobody(whole: Whole) -> None:
    with connect(whole):
        waits = spare(whole)
    assert waits.sandbox is not None
    waits.sandbox.outer.send(signal.SIGKILL)
    whole.run("stop", "app")
    with connect(whole) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
        assert spare(whole).sandbox != waits.sandbox


def test_the_past_has_a_name_and_is_only_read(whole: Whole) -> None:
    with connect(whole) as session:
        session.execute("CREATE TABLE past AS SELECT 1 AS a")
        made = whole.json("checkpoint", "app", "one row")
        session.execute("INSERT INTO past VALUES (2)")
        with connect(whole, "app@one row") as then, connect(whole, f"app@{made['lsn']}") as same:
            assert then.execute("SELECT a FROM past").fetchall() == [(1,)]
            where = "SELECT pg_postmaster_start_time()"
            assert then.execute(where).fetchone() == same.execute(where).fetchone()
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                same.execute("INSERT INTO past VALUES (3)")
            awake = [item["name"] for item in whole.json("status")["awake"]]
            assert sorted(awake) == ["app", f"app@{made['lsn']}"]
        assert session.execute("SELECT count(*) FROM past").fetchone() == (2,)
        assert [item["name"] for item in whole.json("ls")["databases"]] == ["app"]
        assert "no checkpoint" in refusal(whole, database="app@never")
        session.execute("DROP TABLE past")


def test_the_past_is_opened_by_the_passwords_of_now(whole: Whole) -> None:
    with connect(whole) as session:
        for role in ("gone", "changed"):
            session.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'of then'")
        whole.json("checkpoint", "app", "roles of then")
        session.execute("ALTER ROLE changed PASSWORD 'of now'; DROP ROLE gone")
        session.execute("CREATE ROLE later LOGIN PASSWORD 'of now'")
    then = "app@roles of then"
    refused = [("changed", "of then"), ("gone", "of then"), ("gone", "of now"), ("later", "of now")]
    for role, password in refused:
        said = refusal(whole, database=then, user=role, password=password)
        assert "password authentication failed" in said
    with connect(whole, then, user="changed", password="of now") as past:
        assert past.execute("SELECT current_user").fetchone() == ("changed",)
    owner_then = whole.json("password", "app", "--reset")["password"]
    owner.cache_clear()
    with connect(whole, then) as past:
        assert past.info.password == owner_then


def test_a_database_sleeps_after_a_time_of_its_own(whole: Whole) -> None:
    with connect(whole) as session:
        assert whole.json("idle", "app", "1s")["sleeps_after"] == 1.0
        session.execute("SET work_mem = '7MB'")
        patiently(lambda: _is(whole, "stopped"))
        assert session.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert whole.json("idle", "app", "never")["sleeps_after"] == "never"
        patiently(lambda: _sleeps_after(whole, "never"))
    assert whole.json("idle", "app", "default") == whole.json("idle", "app") | {
        "elapsed_ms": ANY,
    }
    assert whole.json("show", "app")["sleeps_after"] == "default"
    assert whole.error("idle", "app", "soon")["reason"] == "INVALID_SETTING"


def _is(whole: Whole, expected: str) -> None:
    assert state(whole) == expected


def _sleeps_after(whole: Whole, expected: str) -> None:
    rows = whole.json("status")["awake"]
    assert {row["sleeps_after"] for row in rows if row["name"] == "app"} == {expected}


@pytest.mark.parametrize("where", ["asleep", "crashed"])
def test_a_session_whose_password_was_changed_since_goes_on(whole: Whole, where: str) -> None:
    """It has shown who it is: what it is asked for again is asked of nobody who has a backend."""
    role = f"kept_{where}"
    with connect(whole) as session:
        session.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'first'")
        with connect(whole, user=role, password="first") as other:
            other.execute("SET work_mem = '6MB'")
            session.execute(f"ALTER ROLE {role} PASSWORD 'second'")
            whole.run("stop", "app")
            if where == "crashed":
                whole.run("start", "app")
                crash(whole)
            assert other.execute("SHOW work_mem").fetchone() == ("6MB",)
            assert other.execute("SELECT current_user").fetchone() == (role,)
        assert "password" in refusal(whole, user=role, password="first")
        session.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("how", ["awake", "asleep", "crashed"])
def test_what_sql_says_of_a_role_holds_from_the_next_connection_on(whole: Whole, how: str) -> None:
    role = f"web_{how}"
    with connect(whole) as session:
        session.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'first'")
        with connect(whole, user=role, password="first") as other:
            assert other.execute("SELECT current_user").fetchone() == (role,)
        session.execute(f"ALTER ROLE {role} PASSWORD 'second'")
        if how == "crashed":
            crash(whole)
    if how == "asleep":
        whole.run("stop", "app")
        assert state(whole) == "stopped"
    assert "password authentication failed" in refusal(whole, user=role, password="first")
    with connect(whole, user=role, password="second") as session:
        assert session.execute("SELECT current_user").fetchone() == (role,)


def test_what_a_role_may_not_is_told_to_whoever_proves_to_be_it(whole: Whole) -> None:
    with connect(whole) as session:
        session.execute("CREATE ROLE quiet NOLOGIN PASSWORD 'x'")
        session.execute("CREATE ROLE late LOGIN PASSWORD 'x' VALID UNTIL '2001-01-01'")
        session.execute("CREATE ROLE few LOGIN PASSWORD 'x' CONNECTION LIMIT 1")
        session.execute("SET password_encryption = md5")
        session.execute("CREATE ROLE old LOGIN PASSWORD 'x'")
    whole.run("stop", "app")
    for role, words in (
        ("quiet", 'role "quiet" is not permitted to log in'),
        ("late", 'the password of role "late" has expired'),
        ("old", "is kept as an md5 hash"),
    ):
        assert words in refusal(whole, user=role, password="x")
    assert "password authentication failed" in refusal(whole, user="quiet", password="wrong")
    assert state(whole) == "stopped", "none of them wakes it"
    with connect(whole, user="few", password="x"):
        assert "too many connections for role" in refusal(whole, user="few", password="x")


def test_strangers_hear_the_same_in_the_same_time_and_wake_nobody(whole: Whole) -> None:
    whole.run("stop", "app")
    strangers: dict[str, dict[str, Any]] = {
        "wrong password": {"password": "wrong"},
        "no such role": {"user": "nobody", "password": "x"},
        "no such database": {"database": "nothing", "password": "x"},
    }

    def typical() -> dict[str, float]:
        took: dict[str, list[float]] = {name: [] for name in strangers}
        for _ in range(15):
            for name, facts in strangers.items():
                began = time.perf_counter()
                words = refusal(whole, **facts)
                took[name].append(time.perf_counter() - began)
                user = facts.get("user", "postgres")
                assert f'password authentication failed for user "{user}"' in words
        return {name: statistics.median(times) for name, times in took.items()}

    # Who else is busy on the machine makes one round unequal, and not each of several.
    rounds = (typical().values() for _ in range(5))
    assert any(max(times) < 1.5 * min(times) for times in rounds)
    assert state(whole) == "stopped"


def test_200_who_come_at_once_to_a_sleeping_database_start_it_once(whole: Whole) -> None:
    with connect(whole) as session:
        session.execute("ALTER SYSTEM SET max_connections = 300")
    whole.run("stop", "app")

    def query(number: int) -> tuple[int, float]:
        with connect(whole) as session:
            row = session.execute("SELECT %s::int, pg_postmaster_start_time()", [number])
            found = row.fetchone()
            assert found is not None
            return found[0], found[1].timestamp()

    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(query, range(200)))
    assert [number for number, _ in found] == list(range(200))
    assert len({started for _, started in found}) == 1, "one start"


@pytest.mark.parametrize("part", ["control", "pageserver", "safekeeper"])
def test_a_part_that_is_killed_loses_no_connection(whole: Whole, part: str) -> None:
    with connect(whole) as session:
        session.execute("CREATE TABLE IF NOT EXISTS kept (part text)")
        whole.kill(part)
        session.execute("INSERT INTO kept VALUES (%s)", [part])
        # A login, too, waits for what is away.
        with connect(whole) as other:
            assert other.execute("SELECT count(*) FROM kept WHERE part = %s", [part]).fetchone()
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_who_has_come_before_comes_in_while_there_is_no_control_plane(whole: Whole) -> None:
    with connect(whole):
        pass
    supervisor = whole.installation.running_supervisor()
    assert supervisor is not None
    os.kill(supervisor, signal.SIGSTOP)
    try:
        whole.kill("control")
        with connect(whole) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
        assert "the control plane, which would know of another, is away" in (
            refusal(whole, password="wrong")
        )
    finally:
        os.kill(supervisor, signal.SIGCONT)
    patiently(lambda: whole.run("show", "app"))


def test_a_proxy_that_is_killed_loses_no_compute(whole: Whole) -> None:
    with connect(whole) as session:
        started = session.execute("SELECT pg_postmaster_start_time()").fetchone()
        whole.kill("proxy")
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")

    def again() -> object:
        with connect(whole) as session:
            return session.execute("SELECT pg_postmaster_start_time()").fetchone()

    assert patiently(again) == started


def test_what_a_database_costs_is_counted_once_whatever_is_killed(whole: Whole) -> None:
    whole.run("create", "counted", "--if-not-exists")
    url = whole.json("url", "counted")["url"]

    def used() -> dict[str, Any]:
        found: dict[str, Any] = whole.json("usage", "counted")["databases"][0]
        return found

    patiently(lambda: whole.run("usage", "counted"))
    asked = used()["queries"]
    with psycopg.connect(url, autocommit=True) as session:
        for _ in range(7):
            session.execute("SELECT sum(i) FROM generate_series(1, 300000) AS i")
        for part in ("control", "compute"):
            whole.kill(part)
        session.execute("SELECT 1")
        wait_until(lambda: patiently(used)["queries"] == asked + 8)
    before = used()
    assert before["awake_seconds"] > 0
    whole.run("stop", "counted")
    stopped = used()
    assert stopped["cpu_seconds"] > 0.1
    assert stopped["awake_seconds"] >= before["awake_seconds"]
    assert stopped["own_bytes"] > 0
    whole.kill("control")
    assert patiently(used) == stopped
    with psycopg.connect(url):
        whole.run("rm", "counted")
    gone = used()
    assert gone["removed"]
    assert gone["wakes"] == stopped["wakes"] + 1
    rows = csv.DictReader(io.StringIO(whole.run("usage", "--csv").stdout))
    assert {"app", "counted"} <= {row["name"] for row in rows}
    (tenant,) = whole.json("usage", "--all-tenants")["tenants"]
    assert tenant["queries"] >= gone["queries"]


def test_a_compute_that_is_killed_comes_back_with_the_next_query(whole: Whole) -> None:
    with connect(whole) as session:
        session.execute("CREATE TABLE survivors AS SELECT 1 AS a")
        crash(whole)
        with contextlib.suppress(psycopg.OperationalError):
            session.execute("SELECT 1")
    with connect(whole) as session:
        assert session.execute("SELECT a FROM survivors").fetchone() == (1,)


def test_nobody_is_woken_for_a_database_inside_that_there_is_not(whole: Whole) -> None:
    with connect(whole) as session:
        session.execute('CREATE DATABASE "made late"')
        session.execute("CREATE DATABASE dropped")
        session.execute("DROP DATABASE dropped")
    whole.run("checkpoint", "app", "two-inside")
    with connect(whole) as session:
        session.execute('ALTER DATABASE "made late" RENAME TO "renamed"')
    whole.run("stop", "app")
    for name in ("nothing", "dropped", "made late", "dropped@two-inside"):
        inner = name.partition("@")[0]
        told = refusal(whole, database=f"app/{name}")
        assert f'database "{inner}" does not exist inside' in told
        assert "CREATE DATABASE" in told
    assert state(whole) == "stopped"
    for inner, at in (("renamed", ""), ("made late", "@two-inside")):
        with connect(whole, f"app/{inner}{at}") as session:
            assert session.execute("SELECT current_database()").fetchone() == (inner,)
