"""A user's settings, told to the server that runs: Postgres itself judges names and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

from pagestore.errors import InvalidInput
from pagestore.postgres.operator_session import Session
from pagestore.postgres.user_settings import is_list, listed

_AFTER_RESTART = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name"


async def alter_system(session: Session, values: Mapping[str, str], reset: Iterable[str]) -> None:
    """
    Raises:
        InvalidInput: INVALID_SETTING.
    """
    try:
        for name, value in values.items():
            if "." in name:
                # Of a library that is not loaded yet: known as soon as it has a value.
                await session.execute("SELECT set_config(%s, %s, false)", [name, value])
            items = listed(value) or [""] if is_list(name) else [value]
            await session.execute(
                sql.SQL("ALTER SYSTEM SET {} = {}").format(
                    _dotted(name), sql.SQL(", ").join(map(sql.Literal, items))
                )
            )
        for name in reset:
            await session.execute(sql.SQL("ALTER SYSTEM RESET {}").format(_dotted(name)))
        await session.execute("SELECT pg_reload_conf()")
        await session.execute("SELECT pg_sleep(0.05)")  # for this session to read them, too
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error).strip()
        raise InvalidInput("INVALID_SETTING", f"Postgres says: {said}.") from error


async def after_restart(session: Session) -> list[str]:
    """Names of settings that take effect only at the next start."""
    rows = await (await session.execute(_AFTER_RESTART)).fetchall()
    return [str(row[0]) for row in rows]


def _dotted(name: str) -> sql.Composable:
    return sql.SQL(".").join(map(sql.Identifier, name.split(".")))
