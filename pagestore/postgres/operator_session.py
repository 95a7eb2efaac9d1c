"""pagestore's own sessions in a user's cluster: as a superuser, whatever was set for sessions.

ALTER SYSTEM, ALTER DATABASE ... SET and ALTER ROLE ... SET reach every session, and ours too: a
library that is not there, a read-only default, a timeout of a millisecond, a search path with a
stranger's functions in front. What a client says when it connects outranks them all.
"""

from __future__ import annotations

from typing import Any

import psycopg

CONNECT_SECONDS = 10
_OVERRIDES = {
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "role": "none",
    "search_path": "pg_catalog",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": r"read\ committed",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "synchronous_commit": "on",
    "session_replication_role": "origin",
    "log_statement": "none",
}
OPTIONS = " ".join(f"-c {name}={value}" for name, value in _OVERRIDES.items())
"""As libpq's keyword ``options``."""
_ALWAYS_THERE = "template1"

Session = psycopg.AsyncConnection[tuple[Any, ...]]


async def operator_session(conninfo: str, **more: Any) -> Session:
    """A session in autocommit; where the database has another name by now, in template1.

    Raises:
        psycopg.OperationalError: it is refused, or the role is no superuser any more.
    """
    words = {"autocommit": True, "connect_timeout": CONNECT_SECONDS, "options": OPTIONS, **more}
    session = await _connected(conninfo, words)
    if session.info.parameter_status("is_superuser") != "on":
        user = session.info.user
        await session.close()
        raise psycopg.OperationalError(f"the role {user!r} is no superuser any more")
    return session


async def _connected(conninfo: str, words: dict[str, Any]) -> Session:
    try:
        return await psycopg.AsyncConnection.connect(conninfo, **words)
    except psycopg.OperationalError as error:
        # libpq does not tell the SQLSTATE of a connection that was refused.
        if "does not exist" not in str(error) or "database" not in str(error):
            raise
    return await psycopg.AsyncConnection.connect(conninfo, **words | {"dbname": _ALWAYS_THERE})
