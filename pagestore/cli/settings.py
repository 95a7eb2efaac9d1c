"""Verbs on a database's own settings and its password."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from pagestore.cli.session import (
    Data,
    Json,
    Name,
    database_fields,
    human_bytes,
    session,
    sleeps_after,
)
from pagestore.client import durations
from pagestore.client.byte_counts import byte_count
from pagestore.errors import FailedPrecondition, InvalidInput
from pagestore.ids import format_lsn

if TYPE_CHECKING:
    from pagestore.v1 import control_pb2 as pb

_WORDS = {"never": math.inf, "default": None}

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of its Postgres; repeat for more."),
]


def pairs(texts: list[str]) -> dict[str, str]:
    """
    Raises:
        InvalidInput: INVALID_SETTING.
    """
    split = [text.partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, split, strict=True):
        if not (name and equals):
            raise InvalidInput("INVALID_SETTING", f"{text!r} is not NAME=VALUE.")
    return {name.strip(): value.strip() for name, _, value in split}


def settings(
    name: Name,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE...]", help="Settings to change.")
    ] = None,
    reset: Annotated[
        list[str] | None,
        typer.Option("--reset", metavar="NAME", help="Back to the default; repeat for more."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or change what a database's Postgres is set to, as ALTER SYSTEM does.

    They stay with the database over restore and undo; a branch begins with a copy of them.

    Example: pagestore settings app shared_preload_libraries=pg_stat_statements work_mem=64MB
    """
    with session(data, as_json) as run:
        wanted = pairs(changes or [])
        if wanted or reset:
            found = run.control.change_settings(name, wanted, reset or [])
        else:
            found = run.control.settings(name)
        if as_json:
            run.answer({"name": name, **settings_fields(found)})
            return
        run.table(("setting", "value", "remark"), _rows(found))
        if found.after_restart:
            names = ", ".join(found.after_restart)
            run.remark(
                f"At the next start: {names}. pagestore stop {name} && pagestore start {name}"
            )


def idle(
    name: Name,
    limit: Annotated[
        str | None,
        typer.Argument(metavar="[TIME]", help="30s, 5m, never, or default for the proxy's own."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or change how long a database may do nothing until it is put to sleep.

    It holds within seconds, stays over restore and undo, and a branch begins with it.

    Example: pagestore idle app 5m
    """
    with session(data, as_json) as run:
        seconds = idle_limit(limit) if limit is not None else None
        found = (
            run.control.get(name, brief=True)
            if limit is None
            else run.control.change_idle(name, seconds)
        )
        said = sleeps_after(found)
        words = said if isinstance(said, str) else f"{said:g}s"
        run.answer({"name": name, "sleeps_after": said}, words)


def idle_limit(text: str) -> float | None:
    """Seconds; infinity for "never", None for "default".

    Raises:
        InvalidInput: INVALID_SETTING.
    """
    if text in _WORDS:
        return _WORDS[text]
    found = durations.seconds(text)
    if found is None:
        raise InvalidInput(
            "INVALID_SETTING", f'{text!r} is neither a time as 30s, 5m or 1h, nor "never".'
        )
    return found


def retention(
    name: Name,
    window: Annotated[
        str | None,
        typer.Argument(metavar="[TIME]", help="12h, 14d, or default for the installation's own."),
    ] = None,
    wal_bytes: Annotated[
        str | None,
        typer.Option("--bytes", metavar="SIZE", help="At most so much WAL of it: 20G."),
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show or change how much of a database's history is kept.

    Whatever is older goes, but for checkpoints, and for what branches stand on.

    Example: pagestore retention app 14d
    """
    with session(data, as_json) as run:
        if window is None and wal_bytes is None:
            found = run.control.get(name)
        elif window == "default" and wal_bytes is None:
            found = run.control.change_retention(name, None)
        else:
            kept = run.control.get(name).retention  # what is not said stays
            found = run.control.change_retention(
                name,
                kept.seconds if window is None else _window(window),
                kept.wal_bytes if wal_bytes is None else _wal_bytes(wal_bytes),
            )
        run.answer({"name": name, **retention_fields(found)}, _retention_words(found))


def _window(text: str) -> float:
    """
    Raises:
        InvalidInput: INVALID_RETENTION.
    """
    found = 0.0 if text == "0" else durations.seconds(text)
    if found is None:
        raise InvalidInput("INVALID_RETENTION", f"{text!r} is no time as 12h or 14d.")
    return found


def _wal_bytes(text: str) -> int:
    """
    Raises:
        InvalidInput: INVALID_RETENTION.
    """
    found = byte_count(text)
    if found is None:
        raise InvalidInput("INVALID_RETENTION", f"{text!r} is no size as 500M or 20G.")
    return found


def retention_fields(found: pb.Database) -> dict[str, Any]:
    kept = found.retention
    return {
        "retention_seconds": kept.seconds,
        "retention_bytes": kept.wal_bytes or None,
        "retention_is_own": kept.own,
        "kept_from": format_lsn(kept.kept_from_lsn) if kept.kept_from_lsn else None,
    }


def _retention_words(found: pb.Database) -> str:
    kept = found.retention
    words = durations.words(kept.seconds)
    if kept.wal_bytes:
        words += f", at most {human_bytes(kept.wal_bytes)} of WAL"
    from pagestore.timeline.horizons import LEAST_SECONDS

    if kept.seconds < LEAST_SECONDS:
        words += f" ({durations.words(LEAST_SECONDS)} stay in any case)"
    return f"{words}; all from {format_lsn(kept.kept_from_lsn)} on can be read"


def settings_fields(found: pb.DatabaseSettings) -> dict[str, Any]:
    return {
        "settings": dict(found.settings),
        "set_aside": dict(found.set_aside),
        "set_aside_complaint": found.complaint or None,
        "after_restart": list(found.after_restart),
    }


def _rows(found: pb.DatabaseSettings) -> list[tuple[str, str, str]]:
    rows = [
        (name, value, "at the next start" if name in found.after_restart else "-")
        for name, value in sorted(found.settings.items())
    ]
    why = f"set aside: {found.complaint}"
    return rows + [(name, value, why) for name, value in sorted(found.set_aside.items())]


def password(
    name: Name,
    reset: Annotated[
        bool, typer.Option("--reset", help="Make another one; the role may log in again.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Print the password of a database's URL, or make another one.

    With --reset the role postgres gets a new password and may log in, whatever was done to it,
    and the URL names a database that exists.

    Example: pagestore password app --reset
    """
    with session(data, as_json) as run:
        control = run.control
        database = (
            control.reset_password(name) if reset else control.get(name, brief=True, reveal=True)
        )
        secret = unquote(urlsplit(database.url).password or "")
        if not secret:
            raise FailedPrecondition(
                "PASSWORD_NOT_KNOWN",
                f"The password of {name!r} is not known: the key that sealed it is lost.",
                f"pagestore password {name} --reset",
            )
        remark = f"{name} has another password; its URL changed with it" if reset else ""
        run.answer({**database_fields(database), "password": secret}, secret, remark)
