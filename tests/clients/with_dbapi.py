"""SQLAlchemy's pool over psycopg, and pg8000, which speaks the protocol in Python alone."""

from __future__ import annotations

import io
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pg8000.native
import psycopg
import pytest
import sqlalchemy as sa

from tests.clients.client import CHANNEL, LARGE, ROWS, SESSIONS, WORK_MEM, Door


class SqlAlchemy:
    """`pool_pre_ping` is not used: whoever comes back finds its session without it."""

    def __init__(self, door: Door) -> None:
        self._engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(door.libpq(), prepare_threshold=0),
            pool_size=SESSIONS,
            max_overflow=0,
        )
        self._listener = psycopg.connect(door.libpq(), autocommit=True)
        self._lost = 0
        sa.event.listen(self._engine, "invalidate", self._count)

    def _count(self, *_: Any) -> None:
        self._lost += 1

    @contextmanager
    def _all(self) -> Iterator[list[sa.Connection]]:
        with ExitStack() as stack:
            yield [stack.enter_context(self._engine.connect()) for _ in range(SESSIONS)]

    def exercise(self) -> None:
        facts = sa.MetaData()
        table = sa.Table(
            "alchemy",
            facts,
            sa.Column("a", sa.Integer, primary_key=True),
            sa.Column("b", sa.Text),
        )
        facts.create_all(self._engine)
        with self._engine.begin() as session:
            session.execute(sa.insert(table), [{"a": n, "b": "x"} for n in range(2000)])
        with self._engine.connect() as session:
            assert session.scalar(sa.select(sa.func.count()).select_from(table)) == 2000
            rows = session.execution_options(yield_per=100).execute(sa.select(table))
            assert sum(1 for _ in rows) == 2000
        facts.drop_all(self._engine)

    def settle(self) -> None:
        with self._all() as sessions:
            for session in sessions:
                session.execute(sa.text(f"SET work_mem = '{WORK_MEM}'"))
                session.execute(sa.text("SELECT CAST(:n AS int) + 1"), {"n": 1})
                session.commit()
        self._listener.execute(f"LISTEN {CHANNEL}")

    def check(self) -> None:
        with self._all() as sessions:
            for session in sessions:
                assert session.scalar(sa.text("SELECT CAST(:n AS int) + 1"), {"n": 41}) == 42
                assert session.scalar(sa.text("SHOW work_mem")) == WORK_MEM
        assert self._lost == 0

    def heard(self) -> list[str]:
        found = [notify.payload for notify in self._listener.notifies(timeout=10, stop_after=1)]
        assert found, "nothing was notified"
        return found

    def close(self) -> None:
        self._listener.close()
        self._engine.dispose()


class Pg8000:
    def __init__(self, door: Door) -> None:
        context = None
        if door.certificate is not None:
            context = ssl.create_default_context(cafile=str(door.certificate))
        self._session = pg8000.native.Connection(
            door.user,
            host=door.host,
            port=door.port,
            password=door.password,
            database=door.database,
            ssl_context=context if context is not None else False,
        )

    def exercise(self) -> None:
        session = self._session
        assert session.run("SELECT 1") == [[1]]
        assert session.run("SELECT CAST(:a AS int) + 1", a=41) == [[42]]
        session.run("CREATE TABLE pure_rows (a int, b text)")
        lines = io.StringIO("".join(f"{number}\t{'x' * 40}\n" for number in range(ROWS)))
        session.run("COPY pure_rows FROM STDIN", stream=lines)
        copied = io.BytesIO()
        session.run("COPY pure_rows TO STDOUT", stream=copied)
        assert copied.getvalue().count(b"\n") == ROWS
        session.run("DROP TABLE pure_rows")
        assert len(session.run(f"SELECT repeat('z', {LARGE})")[0][0]) == LARGE
        with pytest.raises(pg8000.native.DatabaseError, match="division by zero"):
            session.run("SELECT 1 / 0")

    def settle(self) -> None:
        self._session.run(f"SET work_mem = '{WORK_MEM}'")
        self._statement = self._session.prepare("SELECT CAST(:a AS int) + 1")
        assert self._statement.run(a=1) == [[2]]
        self._session.run(f"LISTEN {CHANNEL}")

    def check(self) -> None:
        assert self._statement.run(a=41) == [[42]]
        assert self._session.run("SHOW work_mem") == [[WORK_MEM]]

    def heard(self) -> list[str]:
        self._session.run("SELECT 1")  # it reads only what follows a question
        found = [payload for _, _, payload in self._session.notifications]
        assert found, "nothing was notified"
        self._session.notifications.clear()
        return found

    def close(self) -> None:
        self._session.close()
