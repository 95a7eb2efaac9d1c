"""Reads that are started and complete later: each io_method of Postgres 18 and newer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from tests.integration.page_source import HydratingPostgres, PageSource, hydrating, serving
from tests.plain_postgres import MAJOR, PlainPostgres, plain_postgres
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(MAJOR < 18, reason=f"Postgres {MAJOR} has one way to read")

TABLES = """
CREATE TABLE t AS SELECT g AS id, repeat('x', 300) AS pad FROM generate_series(1, 20000) g;
CREATE INDEX t_id ON t (id);
"""
SUM = "SELECT sum(id), count(*) FROM t WHERE pad <> ''"
WHOLE = [(200010000, 20000)]
METHODS = ["worker", "sync", "io_uring"]
ENDED_SECONDS = 5


@pytest.fixture(scope="module")
def source() -> Iterator[PlainPostgres]:
    with plain_postgres("--wal-segsize=1", autovacuum="off") as cluster:
        cluster.sql(TABLES)
        cluster.sql("VACUUM ANALYZE")
        cluster.stop()
        yield cluster


@pytest.fixture(scope="module")
def pages(source: PlainPostgres) -> Iterator[PageSource]:
    with serving(source) as server:
        yield server


@contextmanager
def reading(
    source: PlainPostgres, pages: PageSource, method: str, **settings: object
) -> Iterator[HydratingPostgres]:
    settings |= {"io_method": method, "shared_buffers": "1MB", "autovacuum": "off"}
    with hydrating(source, pages, **settings) as compute:
        assert compute.sql("SHOW io_method") == [(method,)]
        yield compute


@pytest.mark.parametrize("method", METHODS)
def test_blocks_are_here_before_their_read_is_started(
    source: PlainPostgres, pages: PageSource, method: str
) -> None:
    """More of them than there are buffers, by scans of several kinds and sizes."""
    with reading(source, pages, method, io_combine_limit="64kB") as compute:
        assert compute.sql("SELECT id FROM t WHERE id % 911 = 7 AND id < 2000 ORDER BY 1") == [
            (7,),
            (918,),
            (1829,),
        ]
        assert compute.sql(SUM) == WHOLE
        compute.sql("UPDATE t SET pad = pad || 'y' WHERE id % 3 = 0")
        assert compute.sql(f"SET enable_seqscan = off; {SUM}") == WHOLE
        compute.sql("CREATE EXTENSION amcheck; SELECT bt_index_check('t_id', true)")


@pytest.mark.parametrize("how", ["cancel", "terminate"])
@pytest.mark.parametrize("method", METHODS)
def test_a_read_that_waits_ends_at_once(
    source: PlainPostgres, pages: PageSource, method: str, how: str
) -> None:
    """Nothing inside the storage manager can be interrupted there but by ourselves."""
    with reading(source, pages, method) as compute:
        with compute.connect() as other, compute.connect() as reader, ThreadPoolExecutor(1) as pool:
            # What the two calls of functions need is here before the page server is silent.
            other.execute("SELECT pg_cancel_backend(0), pg_terminate_backend(0)")
            process = reader.info.backend_pid
            pages.gate.clear()
            result = pool.submit(reader.execute, SUM)
            wait_until(lambda: any(" SELECT" in title for title in compute.process_titles()))
            time.sleep(0.2)
            assert not result.done()
            began = time.monotonic()
            other.execute(f"SELECT pg_{how}_backend({process})".encode())
            with pytest.raises(psycopg.OperationalError):
                result.result(30)
            assert time.monotonic() - began < ENDED_SECONDS
            pages.gate.set()
        assert compute.sql(SUM) == WHOLE
