"""psycopg 3: one session, its asynchronous one, and its pool."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import psycopg_pool

from tests.clients.client import CHANNEL, LARGE, ROWS, SESSIONS, WORK_MEM, Door

Session = psycopg.Connection[Any]


def exercise(session: Session) -> None:
    simple_and_extended(session)
    copies(session)
    large_results(session)
    large_objects(session)
    cancels(session)


def simple_and_extended(session: Session) -> None:
    simple = psycopg.ClientCursor(session)
    simple.execute("SELECT 1; SELECT 2")
    assert simple.fetchone() == (1,)
    assert simple.nextset()
    assert simple.fetchone() == (2,)
    many = session.execute("SELECT %s::int, %s::text, %b::bytea", (5, "ä", b"\0"), binary=True)
    assert many.fetchone() == (5, "ä", b"\0")
    try:
        session.execute("SELECT 1 / %s", (0,))
    except psycopg.errors.DivisionByZero:
        pass
    else:
        raise AssertionError("no error came")
    with session.pipeline():
        cursors = [session.execute("SELECT %s::int", (number,)) for number in range(200)]
    assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(200)]
    with session.transaction():
        session.execute("DECLARE c CURSOR FOR SELECT generate_series(1, 10)")
        assert session.execute("FETCH 3 FROM c").fetchall() == [(1,), (2,), (3,)]


def copies(session: Session) -> None:
    session.execute("DROP TABLE IF EXISTS psycopg_rows")
    session.execute("CREATE TABLE psycopg_rows (a int, b text)")
    with session.cursor().copy("COPY psycopg_rows FROM STDIN") as copy:
        for number in range(ROWS):
            copy.write_row((number, "x" * 40))
    with session.cursor().copy("COPY psycopg_rows TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        assert sum(1 for _ in copy.rows()) == ROWS
    try:
        with session.cursor().copy("COPY psycopg_rows FROM STDIN") as copy:
            copy.write_row((1, "y"))
            raise RuntimeError("a client that thinks better of it")
    except (RuntimeError, psycopg.errors.QueryCanceled):
        pass
    assert session.execute("SELECT count(*) FROM psycopg_rows").fetchone() == (ROWS,)
    session.execute("DROP TABLE psycopg_rows")


def large_results(session: Session) -> None:
    (text,) = session.execute("SELECT repeat('z', %s)", (LARGE,)).fetchone() or ("",)
    assert len(text) == LARGE
    rows = session.cursor().stream("SELECT generate_series(1, %s)", (ROWS,))
    assert sum(number for (number,) in rows) == ROWS * (ROWS + 1) // 2


def large_objects(session: Session) -> None:
    with session.transaction():
        (oid,) = session.execute("SELECT lo_from_bytea(0, %s)", (b"abc" * 1000,)).fetchone() or (0,)
        (fd,) = session.execute("SELECT lo_open(%s, 131072)", (oid,)).fetchone() or (0,)
        assert session.execute("SELECT loread(%s, 5)", (fd,)).fetchone() == (b"abcab",)
        session.execute("SELECT lo_unlink(%s)", (oid,))


def cancels(session: Session) -> None:
    threading.Timer(0.2, session.cancel_safe).start()
    try:
        session.execute("SELECT pg_sleep(60)")
    except psycopg.errors.QueryCanceled:
        assert session.execute("SELECT 1").fetchone() == (1,)
    else:
        raise AssertionError("it was not cancelled")


def settle(session: Session, *, listen: bool) -> None:
    session.execute(f"SET work_mem = '{WORK_MEM}'")
    session.execute("SELECT set_config('app.tenant', 'ann''s', false)")
    session.execute("SELECT %s::int + 1", (1,), prepare=True)
    if listen:
        session.execute(f"LISTEN {CHANNEL}")


def check(session: Session) -> None:
    assert session.execute("SELECT %s::int + 1", (41,), prepare=True).fetchone() == (42,)
    assert session.execute("SHOW work_mem").fetchone() == (WORK_MEM,)
    assert session.execute("SHOW app.tenant").fetchone() == ("ann's",)


class OneSession:
    def __init__(self, door: Door) -> None:
        self._session: Session = psycopg.connect(door.libpq(), autocommit=True)

    def exercise(self) -> None:
        exercise(self._session)

    def settle(self) -> None:
        settle(self._session, listen=True)

    def check(self) -> None:
        check(self._session)

    def heard(self) -> list[str]:
        found = [notify.payload for notify in self._session.notifies(timeout=10, stop_after=1)]
        assert found, "nothing was notified"
        return found

    def close(self) -> None:
        self._session.close()


class Pool:
    """The pool's own sessions are settled; the channel has one that stays taken out."""

    def __init__(self, door: Door) -> None:
        self._pool = psycopg_pool.ConnectionPool(
            door.libpq(),
            min_size=SESSIONS + 1,
            kwargs={"autocommit": True},
            check=psycopg_pool.ConnectionPool.check_connection,
            open=True,
        )
        self._pool.wait()
        self._listener: Session = self._pool.getconn()

    @contextmanager
    def _all(self) -> Iterator[list[Session]]:
        with ExitStack() as stack:
            yield [stack.enter_context(self._pool.connection()) for _ in range(SESSIONS)]

    def exercise(self) -> None:
        with self._pool.connection() as session:
            simple_and_extended(session)

    def settle(self) -> None:
        with self._all() as sessions:
            for session in sessions:
                settle(session, listen=False)
        self._listener.execute(f"LISTEN {CHANNEL}")

    def check(self) -> None:
        with self._all() as sessions:
            for session in sessions:
                check(session)
        assert self._pool.get_stats().get("connections_lost", 0) == 0

    def heard(self) -> list[str]:
        found = [notify.payload for notify in self._listener.notifies(timeout=10, stop_after=1)]
        assert found, "nothing was notified"
        return found

    def close(self) -> None:
        self._pool.putconn(self._listener)
        self._pool.close()


