"""Verbs on databases: create, branch, keep, ls, show, rename, rm, url, psql, start, stop."""

from __future__ import annotations

import getopt
import json
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote, urlencode

import typer

from pagestore.cli import completion
from pagestore.cli.session import (
    Data,
    Json,
    Name,
    checkpoint_fields,
    compute_state,
    database_fields,
    expires_at,
    human_bytes,
    point_message,
    session,
    short_time,
    size_fields,
    slot_fields,
    slot_words,
    time_left,
)
from pagestore.cli.settings import Set, pairs
from pagestore.client import durations
from pagestore.client.urls import past_url, without_password
from pagestore.errors import FailedPrecondition, InvalidInput, NotFound, PagestoreError
from pagestore.ids import format_lsn
from pagestore.postgres import majors

if TYPE_CHECKING:
    from pagestore.cli.session import Session
    from pagestore.v1 import control_pb2 as pb

_T = TypeVar("_T")
_RESCUE = "-c session_preload_libraries= -c local_preload_libraries= -c statement_timeout=0"
"""Of what was set for all roles: a library that is not there would keep every session from
starting, ours too, and a time that is too short would end each statement."""

At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="POINT",
        help="LSN (0/16B3748), time (2026-11-23T10:15, '10 minutes ago'), checkpoint, or head.",
    ),
]
Ttl = Annotated[
    str | None,
    typer.Option("--ttl", metavar="TIME", help="Remove it by itself after so long: 30m, 1h, 7d."),
]
IfNotExists = Annotated[
    bool, typer.Option("--if-not-exists", help="Succeed when it exists already.")
]


