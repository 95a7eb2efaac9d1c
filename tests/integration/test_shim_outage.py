"""A page server that is away, slow, or wrong: reads wait, can be cancelled, and say why."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest

from pagestore.v1 import page_pb2
from tests.integration.page_source import (
    Fork,
    HydratingPostgres,
    PageSource,
    fork_of,
    hydrating,
    serving,
)
from tests.plain_postgres import PlainPostgres, plain_postgres
from tests.waiting import stays, wait_until

TABLES = """
CREATE TABLE t AS SELECT g AS id, repeat('x', 300) AS pad FROM generate_series(1, 40000) g;
CREATE INDEX t_id ON t (id);
CREATE TABLE other AS SELECT generate_series(1, 10) AS id;
"""
COUNT = "SELECT count(*) FROM t WHERE pad <> ''"
UNAVAILABLE = 14
INTERNAL = 13
DATA_LOSS = 15


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


@pytest.fixture(autouse=True)
def _healthy(pages: PageSource) -> Iterator[None]:
    yield
    pages.refuse = lambda *_: None
    pages.mangle = lambda _: None
    pages.gate.set()
    if not pages.running:
        pages.start()


@pytest.fixture
def compute(source: PlainPostgres, pages: PageSource) -> Iterator[HydratingPostgres]:
    settings = {"max_parallel_workers_per_gather": 0, "autovacuum": "off"}
    with hydrating(source, pages, **settings) as cluster:
        cluster.sql("SELECT relname FROM pg_class JOIN pg_index ON indexrelid = oid")
        yield cluster


def test_a_restart_in_the_middle_of_a_scan_goes_unnoticed(
    compute: HydratingPostgres, pages: PageSource
) -> None:
    fork = fork_of(compute, "t")
    seen = threading.Event()

    def stall_on_the_fifth(rel: Fork, blocks: list[int]) -> None:
        if rel == fork and min(blocks) > 200 and not seen.is_set():
            pages.gate.clear()
            seen.set()

    pages.refuse = stall_on_the_fifth
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(compute.sql, COUNT)
        assert seen.wait(30)
        pages.stop()
        assert stays(lambda: not result.done(), 0.2)
        pages.gate.set()
        pages.start()
        assert result.result(30) == [(40000,)]


@pytest.mark.parametrize("away", ["stopped", "silent"])
def test_a_statement_timeout_ends_the_wait(
    compute: HydratingPostgres, pages: PageSource, away: str
) -> None:
    with compute.connect() as connection:
        connection.execute("SET statement_timeout = '300ms'")
        if away == "stopped":
            pages.stop()
        else:
            pages.gate.clear()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(COUNT)
        pages.gate.set()
        if away == "stopped":
            pages.start()
        connection.execute("SET statement_timeout = 0")
        assert connection.execute(COUNT).fetchall() == [(40000,)]


def test_a_cancel_ends_the_wait_of_a_write(compute: HydratingPostgres, pages: PageSource) -> None:
    with compute.connect() as connection, ThreadPoolExecutor(1) as pool:
        pages.gate.clear()
        result = pool.submit(connection.execute, "INSERT INTO t VALUES (20000, 'x')")
        wait_until(lambda: waiting_backends(compute) == 1)
        connection.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            result.result(30)
        pages.gate.set()
        connection.execute("INSERT INTO t VALUES (20000, 'x')")


def waiting_backends(compute: HydratingPostgres) -> int:
    """Counted outside the server, whose catalogs may be just what it waits for."""
    return sum(name.endswith("INSERT") for name in compute.process_titles())


def test_the_wait_ends_at_the_timeout_with_an_error_that_says_all(
    compute: HydratingPostgres, pages: PageSource
) -> None:
    with compute.connect() as connection:
        connection.execute("SET pagestore.timeout = '300ms'")
        pages.stop()
        with pytest.raises(psycopg.errors.IoError) as raised:
            connection.execute(COUNT)
        diagnostics = raised.value.diag
        message = diagnostics.message_primary or ""
        assert (
            f"page server {pages.address} could not be connected to: Connection refused" in message
        )
        assert 'block 0 of "base/' in message
        assert "pagestore.timeout" in (diagnostics.message_detail or "")
        assert "pagestore status" in (diagnostics.message_hint or "")
        pages.start()
        assert connection.execute(COUNT).fetchall() == [(40000,)]


def test_a_refused_block_fails_its_readers_only(
    compute: HydratingPostgres, pages: PageSource
) -> None:
    fork = fork_of(compute, "t")
    status = page_pb2.Status(code=DATA_LOSS, reason="LAYER_CORRUPT", message="layer 7, block 3")
    pages.refuse = lambda rel, blocks: status if rel == fork and 100 in blocks else None
    with compute.connect() as connection:
        with pytest.raises(psycopg.errors.DataCorrupted, match="LAYER_CORRUPT") as raised:
            connection.execute(COUNT)
        assert "block 100 of" in str(raised.value)
        assert raised.value.diag.message_detail == "layer 7, block 3"
        assert connection.execute("SELECT count(*) FROM other").fetchall() == [(10,)]
        before = "SELECT count(*) FROM t WHERE ctid < '(100,0)'"
        assert connection.execute(before).fetchall()[0][0] > 1000


def test_a_passing_refusal_is_retried(compute: HydratingPostgres, pages: PageSource) -> None:
    fork = fork_of(compute, "t")
    status = page_pb2.Status(code=UNAVAILABLE, reason="STARTING", message="not yet")
    refused: list[int] = []

    def refuse_some(rel: Fork, blocks: list[int]) -> page_pb2.Status | None:
        if rel == fork and len(refused) < 5:
            refused.append(blocks[0])
            return status
        return None

    pages.refuse = refuse_some
    assert compute.sql(COUNT) == [(40000,)]
    assert len(refused) == 5


def shorten(response: page_pb2.GetPagesResponse) -> None:
    response.pages[0] = response.pages[0][:-1]


def drop_a_page(response: page_pb2.GetPagesResponse) -> None:
    del response.pages[-1]


def confuse(response: page_pb2.GetPagesResponse) -> None:
    response.request_id += 1000


@pytest.mark.parametrize("fault", [shorten, drop_a_page, confuse])
def test_a_wrong_answer_is_never_stored(
    compute: HydratingPostgres,
    pages: PageSource,
    fault: Callable[[page_pb2.GetPagesResponse], None],
) -> None:
    fork = fork_of(compute, "t")
    mangled: list[int] = []

    def mangle(response: page_pb2.GetPagesResponse) -> None:
        if pages.requests[-1][0] == fork and len(mangled) < 3:
            fault(response)
            mangled.append(response.request_id)

    pages.mangle = mangle
    assert compute.sql(COUNT) == [(40000,)]
    assert len(mangled) == 3
    compute.sql("CREATE EXTENSION amcheck; SELECT bt_index_check('t_id', true)")
    compute.sql("DROP EXTENSION amcheck")


def test_late_answers_of_a_cancelled_statement_are_dropped(
    compute: HydratingPostgres, pages: PageSource
) -> None:
    with compute.connect() as connection:
        for _ in range(5):
            pages.gate.clear()
            connection.execute("SET statement_timeout = '50ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute(COUNT)
            pages.gate.set()
            connection.execute("SET statement_timeout = 0")
            assert connection.execute("SELECT count(*) FROM other").fetchall() == [(10,)]
        assert connection.execute(COUNT).fetchall() == [(40000,)]


class Stranger:
    """Answers every connection with the same bytes, whatever it is asked."""

    def __init__(self, port: int, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.recv(100)
                connection.sendall(self._answer)
                connection.settimeout(1)
                while connection.recv(65536):
                    pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
STRANGE_ANSWERS = {
    "nothing": b"",
    "http/1.1": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "noise": random.Random(7).randbytes(5000),
    "noise after settings": EMPTY_SETTINGS + random.Random(8).randbytes(5000),
    "data before headers": EMPTY_SETTINGS + b"\0\0\5\0\0\0\0\0\1" + bytes(5),
    "a huge frame": EMPTY_SETTINGS + b"\xff\xff\xff\0\0\0\0\0\1",
}


@pytest.mark.parametrize("answer", STRANGE_ANSWERS)
def test_a_stranger_at_the_address_is_survived(
    compute: HydratingPostgres, pages: PageSource, answer: str
) -> None:
    with compute.connect() as connection:
        pages.stop()
        stranger = Stranger(pages.port, STRANGE_ANSWERS[answer])
        try:
            connection.execute("SET pagestore.timeout = '200ms'")
            with pytest.raises(psycopg.errors.IoError, match=f"page server {pages.address} "):
                connection.execute(COUNT)
        finally:
            stranger.close()
        pages.start()
        connection.execute("SET pagestore.timeout = '60s'")
        assert connection.execute(COUNT).fetchall() == [(40000,)]


def test_another_service_at_the_address_is_named_at_once(
    compute: HydratingPostgres, pages: PageSource
) -> None:
    pages.stop()
    pages.method = "GetSomethingElse"
    pages.start()
    try:
        with pytest.raises(psycopg.errors.IoError, match="ended the call with gRPC status 12"):
            compute.sql(COUNT)
    finally:
        pages.stop()
        pages.method = "GetPages"