class Asynchronous:
    def __init__(self, door: Door) -> None:
        self._runner = asyncio.Runner()
        self._session = self._runner.run(
            psycopg.AsyncConnection.connect(door.libpq(), autocommit=True)
        )

    def exercise(self) -> None:
        self._runner.run(self._exercise())

    async def _exercise(self) -> None:
        session = self._session
        async with session.pipeline():
            cursors = [await session.execute("SELECT %s::int", (number,)) for number in range(50)]
        assert [await cursor.fetchone() for cursor in cursors] == [(n,) for n in range(50)]
        await session.execute("CREATE TABLE async_rows (a int)")
        async with session.cursor().copy("COPY async_rows FROM STDIN") as copy:
            for number in range(ROWS):
                await copy.write_row((number,))
        async with session.cursor().copy("COPY async_rows TO STDOUT") as copy:
            assert len([row async for row in copy.rows()]) == ROWS
        await session.execute("DROP TABLE async_rows")
        sleeping = asyncio.ensure_future(session.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.2)
        await session.cancel_safe()
        try:
            await sleeping
        except psycopg.errors.QueryCanceled:
            return
        raise AssertionError("it was not cancelled")

    def settle(self) -> None:
        self._runner.run(self._settle())

    async def _settle(self) -> None:
        await self._session.execute(f"SET work_mem = '{WORK_MEM}'")
        await self._session.execute("SELECT %s::int + 1", (1,), prepare=True)
        await self._session.execute(f"LISTEN {CHANNEL}")

    def check(self) -> None:
        self._runner.run(self._check())

    async def _check(self) -> None:
        found = await self._session.execute("SELECT %s::int + 1", (41,), prepare=True)
        assert await found.fetchone() == (42,)
        assert await (await self._session.execute("SHOW work_mem")).fetchone() == (WORK_MEM,)

    def heard(self) -> list[str]:
        found = self._runner.run(self._heard())
        assert found, "nothing was notified"
        return found

    async def _heard(self) -> list[str]:
        return [notify.payload async for notify in self._session.notifies(timeout=10, stop_after=1)]

    def close(self) -> None:
        self._runner.run(self._session.close())
        self._runner.close()
