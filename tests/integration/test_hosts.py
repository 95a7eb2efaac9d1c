"""Parts that were started one by one, each on a host of its own, are a working installation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pagestore.compute.certificate import make_certificate
from pagestore.compute.record import ComputeRecord, running_computes
from pagestore.postgres.wal_role import WAL_ROLE
from tests import access
from tests.integration.installation import patiently, sql
from tests.integration.spread import Spread, spread_pagestore
from tests.waiting import wait_until


@pytest.fixture(scope="module", params=[1, 3])
def spread(request: pytest.FixtureRequest) -> Iterator[Spread]:
    with spread_pagestore(request.param) as hosts:
        hosts.start()
        hosts.run("create", "app")
        yield hosts


def ask(spread: Spread, name: str, statement: str) -> list[tuple[Any, ...]]:
    """Over the URL, from the clients' host."""
    url = spread.run("url", name)["url"]
    return spread.client.run(lambda: patiently(lambda: sql(url, statement)))


def record_of(spread: Spread, name: str) -> ComputeRecord:
    pid = spread.run("show", name)["compute_pid"]
    [record] = [item for item in running_computes(spread.root / "computes") if item.pid == pid]
    return record


def test_the_verbs_work(spread: Spread) -> None:
    assert f"@{spread.control.host.address}:" in spread.run("url", "app")["url"]
    ask(spread, "app", "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
    spread.run("checkpoint", "app", "full")
    ask(spread, "app", "DELETE FROM t WHERE id > 10")
    spread.run("branch", "app", "try")
    ask(spread, "try", "INSERT INTO t VALUES (0)")
    assert ask(spread, "try", "SELECT count(*) FROM t") == [(11,)]
    spread.run("restore", "app", "full")
    assert ask(spread, "app", "SELECT count(*) FROM t") == [(1000,)]
    spread.run("undo", "app")
    assert ask(spread, "app", "SELECT count(*) FROM t") == [(10,)]
    spread.run("stop", "app")
    spread.run("start", "app")
    assert ask(spread, "app", "SELECT count(*) FROM t") == [(10,)]


def test_wal_between_hosts_is_encrypted_and_refused_without(spread: Spread) -> None:
    ask(spread, "app", "CREATE TABLE IF NOT EXISTS w (id int)")
    record = record_of(spread, "app")
    words: dict[str, Any] = {
        "host": record.host,
        "port": record.port,
        "user": WAL_ROLE,
        "password": record.wal_password,
        "replication": "true",
    }
    for host in (spread.client, spread.control.host):
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba.conf entry .* no encrypt"):
            host.run(lambda: psycopg.connect(**words, sslmode="disable"))
    streams = "SELECT bool_and(ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"
    assert ask(spread, "app", streams) == [(True, len(spread.safekeepers))]


def test_a_safekeeper_believes_no_certificate_but_the_computes(
    spread: Spread, tmp_path: Path
) -> None:
    """It is told another one's, says so, and is told the right one by who looks after it."""
    ask(spread, "app", "CREATE TABLE IF NOT EXISTS w (id int)")
    record = record_of(spread, "app")
    stranger = make_certificate(tmp_path, record.host, os.getegid())
    address = replace(record, certificate=stranger).signed_for_safekeepers(access.signer())
    complaint = safekeeper(spread, "mislead", record, str(record.term), address)
    assert "certificate verify failed" in complaint
    wait_until(lambda: safekeeper(spread, "follows", record) == "yes")
    ask(spread, "app", "INSERT INTO w VALUES (1)")


def safekeeper(spread: Spread, verb: str, record: ComputeRecord, *more: str) -> str:
    """What the first one answers, asked from the clients' host."""
    words = ("-m", "tests.integration.safekeeper_asked", verb, spread.safekeepers[1].listen)
    key = (str(record.tenant), str(record.timeline))
    done = subprocess.run(
        spread.client.command(sys.executable, *words, *key, *more),
        env=access.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip()
