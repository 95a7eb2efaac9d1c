"""A session of psql's, which stays open: it comes with Postgres, and speaks COPY."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Self

from pagestore.client.closing import Closing
from pagestore.client.urls import without_password
from pagestore.errors import FailedPrecondition, NotFound

_END = "--pagestore--"
_LINE_BYTES = 1 << 30
"""A row is a line."""
_SETTINGS = (
    "SET client_encoding = 'UTF8'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres';"
    "SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex';"
    "SET search_path = ''; SET row_security = off; SET statement_timeout = 0;"
    "SET idle_in_transaction_session_timeout = 0;"
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT txid_current_if_assigned();"
)
"""The first query takes the snapshot that all others read."""


class SqlSession(Closing):
    """All that it reads is as of one moment, and nothing is written."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    async def open(cls, name: str, url: str) -> Self:
        """
        Raises:
            NotFound: NO_PSQL. FailedPrecondition: SQL_FAILED: what psql said.
        """
        bare, secret = without_password(url)
        try:
            process = await asyncio.create_subprocess_exec(
                *("psql", bare, "-XAtq", "-v", "ON_ERROR_STOP=1"),
                env={**os.environ, **secret, "PGAPPNAME": "pagestore diff"},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES,
            )
        except FileNotFoundError as error:
            raise NotFound(
                "NO_PSQL", "There is no psql.", "It comes with the package postgresql-client."
            ) from error
        made = cls(name, process)
        try:
            await made.rows(_SETTINGS)
        except BaseException:
            await made.close()
            raise
        return made

    async def rows(self, sql: str) -> list[list[str]]:
        """Fields of a COPY's rows, NULL as ``\\N``, or columns of a query's, by tabs."""
        return [line.split("\t") async for line in self.lines(sql)]

    async def lines(self, sql: str) -> AsyncIterator[str]:
        """
        Raises:
            FailedPrecondition: SQL_FAILED.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(ConnectionError):
            stdin.write(f"{sql};\n\\echo {_END}\n".encode())
            await stdin.drain()
        while (line := (await stdout.readline()).decode().removesuffix("\n")) != _END:
            if stdout.at_eof() and not line:
                raise await self._failure()
            yield line

    async def _failure(self) -> FailedPrecondition:
        assert self._process.stderr is not None
        said = (await self._process.stderr.read()).decode(errors="replace").strip()
        return FailedPrecondition(
            "SQL_FAILED",
            f"{self.name}: {said.splitlines()[0]}"
            if said
            else f"The session at {self.name} has ended.",
        )

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
