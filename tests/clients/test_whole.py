"""psql of several majors at a whole installation, as a user has it: the proxy, walls and sleep."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.clients.client import CHANNEL, Door
from tests.clients.debian_psql import psql_command
from tests.clients.with_psql import Psql
from tests.integration.installation import Whole, whole_pagestore
from tests.waiting import wait_until

MAJORS = [15, 17, 18]
DIRECT = 17
"""The first that speaks TLS without asking."""
NEWER_PROTOCOL = 18
"""The first that can ask for 3.2."""


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> Iterator[Whole]:
    if request.config.getoption("--clients") != "all":
        pytest.skip("did NOT run: needs --clients=all")
    shown = {
        "PAGESTORE_PROXY__CERTIFICATE": str(certificate[0]),
        "PAGESTORE_PROXY__KEY": str(certificate[1]),
    }
    with whole_pagestore(environment=shown) as running:
        running.json("create", "app")
        with running.connect("app") as session:
            session.execute("CREATE TABLE facts AS SELECT 1 AS a")
        running.run("checkpoint", "app", "start")
        yield running


@pytest.fixture
def door(whole: Whole) -> Door:
    words = conninfo_to_dict(whole.json("url", "app")["url"])
    return Door(
        int(str(words["port"])),
        user=str(words["user"]),
        password=str(words["password"]),
        database=str(words["dbname"]),
    )


@pytest.fixture(params=MAJORS)
def major(request: pytest.FixtureRequest, whole: Whole) -> int:
    psql_command(int(request.param))
    return int(request.param)


def said(major: int, conninfo: str, command: str) -> str:
    """By a psql that is started for it alone."""
    done = subprocess.run(
        [*psql_command(major), "-XAt", "-d", conninfo, "-c", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def notify(door: Door, payload: str) -> None:
    with psycopg.connect(door.libpq(), autocommit=True) as session:
        session.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


def test_it_wakes_a_database_that_sleeps(whole: Whole, door: Door, major: int) -> None:
    whole.run("stop", "app")
    assert said(major, door.libpq(), "SELECT count(*) FROM facts").strip() == "1"


def test_it_does_all_that_it_can_at_one_that_is_awake(door: Door, major: int) -> None:
    """Copies in and out, a cancelled query, large objects and values among it."""
    client = Psql(door, major)
    client.exercise()
    client.close()


def test_its_session_outlives_sleep_and_a_move(whole: Whole, door: Door, major: int) -> None:
    client = Psql(door, major)
    client.settle()
    for number, disturbed in enumerate((("stop", "app"), ("restore", "app", "start"))):
        whole.run(*disturbed)
        client.check()
        notify(door, f"told {number}")
        assert client.heard() == [f"told {number}"]
    with psycopg.connect(door.libpq(), autocommit=True) as session:
        session.execute("INSERT INTO facts VALUES (2)")
    assert whole.json("undo", "app")["changed"]
    client.check()
    client.close()


def test_it_binds_its_login_to_the_certificate(
    door: Door, major: int, certificate: tuple[Path, Path]
) -> None:
    asked = door.over_tls(certificate[0])
    assert "channel_binding='require'" in asked.libpq()
    assert "TLSv1." in said(major, asked.libpq(), "\\conninfo")
    if major >= DIRECT:
        direct = door.over_tls(certificate[0], direct=True)
        assert "TLSv1." in said(major, direct.libpq(), "\\conninfo")


def test_it_speaks_the_newer_protocol(whole: Whole, door: Door, major: int) -> None:
    if major < NEWER_PROTOCOL:
        pytest.skip(f"psql {major} speaks 3.0 alone")
    for version in ("3.0", "3.2"):
        told = said(major, door.libpq(max_protocol_version=version), "\\conninfo")
        assert f"Protocol Version|{version}" in told
    # A cancel's key is longer there.
    newer = door.libpq(min_protocol_version="3.2", max_protocol_version="3.2")
    query = "SELECT pg_sleep(61)"
    other = subprocess.Popen(
        [*psql_command(major), "-X", "-d", newer, "-c", query], stderr=subprocess.PIPE, text=True
    )
    running = f"SELECT 1 FROM pg_stat_activity WHERE query = '{query}'"
    wait_until(lambda: whole.sql("app", running))
    other.send_signal(signal.SIGINT)
    _, complaint = other.communicate(timeout=60)
    assert "canceling statement due to user request" in complaint