def create(
    name: Name,
    if_not_exists: IfNotExists = False,
    settings: Set = None,
    postgres: Annotated[
        int,
        typer.Option(
            min=0, max=999, metavar="MAJOR", help="Default: the newest that is installed."
        ),
    ] = 0,
    ttl: Ttl = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an empty database and print its URL.

    Example: pagestore create app --set wal_level=logical
    """
    with session(data, as_json) as run:
        database = run.control.create(
            name,
            if_not_exists=if_not_exists,
            settings=pairs(settings or []),
            major=postgres,
            ttl=time_to_live(ttl),
        )
        remark = f"created {database.name}" if database.created else f"{database.name} exists"
        run.answer(database_fields(database), database.url, remark)


def branch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="The database to branch.", autocompletion=completion.names
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new database.")],
    at: At = None,
    if_not_exists: IfNotExists = False,
    ttl: Ttl = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a database that begins as another one was at a point of its past.

    Its cost does not depend on the size of the source. Without --at the point is the last
    commit of now.

    Example: pagestore branch app try-2 --at before-migration --ttl 1h
    """
    with session(data, as_json) as run:
        database = run.control.branch(
            source,
            name,
            point_message(at),
            if_not_exists=if_not_exists,
            ttl=time_to_live(ttl),
        )
        where = format_lsn(database.branch_lsn)
        made = f"branched {source} at {where}" if database.created else f"{name} exists"
        run.answer(database_fields(database), database.url, made)


def keep(
    name: Name,
    ttl: Ttl = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Keep a database that was made for a time: for good, or for so long from now.

    Example: pagestore keep try-2 --ttl 2h
    """
    with session(data, as_json) as run:
        database = run.control.keep(name, time_to_live(ttl))
        left = time_left(database)
        words = f"{name} is removed in {left}" if left else f"{name} stays"
        run.answer({"name": name, "expires_at": expires_at(database)}, words)


def time_to_live(text: str | None) -> float | None:
    """
    Raises:
        InvalidInput: INVALID_TTL.
    """
    if text is None:
        return None
    found = durations.seconds(text)
    if found is None:
        raise InvalidInput("INVALID_TTL", f"{text!r} is no time as 30m, 1h or 7d.")
    return found


def ls(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and tell what changes as it does.")
    ] = False,
    sizes: Annotated[
        bool, typer.Option("--sizes", help="Also what they are, share, and keep of history.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List databases.

    Example: pagestore ls --watch
    """
    with session(data, as_json) as run:
        if sizes:
            _repeated(watch, lambda: _show_sizes(run))
            return
        if watch:
            _watch(run)
            return
        databases = run.control.databases()
        why = _kept_awake(run)
        if as_json:
            fields = [
                {**database_fields(item), "kept_awake_by": why.get(item.name)} for item in databases
            ]
            run.answer({"databases": fields})
            return
        rows = [
            (
                database.name,
                compute_state(database),
                database.parent or "-",
                format_lsn(database.lsn),
                human_bytes(database.physical_bytes),
                short_time(database.created_unix_micros),
                time_left(database) or "-",
                why.get(database.name) or "-",
            )
            for database in databases
        ]
        columns = ("name", "compute", "parent", "LSN", "own bytes", "created")
        run.table((*columns, "removed in", "kept awake by"), rows)


def _repeated(watch: bool, show: Callable[[], None]) -> None:
    if watch:
        from pagestore.cli.watching import repeat

        repeat(show)
    else:
        show()


def _show_sizes(run: Session) -> None:
    databases = [run.control.get(item.name) for item in run.control.databases()]
    unlisted = run.control.unlisted()
    left, deleted = unlisted.left_bytes, unlisted.deleted_bytes
    if run.as_json:
        fields = [{"name": item.name, **size_fields(item)} for item in databases]
        run.answer({"databases": fields, "left_bytes": left, "deleted_bytes": deleted})
        return
    shown = ("logical_bytes", "own_bytes", "shared_bytes", "history_bytes")
    rows = []
    for item in databases:
        fields_of = size_fields(item)
        counts = [human_bytes(fields_of[field]) for field in shown]
        rows.append((item.name, *counts, fields_of["kept_from"]))
    for what, size in (("(left by restores)", left), ("(deleted, branches read it)", deleted)):
        if size:
            rows.append((what, "-", human_bytes(size), "-", "-", "-"))
    run.table(("name", "logical", "own", "shared", "history", "kept from"), rows)


def _kept_awake(run: Session) -> dict[str, str | None]:
    """Why databases cannot go to sleep, by their names."""
    from pagestore.installation.awake import awake

    return {row["name"]: row["why"] for row in awake(run.installation)}


def _watch(run: Session) -> None:
    """A line a database and change, until it is interrupted; a JSON object each under --json."""
    for change in run.control.watch():
        match change.WhichOneof("change"):
            case "database":
                database = change.database
                state = compute_state(database)
                fields = {"name": database.name, "compute": state, "parent": database.parent}
            case "gone":
                fields = {"name": change.gone, "compute": "gone", "parent": ""}
            case _:
                fields = {}
        if run.as_json:
            sys.stdout.write(json.dumps(fields or {"whole": True}) + "\n")
        elif fields:
            sys.stdout.write("\t".join(value or "-" for value in fields.values()) + "\n")
        sys.stdout.flush()


def show(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Show everything about a database.

    Example: pagestore show app
    """
    with session(data, as_json) as run:
        database = run.control.get(name)
        fields = {**database_fields(database), **size_fields(database)}
        fields["wal_bytes"] = database.wal_bytes
        fields["compute_dir"] = database.compute_dir or None
        made = _last_checkpoint(run, name)
        fields["last_checkpoint"] = checkpoint_fields(made) if made else None
        fields |= slot_fields(database)
        if as_json:
            run.answer(fields)
            return
        if database.slots:
            fields["replication_slots"] = slot_words(database)
        fields["last_checkpoint"] = made.name if made else None
        fields["remarks"] = " ".join(database.remarks) or None
        del fields["created"]  # whether this very request has made it
        run.table(
            ("field", "value"),
            [(key, str(value)) for key, value in fields.items() if value is not None],
        )


def _last_checkpoint(run: Session, name: str) -> pb.Checkpoint | None:
    """The latest that a user made."""
    made = (entry.checkpoint for entry in run.control.log(name) if entry.HasField("checkpoint"))
    return next((item for item in made if not item.automatic), None)


def rm(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Databases.", autocompletion=completion.names),
    ],
    if_exists: Annotated[
        bool, typer.Option("--if-exists", help="Succeed when there is none.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Delete databases, with their checkpoints. Branches of them stay whole.

    Example: pagestore rm try-1 try-2
    """
    with session(data, as_json) as run:
        done, failed = _each(names, lambda name: run.control.delete(name, if_exists=if_exists))
        deleted = [name for name, was_there in done if was_there]
        run.answer(
            {"deleted": deleted, **_failures(failed)},
            "",
            f"deleted {', '.join(deleted) or 'nothing'}",
        )
        _raise_first(failed)


def rename(
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its name from now on.")],
    if_exists: Annotated[
        bool, typer.Option("--if-exists", help="Succeed when there is no such database.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give a database another name. Its URL, connections and checkpoints stay.

    Example: pagestore rename try-2 app-next
    """
    with session(data, as_json) as run:
        done = run.control.rename(name, new_name, if_exists=if_exists)
        found = done.HasField("database")
        fields = database_fields(done.database) if found else {"name": new_name}
        remark = f"renamed {name} to {new_name}" if done.changed else f"there is no {name}"
        run.answer({**fields, "changed": done.changed}, done.database.url, remark)


def detach(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Make a branch independent of what it was branched from.

    What it shares is copied, while everybody works on. Broken off, it goes on by itself.

    Example: pagestore detach try-2
    """
    with session(data, as_json) as run:
        changed = False
        while True:
            answer = run.control.detach(name)
            changed |= answer.changed
            if answer.done:
                break
        remark = f"{name} is independent" if changed else f"{name} is no branch"
        run.answer({**database_fields(answer.database), "changed": changed}, "", remark)


def url(
    name: Name,
    direct: Annotated[
        bool,
        typer.Option("--direct", help="Its server's own socket, past the proxy, while it runs."),
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Print the connection URL, which stays the same as long as the database has its name.

    Says so where it does not work any more, as far as that is known; nothing is woken. Of
    NAME@POINT, that of the past, read-only.

    Example: psql "$(pagestore url app)"
    """
    with session(data, as_json) as run:
        database, address = _found(run, name)
        if direct:
            where = _direct(_of_now(database, name))
            run.answer({"name": name, "url": where, "fault": None}, where)
            return
        fault = database.url_fault
        run.answer({"name": name, "url": address, "fault": fault or None}, address)
        if fault:
            run.remark(f"This URL does not work: {fault}")


def psql(
    name: Name,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Passed on to psql.")
    ] = None,
    data: Data = None,
) -> None:
    """Open psql on a database, which wakes it.

    Over its URL; where that does not work, as a superuser over the socket of its server. With
    NAME@POINT on its past, read-only.

    Example: pagestore psql app -c 'SELECT 1'
    """
    with session(data, False) as run:
        _check_arguments(name, arguments or [])
        where, options = _way_in(run, name)
        bindir = run.installation.config.computes.postgres_bindir
        program = majors.latest_programs(bindir) / "psql"
        options = f"{options} {os.environ.get('PGOPTIONS', '')}".strip()
        target, secret = without_password(where)
        environment = os.environ | secret | ({"PGOPTIONS": options} if options else {})
        try:
            os.execve(program, ["psql", target, *(arguments or [])], environment)  # noqa: S606
        except FileNotFoundError as error:
            raise FailedPrecondition(
                "PSQL_MISSING", f"There is no {program}.", "apt-get install postgresql-client"
            ) from error


def _way_in(run: Session, name: str) -> tuple[str, str]:
    """Where to connect, and with which options."""
    database, address = _found(run, name)
    if not database.url_fault:
        return address, ""
    _of_now(database, name)
    run.control.wake(name)
    database = run.control.get(name, brief=True, check_url=True)
    return _direct(database), _RESCUE


def _found(run: Session, name: str) -> tuple[pb.Database, str]:
    """A database and its URL; of NAME@POINT, the URL of that moment.

    Raises:
        NotFound: DATABASE_NOT_FOUND, CHECKPOINT_NOT_FOUND. OutOfRange: as any point of the past.
    """
    try:
        database = run.control.get(name, brief=True, check_url=True)
        return database, database.url
    except (NotFound, InvalidInput):  # names of before @ was reserved go first; an LSN has a slash
        bare, at, point = name.partition("@")
        if not at:
            raise
    database = run.control.get(bare, brief=True, check_url=True)
    run.control.resolve(bare, point_message(point) or pb.Point())
    return database, past_url(database.url, point)


def _of_now(database: pb.Database, name: str) -> pb.Database:
    """
    Raises:
        InvalidInput: PAST_WITHOUT_SOCKET.
    """
    if database.name != name:
        raise InvalidInput(
            "PAST_WITHOUT_SOCKET",
            f"{name!r} is a moment of {database.name!r}, which is entered through the proxy alone.",
            f"`pagestore url {database.name}` says whether its URL works, by which the past is "
            "entered, too.",
        )
    return database


def _direct(database: pb.Database) -> str:
    """The URL of its server's socket.

    Raises:
        FailedPrecondition: DATABASE_ASLEEP.
    """
    if not database.operator_conninfo:
        raise FailedPrecondition(
            "DATABASE_ASLEEP",
            f"{database.name!r} is asleep: it has no server, and no socket.",
            f"`pagestore start {database.name}` wakes it, as any connection to its URL does.",
        )
    from psycopg.conninfo import conninfo_to_dict

    words = conninfo_to_dict(database.operator_conninfo)
    facts = [(key, str(words[key])) for key in ("host", "port", "user")]
    query = urlencode(facts, quote_via=quote)  # to libpq a plus is no space
    return f"postgresql:///{quote(str(words['dbname']), safe='')}?{query}"


_PSQL_SHORT = "aAbc:d:eEf:F:h:HlL:no:p:P:qR:sStT:U:v:VwWxXz01?"
_PSQL_LONG = (
    *("command=", "csv", "dbname=", "echo-all", "echo-errors", "echo-hidden", "echo-queries"),
    *("expanded", "field-separator=", "field-separator-zero", "file=", "help", "host=", "html"),
    *("list", "log-file=", "no-align", "no-password", "no-psqlrc", "no-readline", "output="),
    *("password", "port=", "pset=", "quiet", "record-separator=", "record-separator-zero"),
    *("set=", "single-line", "single-step", "single-transaction", "table-attr=", "tuples-only"),
    *("username=", "variable=", "version"),
)


def _check_arguments(name: str, arguments: list[str]) -> None:
    """Refuses what psql would take for a user, and log in as: SQL without -c.

    Raises:
        InvalidInput: USAGE.
    """
    try:
        _, words = getopt.gnu_getopt(arguments, _PSQL_SHORT, _PSQL_LONG)
    except getopt.GetoptError:
        # An option that is wrong, or newer than these: psql says so itself.
        return
    if words:
        raise InvalidInput(
            "USAGE",
            f"psql has the database already, and does not know what to do with {words[0]!r}.",
            f"To run SQL: pagestore psql {shlex.quote(name)} -c {shlex.quote(words[0])}",
        )


def start(
    name: Name,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Wake a database: start its Postgres, unless it runs. Any connection to its URL does, too.

    Settings with which Postgres does not start are set aside: what it says then names them.

    Example: pagestore start app
    """
    with session(data, as_json) as run:
        database = run.control.wake(name)
        run.answer(database_fields(database), database.url, f"{database.name} runs")
        tell_set_aside(run, database)


def tell_set_aside(run: Session, database: pb.Database) -> None:
    """For people; programs have it in the database's fields."""
    if database.set_aside:
        aside = ", ".join(f"{name} = {value}" for name, value in database.set_aside.items())
        run.remark(
            f"set aside, since Postgres did not start with it: {aside} "
            f"({database.set_aside_complaint})"
        )


def stop(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Databases.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put databases to sleep: stop their Postgres cleanly. The next connection wakes them.

    Example: pagestore stop try-1 try-2
    """
    with session(data, as_json) as run:
        done, failed = _each(names, run.control.stop)
        fields = {"stopped": [database_fields(database) for _, database in done]}
        run.answer(
            {**fields, **_failures(failed)},
            "",
            f"stopped {', '.join(name for name, _ in done) or 'nothing'}",
        )
        _raise_first(failed)


def _each(
    names: list[str], verb: Callable[[str], _T]
) -> tuple[list[tuple[str, _T]], list[tuple[str, PagestoreError]]]:
    """Does to all of them what can be done, whatever fails for one."""
    done, failed = [], []
    for name in dict.fromkeys(names):
        try:
            done.append((name, verb(name)))
        except PagestoreError as error:
            failed.append((name, error))
    return done, failed


def _failures(failed: list[tuple[str, PagestoreError]]) -> dict[str, Any]:
    if not failed:
        return {}
    return {
        "failed": [
            {"name": name, "reason": error.reason, "message": error.message}
            for name, error in failed
        ]
    }


def _raise_first(failed: list[tuple[str, PagestoreError]]) -> None:
    if not failed:
        return
    first = failed[0][1]
    words = " ".join(dict.fromkeys(error.message for _, error in failed))
    raise type(first)(first.reason, words, first.hint) from first
