"""Several attempts at one thing, each on a branch of its own, side by side.

All branches leave their parent at one point, so that outcomes can be compared; each command is told
where its database is by ``DATABASE_URL``. What it prints goes line by line to whoever watches, and
whole to a file. A command that outlives its time is ended with all that it
started. The branches stay, to be looked at and promoted, until their time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pagestore.client.points import lasting
from pagestore.client.urls import without_password
from pagestore.errors import InvalidInput, NotFound
from pagestore.ids import format_lsn
from pagestore.sdk.client import AsyncClient, AsyncDatabase
from pagestore.sdk.values import Facts, Ttl

MOST = 64
GRACE_SECONDS = 5.0
"""Between asking a command to end and killing it."""
_LOOK_SECONDS = 0.02
_LINE_BYTES = 1 << 20
# Less what catalogs and pieces of long values were changed by it, which nobody calls rows.
_CHANGED = """
SELECT greatest(0, (
    SELECT coalesce(sum(tup_inserted + tup_updated + tup_deleted), 0)
    FROM pg_catalog.pg_stat_database WHERE datname = pg_catalog.current_database()
) - (
    SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)
    FROM pg_catalog.pg_stat_sys_tables JOIN pg_catalog.pg_class ON pg_class.oid = relid
    WHERE NOT relisshared
))::bigint
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one attempt.

    Args:
        code: the command's exit code; negative: the signal that ended it; None: its time was over.
        rows_changed: inserted, updated and deleted; None where that could not be asked (it needs
            ``psql``, and the database).
        log: what the command printed.
    """

    database: str
    url: str
    code: int | None
    seconds: float
    log: Path
    rows_changed: int | None = None

    @property
    def succeeded(self) -> bool:
        return self.code == 0

    @property
    def words(self) -> str:
        if self.code is None:
            return "timed out"
        if self.code < 0:
            return f"ended by {signal.Signals(-self.code).name}"
        return "succeeded" if self.code == 0 else f"failed ({self.code})"


@dataclass(frozen=True, slots=True)
class Watcher:
    """Told of what goes on: of a line that a database's command printed, of an outcome."""

    line: Callable[[str, str], None] = lambda database, line: None
    done: Callable[[Outcome], None] = lambda outcome: None


async def attempt(
    client: AsyncClient,
    source: str,
    count: int,
    command: Sequence[str],
    logs: Path,
    *,
    stem: str = "try",
    at: str | datetime | None = None,
    ttl: Ttl = None,
    timeout: float | None = None,
    watcher: Watcher | None = None,
) -> list[Outcome]:
    """Runs a command on `count` branches of `source`.

    Args:
        logs: a directory for what the commands print.
        stem: the branches' names are this and a number, from the first free one on.
        timeout: seconds for each command.

    Raises:
        InvalidInput: INVALID_ATTEMPTS. NotFound: DATABASE_NOT_FOUND, NO_SUCH_COMMAND.
    """
    if not 1 <= count <= MOST or not command:
        raise InvalidInput("INVALID_ATTEMPTS", f"1 to {MOST} attempts at one command are possible.")
    if shutil.which(command[0]) is None:
        raise NotFound("NO_SUCH_COMMAND", f"There is no program {command[0]!r} to be run.")
    names = free_names(stem, count, [facts.name for facts in await client.databases()])
    if at is not None:
        at = lasting(at, (await client.resolve(source, at)).lsn)
    first = await client.branch(source, names[0], at=at, ttl=ttl)
    point = first.facts.branch_lsn if at is None else at
    made = [first]
    try:
        made += await asyncio.gather(
            *(_branched(client, source, name, point, ttl) for name in names[1:])
        )
        runs = (
            _run(client, database, number, command, logs, timeout, watcher or Watcher())
            for number, database in enumerate(made, 1)
        )
        return await asyncio.gather(*runs)
    except BaseException:
        # Of attempts that never came to an end nobody wants anything.
        for name in names:
            await client.remove(name, if_exists=True)
        raise


async def _branched(
    client: AsyncClient, source: str, name: str, point: str | None, ttl: Ttl
) -> AsyncDatabase:
    return await client.branch(source, name, at=point, ttl=ttl)


def free_names(stem: str, count: int, taken: Sequence[str]) -> list[str]:
    """`count` names with numbers that follow each other, above all that are taken."""
    used = [int(found[1]) for name in taken if (found := _numbered(stem).fullmatch(name))]
    first = max(used, default=0) + 1
    return [f"{stem}-{number}" for number in range(first, first + count)]


def siblings(chosen: str, databases: Sequence[Facts]) -> list[str]:
    """The attempts that were made with this one: numbered likewise, of the same parent at the same
    point. Itself is among them; none where it is no attempt."""
    stem, _, number = chosen.rpartition("-")
    mine = next((facts for facts in databases if facts.name == chosen), None)
    if mine is None or not mine.parent or not number.isdigit():
        return []
    return [
        facts.name
        for facts in databases
        if _numbered(stem).fullmatch(facts.name)
        and (facts.parent, facts.branch_lsn) == (mine.parent, mine.branch_lsn)
    ]


def _numbered(stem: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(stem)}-([0-9]+)")


async def _run(
    client: AsyncClient,
    database: AsyncDatabase,
    number: int,
    command: Sequence[str],
    logs: Path,
    timeout: float | None,
    watcher: Watcher,
) -> Outcome:
    log = logs / f"{database.name}.log"
    begun = time.monotonic()
    told = {
        **os.environ,
        "DATABASE_URL": database.url,
        "PAGESTORE_DATABASE": database.name,
        "PAGESTORE_ATTEMPT": str(number),
    }
    # With a pipe of its own making, asyncio takes a command as running until all that have the
    # pipe have ended, the command's children too.
    reading, writing = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=told,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
    finally:
        os.close(writing)
    copying = asyncio.create_task(_copy(reading, log, database.name, watcher))
    code: int | None = None
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                code = await process.wait()
        seconds = time.monotonic() - begun
    finally:
        await _end_all(process)
        await copying  # it ends with the last that could write
    outcome = Outcome(database.name, database.url, code, seconds, log)
    outcome = replace(outcome, rows_changed=await _rows_changed(client, database))
    watcher.done(outcome)
    return outcome


async def _copy(reading: int, log: Path, database: str, watcher: Watcher) -> None:
    stream = asyncio.StreamReader(limit=_LINE_BYTES)
    with log.open("wb") as file, os.fdopen(reading, "rb") as pipe:
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        while piece := await _line(stream):
            file.write(piece)
            file.flush()
            watcher.line(database, piece.decode(errors="replace").rstrip("\n"))


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next one, or as much of a longer one as fits."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


async def _end_all(process: asyncio.subprocess.Process) -> None:
    """Ends a command, and all that it has left behind in its group of processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            await asyncio.sleep(_LOOK_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _rows_changed(client: AsyncClient, database: AsyncDatabase) -> int | None:
    """Since it was branched, when a database's statistics begin anew. One whose log has not moved
    is not woken for it."""
    if format_lsn((await client.facts(database.name)).lsn) == database.facts.branch_lsn:
        return 0
    psql = shutil.which("psql")
    if psql is None:
        return None
    bare, secret = without_password(database.url)
    asking = await asyncio.create_subprocess_exec(
        *(psql, bare, "-XAtqc", _CHANGED),
        env={**os.environ, **secret},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    answer, _ = await asking.communicate()
    return int(answer) if asking.returncode == 0 and answer.strip().isdigit() else None
