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
_PIECE_BYTES = 1 << 18
"""That are read at a time, and about so many wait here; who writes more waits, too."""
_SETTINGS = (
    "SET client_encoding = 'UTF8'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres';"
    "SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex';"
    "SET search_path = ''; SET row_security = off; SET statement_timeout = 0;"
    "SET idle_in_transaction_session_timeout = 0;"
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT txid_current_if_assigned();"
)
"""The first query takes the snapshot that all others read."""


async def lines_of(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Each without its end; however long one is, since a row is one. What comes behind the last
    end is none, and what was read of the stream is lost with the iterator."""
    begun: list[bytes] = []
    while piece := await stream.read(_PIECE_BYTES):
        first, *others = piece.split(b"\n")
        begun.append(first)
        if not others:
            continue
        yield b"".join(begun).decode()
        begun = [others.pop()]
        for line in others:
            yield line.decode()


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
                limit=_PIECE_BYTES,
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
        async for line in lines_of(stdout):
            if line == _END:
                return
            yield line
        raise await self._failure()

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
        # asyncio calls a process ended once its pipes are, and one that is full is not read on.
        for stream in (self._process.stdout, self._process.stderr):
            while stream is not None and await stream.read(_PIECE_BYTES):
                pass
        await self._process.wait()
