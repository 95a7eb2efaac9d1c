"""A page server process that is frozen (SIGSTOP): it takes connections, and never answers.

That is the hardest kind of being away: nothing is refused and nothing is closed, so only a clock
tells. A cold query says so within pagestore.timeout, gives way to a cancel at once, and works
again when the page server does.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from pagestore.ids import DEFAULT_TENANT
from tests import access
from tests.integration.imported import Imported, imported
from tests.integration.page_source import HydratingPostgres, hydrating
from tests.waiting import stays, wait_until

TABLES = """
CREATE TABLE t AS SELECT g AS id, repeat('x', 300) AS pad FROM generate_series(1, 40000) g;
CREATE INDEX t_id ON t (id);
CREATE TABLE warm AS SELECT generate_series(1, 10) AS id;
"""
COUNT = "SELECT count(*) FROM t WHERE pad <> ''"
TIMEOUT, SLACK = 2.0, 2.0
"""Seconds: pagestore.timeout, and what a busy machine may add to it."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    with imported(tmp_path_factory.mktemp("frozen"), setup=TABLES, start=False) as made:
        yield made


@pytest.fixture(scope="module")
def token() -> Iterator[Path]:
    """Readable by a server's user."""
    with tempfile.NamedTemporaryFile("w", prefix="ps-token-") as file:
        file.write(access.signer().of_operator(time.time()))
        file.flush()
        if os.geteuid() == 0:
            shutil.chown(file.name, "postgres")
        yield Path(file.name)


@pytest.fixture
def compute(store: Imported, token: Path) -> Iterator[HydratingPostgres]:
    pages: Any = SimpleNamespace(address=store.pages.address, lsn=store.import_lsn)
    ids = {
        "pagestore.tenant_id": str(DEFAULT_TENANT),
        "pagestore.timeline_id": str(store.timeline),
        "pagestore.token_file": str(token),
    }
    settings = {"pagestore.timeout": f"{TIMEOUT:.0f}s", "autovacuum": "off"}
    with hydrating(store.cluster, pages, **ids, **settings) as cluster:
        cluster.sql("SELECT relname FROM pg_class JOIN pg_index ON indexrelid = oid")
        cluster.sql("SELECT * FROM warm")
        yield cluster


@contextmanager
def frozen(store: Imported) -> Iterator[None]:
    os.kill(store.pages.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pages.pid, signal.SIGCONT)


STATEMENTS = {
    "a scan": COUNT,
    "a parallel scan": f"SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; {COUNT}",
    "an index scan": "SET enable_seqscan = off; SELECT * FROM t WHERE id = 20000",
    "an insert": "INSERT INTO t VALUES (20000, 'x')",
    "a vacuum": "VACUUM t",
}


@pytest.mark.parametrize("what", STATEMENTS)
def test_a_cold_statement_says_so_within_its_deadline(
    store: Imported, compute: HydratingPostgres, what: str
) -> None:
    with compute.connect() as connection:
        assert connection.execute("SELECT count(*) FROM warm").fetchall() == [(10,)]
        with frozen(store):
            begun = time.monotonic()
            with pytest.raises(psycopg.errors.IoError) as raised:
                connection.execute(STATEMENTS[what])
            assert TIMEOUT <= time.monotonic() - begun < TIMEOUT + SLACK
            message = raised.value.diag.message_primary or ""
            assert f"page server {store.pages.address} did not answer in time" in message
            assert "2000 ms (pagestore.timeout)" in (raised.value.diag.message_detail or "")
            assert "pagestore status" in (raised.value.diag.message_hint or "")
            # What is here needs no page server.
            assert connection.execute("SELECT count(*) FROM warm").fetchall() == [(10,)]
        assert connection.execute(COUNT).fetchall() == [(40000,)]


@pytest.mark.parametrize("what", ["a scan", "an insert"])
def test_a_cancel_ends_the_wait_at_once(
    store: Imported, compute: HydratingPostgres, what: str
) -> None:
    with compute.connect() as connection, ThreadPoolExecutor(1) as threads:
        connection.execute("SET pagestore.timeout = '60s'")
        with frozen(store):
            statement = threads.submit(connection.execute, STATEMENTS[what])
            wait_until(lambda: at_work(compute))
            assert stays(lambda: not statement.done() and at_work(compute), 0.2)
            begun = time.monotonic()
            connection.cancel()
            with pytest.raises(psycopg.errors.QueryCanceled):
                statement.result(30)
            assert time.monotonic() - begun < 1.0
        assert connection.execute(COUNT).fetchall() == [(40000,)]


def at_work(compute: HydratingPostgres) -> bool:
    """Counted outside the server, whose catalogs may be just what it waits for."""
    return any(title.endswith(("SELECT", "INSERT")) for title in compute.process_titles())


def test_a_connection_to_a_database_that_was_never_read_is_refused_within_the_deadline(
    store: Imported, compute: HydratingPostgres
) -> None:
    with frozen(store):
        begun = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
            compute.connect("template1")
        assert time.monotonic() - begun < TIMEOUT + SLACK
    with compute.connect("template1") as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
