"""SQL on a database, with an answer that is bounded however large the result is.

A text that writes may hold several statements; they are one transaction, as Postgres does it with a
simple query. One that only reads is one statement, in a transaction that is read-only and has seen
something already: by Postgres's own rules nothing that one statement can say makes that one write.
Rows are taken from the socket one by one, so that those beyond the bounds cost no memory.
Values are what JSON has where that is exact: whole numbers, truth values, JSON itself; all else is
Postgres's own text for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.errors import error_from_result

from pagestore.errors import DeadlineExceeded, FailedPrecondition, Unavailable

MOST_ROWS = 1000
MOST_BYTES = 256 << 10
"""Of an answer's values, in UTF-8."""
MOST_CELL_BYTES = 32 << 10
"""Of one value; a longer one is cut, and said to be."""
EXACT = 1 << 53
"""Up to here every JSON reader has a whole number exactly; beyond it is told as text."""
CONNECT_SECONDS = 60.0
_WHOLE = frozenset({20, 21, 23, 26})
_TRUTH, _JSON, _JSONB = 16, 114, 3802
_ROWS = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.SINGLE_TUPLE})
_COPIES = frozenset({pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})


READ_ONLY = (
    "SET synchronize_seqscans = off",
    "SET max_parallel_workers_per_gather = 0",
    "BEGIN READ ONLY",
    "SELECT 1",
)
"""By the first two the same statement gives the same rows in the same order, at the same moment."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of an answer. `skip` rows come first that are left out."""

    rows: int = 100
    bytes: int = MOST_BYTES
    skip: int = 0


@dataclass
class Ran:
    """What SQL did.

    Args:
        statements: what each of them said, such as "INSERT 0 3".
        columns: of the last statement that has rows, as `rows`.
        more: there are more rows than these.
        cut: values were longer than MOST_CELL_BYTES.
    """

    statements: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    more: bool = False
    cut: bool = False


async def run(
    url: str,
    text: str,
    *,
    seconds: float,
    bounds: Bounds,
    read_only: bool = False,
    application: str = "pagestore",
) -> Ran:
    """Runs it on the database at `url`.

    Args:
        seconds: after which Postgres gives up.
        application: who asks, as Postgres shows it.
        read_only: it is one statement, and of its rows those behind the last that is told are not
            waited for. Else it is carried out to its end, however many rows there are.

    Raises:
        FailedPrecondition: SQL_FAILED, with Postgres's words. DeadlineExceeded: SQL_TOO_SLOW.
        Unavailable: NO_CONNECTION.
    """
    async with _connected(url, application) as connection:
        begin = READ_ONLY if read_only else ()
        for statement in (f"SET statement_timeout = {int(seconds * 1000)}", *begin):
            await connection.execute(statement.encode())
        try:
            return await _Running(connection, bounds, read_only).run(text)
        except psycopg.Error as error:
            raise _failed(error, seconds) from error


@contextlib.asynccontextmanager
async def _connected(url: str, application: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await psycopg.AsyncConnection.connect(
                url, autocommit=True, application_name=application
            )
    except (psycopg.Error, TimeoutError) as error:
        words = str(error).strip().splitlines()
        raise Unavailable(
            "NO_CONNECTION", words[-1] if words else "no connection in time"
        ) from error
    try:
        yield connection
    finally:
        await connection.close()


class _Running:
    def __init__(
        self, connection: psycopg.AsyncConnection[Any], bounds: Bounds, read_only: bool
    ) -> None:
        self._connection = connection
        self._read_only = read_only
        self._bounds = bounds
        self._made = Ran()
        self._begin()

    def _begin(self) -> None:
        """Of the next statement that has rows."""
        self._seen = self._bytes = 0

    async def run(self, text: str) -> Ran:
        pgconn = self._connection.pgconn
        if self._read_only:
            pgconn.send_query_params(text.encode(), None)  # takes one statement
        else:
            pgconn.send_query(text.encode())
        pgconn.set_single_row_mode()
        await self._connection.wait(generators.send(pgconn))
        while (result := await self._connection.wait(generators.fetch(pgconn))) is not None:
            status = pq.ExecStatus(result.status)
            if status in _COPIES:
                raise FailedPrecondition(
                    "COPY_REFUSED",
                    "COPY to or from the client has nowhere to go here.",
                    "SELECT and INSERT do the same.",
                )
            if status == pq.ExecStatus.FATAL_ERROR:
                raise error_from_result(result)
            if status in _ROWS:
                self._take(result)
            if status != pq.ExecStatus.SINGLE_TUPLE and result.command_status:
                self._made.statements.append(result.command_status.decode())
                self._begin()
            if self._made.more and self._read_only:
                with contextlib.suppress(psycopg.Error):
                    await self._connection.cancel_safe(timeout=5.0)
                break
        return self._made

    def _take(self, result: pq.abc.PGresult) -> None:
        if self._seen == 0:
            names = (result.fname(number) for number in range(result.nfields))
            self._made.columns = [(name or b"").decode() for name in names]
            self._made.rows, self._made.more = [], False
        for row in range(result.ntuples):
            self._seen += 1
            if self._seen <= self._bounds.skip or self._made.more:
                continue
            self._keep([self._value(result, row, column) for column in range(result.nfields)])

    def _keep(self, row: list[Any]) -> None:
        size = len(json.dumps(row, ensure_ascii=False).encode())
        full = len(self._made.rows) >= self._bounds.rows
        # One row is told whatever its size: each value is bounded.
        if full or (self._made.rows and self._bytes + size > self._bounds.bytes):
            self._made.more = True
            return
        self._bytes += size
        self._made.rows.append(row)

    def _value(self, result: pq.abc.PGresult, row: int, column: int) -> Any:
        raw = result.get_value(row, column)
        if raw is None:
            return None
        kind = result.ftype(column)
        if len(raw) > MOST_CELL_BYTES:
            self._made.cut = True
            return raw[:MOST_CELL_BYTES].decode(errors="ignore") + "…"
        text = raw.decode()
        if kind in _WHOLE:
            number = int(text)
            return number if abs(number) <= EXACT else text
        if kind == _TRUTH:
            return text == "t"
        return json.loads(text) if kind in (_JSON, _JSONB) else text


def _failed(error: psycopg.Error, seconds: float) -> Exception:
    said = error.diag
    words = said.message_primary or str(error).strip() or "The connection ended."
    if error.sqlstate == "57014":
        return DeadlineExceeded(
            "SQL_TOO_SLOW", f"It took longer than {seconds:g} s: {words}.", "Give it more seconds."
        )
    where = f" at character {said.statement_position}" if said.statement_position else ""
    detail = f" {said.message_detail}" if said.message_detail else ""
    hint = said.message_hint or ""
    if error.sqlstate == "25006":
        hint = "This was read-only. With read_only=false it runs on the database itself."
    if error.sqlstate == "42601" and "multiple commands" in words:
        hint = "What only reads is one statement; with read_only=false there may be several."
    return FailedPrecondition("SQL_FAILED", f"{words} ({error.sqlstate}){where}.{detail}", hint)
