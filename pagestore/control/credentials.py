"""Who may connect, and to what: passwords, URLs, and the SQL that makes a new database ready.

Each database gets a random password at its creation, for the role ``postgres``. It lives in
the cluster like any other, so branches and restored states have it too. The SQL here runs
over the compute's Unix socket, which only the operator's user can reach.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from urllib.parse import quote

import psycopg
from psycopg import sql

from pagestore.control.records import DatabaseRecord
from pagestore.errors import FailedPrecondition

ROLE = "postgres"
TEMPLATE_DATABASE = "pagestore"
"""The spare database of the template, renamed when a database is created."""

_TAKEN = frozenset({"postgres", "template0", "template1"})


def new_password() -> str:
    return secrets.token_urlsafe(18)


def wal_password(record: DatabaseRecord) -> str:
    """By which safekeepers on other hosts log in: follows from the database's own password, as
    branches and restored states have both, and does not tell it."""
    digest = hmac.digest(record.password.encode(), b"safekeeper", "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def inner_name(name: str) -> str:
    """The database inside Postgres for a new database `name`."""
    return TEMPLATE_DATABASE if name in _TAKEN else name


def url(record: DatabaseRecord, host: str) -> str:
    database = quote(record.postgres_database, safe="")
    password = quote(record.password, safe="")
    place = f"[{host}]" if ":" in host else host
    return f"postgresql://{ROLE}:{password}@{place}:{record.port}/{database}"


async def make_ready(conninfo: str, record: DatabaseRecord) -> None:
    """Gives the spare database its name and the role its password, in one transaction."""
    conninfo = psycopg.conninfo.make_conninfo(conninfo, dbname="postgres")
    async with await _connect(conninfo) as connection, connection.transaction():
        await _set_password(connection, record.password)
        if record.postgres_database != TEMPLATE_DATABASE:
            await connection.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    sql.Identifier(TEMPLATE_DATABASE), sql.Identifier(record.postgres_database)
                )
            )


async def adopt_import(conninfo: str, record: DatabaseRecord, wanted: str) -> str:
    """Sets the password in an imported cluster; returns the database that its URL names.

    Args:
        wanted: the database to choose; empty for the largest one.

    Raises:
        FailedPrecondition: NO_SUCH_POSTGRES_DATABASE.
    """
    async with await _connect(conninfo) as connection:
        cursor = await connection.execute(
            "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"
            " ORDER BY datname = 'postgres', pg_database_size(oid) DESC, datname"
        )
        names = [str(row[0]) for row in await cursor.fetchall()]
        if wanted and wanted not in names:
            raise FailedPrecondition(
                "NO_SUCH_POSTGRES_DATABASE",
                f"The imported cluster has no database {wanted[:80]!r}.",
                f"It has: {', '.join(names)}.",
            )
        async with connection.transaction():
            roles = await connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
            if roles.rowcount == 0:
                create = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN").format(sql.Identifier(ROLE))
                await connection.execute(create)
            await _set_password(connection, record.password)
    return wanted or (names[0] if names else ROLE)


async def _connect(conninfo: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True)


async def _set_password(
    connection: psycopg.AsyncConnection[tuple[object, ...]], password: str
) -> None:
    # Hashed here, so that the statement does not carry it in clear into any log.
    hashed = connection.pgconn.encrypt_password(
        password.encode(), ROLE.encode(), b"scram-sha-256"
    ).decode()
    await connection.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(hashed))
    )
