"""Who may connect, and to what: passwords, URLs, and the SQL that makes a new database ready.

Each database gets a random password at its creation, for the role ``postgres``. It lives in
the cluster like any other, so branches and restored states have it too; once it was reset, older
states have another one, and each start looks. The record has it sealed (operator_key.py), and only
an answer that must hold it has it opened. The SQL here runs over the compute's Unix socket, which
only the operator's user can reach.
"""

from __future__ import annotations

import secrets
from urllib.parse import quote

from psycopg import sql

from pagestore.control.operator_key import OperatorKey
from pagestore.control.records import DatabaseRecord
from pagestore.errors import FailedPrecondition
from pagestore.postgres.operator_session import Session, operator_session
from pagestore.postgres.wal_role import is_secret_of

ROLE = "postgres"
TEMPLATE_DATABASE = "pagestore"
"""The spare database of the template, renamed when a database is created."""

_TAKEN = frozenset({"postgres", "template0", "template1"})


def new_password() -> str:
    return secrets.token_urlsafe(18)


def password(key: OperatorKey, record: DatabaseRecord) -> str:
    """The owner's, in clear; empty where it is not known."""
    return key.open(record.tenant, record.sealed_password)


def wal_password(key: OperatorKey, record: DatabaseRecord) -> str:
    """By which safekeepers on other hosts log in: branches and restored states have the same. It
    is nowhere in the state, sealed or not."""
    return key.derived("safekeeper", record.sealed_password)


def inner_name(name: str) -> str:
    """The database inside Postgres for a new database `name`."""
    return TEMPLATE_DATABASE if name in _TAKEN else name


def url(record: DatabaseRecord, host: str, secret: str = "") -> str:
    """With the password, if there is one to tell."""
    database = quote(record.postgres_database, safe="")
    user = f"{ROLE}:{quote(secret, safe='')}" if secret else ROLE
    place = f"[{host}]" if ":" in host else host
    return f"postgresql://{user}@{place}:{record.port}/{database}"


async def make_ready(conninfo: str, record: DatabaseRecord, secret: str) -> None:
    """Gives the spare database its name and the role its password, in one transaction."""
    connecting = operator_session(conninfo, dbname="postgres")
    async with await connecting as session, session.transaction():
        await set_password(session, ROLE, secret)
        if record.postgres_database != TEMPLATE_DATABASE:
            await session.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    sql.Identifier(TEMPLATE_DATABASE), sql.Identifier(record.postgres_database)
                )
            )


async def adopt_import(conninfo: str, secret: str, wanted: str) -> str:
    """Sets the password in an imported cluster; returns the database that its URL names.

    Args:
        wanted: the database to choose; empty for the largest one.

    Raises:
        FailedPrecondition: NO_SUCH_POSTGRES_DATABASE.
    """
    async with await operator_session(conninfo) as session:
        names = await databases(session)
        if wanted and wanted not in names:
            raise FailedPrecondition(
                "NO_SUCH_POSTGRES_DATABASE",
                f"The imported cluster has no database {wanted[:80]!r}.",
                f"It has: {', '.join(names)}.",
            )
        await _renew_role(session, secret)
    return wanted or (names[0] if names else ROLE)


async def renew(session: Session, record: DatabaseRecord, secret: str) -> str:
    """Makes the role log in with this password; returns the database that the URL names: the
    same, or, where it has another name by now, the one that an import would choose."""
    await _renew_role(session, secret)
    names = await databases(session)
    if record.postgres_database in names or not names:
        return record.postgres_database
    return names[0]


async def keep_password(conninfo: str, secret: str) -> None:
    """After a move to an older state: the password is the database's, not the state's. One that is
    not known stays what it is."""
    if not secret:
        return
    async with await operator_session(conninfo) as session:
        if await _role_fault(session, secret):
            await _renew_role(session, secret)


async def url_fault(session: Session, record: DatabaseRecord, secret: str) -> str:
    """Why a database's URL does not work; empty where it does."""
    database = record.postgres_database
    if database not in await databases(session, templates=True):
        return (
            f"There is no database {database!r} in it that takes sessions (any more): it was"
            f" renamed or dropped. `pagestore password {record.name} --reset` mends the URL."
        )
    fault = await _role_fault(session, secret)
    return fault and f"{fault} `pagestore password {record.name} --reset` mends that."


async def databases(session: Session, *, templates: bool = False) -> list[str]:
    """Those that take sessions; the one that an import chooses is the first."""
    cursor = await session.execute(
        "SELECT datname FROM pg_database WHERE datallowconn AND (NOT datistemplate OR %s)"
        " ORDER BY datname = 'postgres', pg_database_size(oid) DESC, datname",
        [templates],
    )
    return [str(row[0]) for row in await cursor.fetchall()]


async def _role_fault(session: Session, secret: str) -> str:
    cursor = await session.execute(
        "SELECT rolcanlogin, coalesce(rolvaliduntil > now(), true), rolpassword"
        " FROM pg_authid WHERE rolname = %s",
        [ROLE],
    )
    found = await cursor.fetchone()
    if found is None:
        return f"There is no role {ROLE} in it (any more)."
    can_login, valid, verifier = found
    if not can_login:
        return f"The role {ROLE} may not log in (NOLOGIN)."
    if not valid:
        return f"The password of the role {ROLE} has expired (VALID UNTIL)."
    if not secret:
        return f"The password of the role {ROLE} is not known: the key that sealed it is lost."
    if not is_secret_of(str(verifier or ""), secret):
        return f"The role {ROLE} has another password by now, which is not known here."
    return ""


async def _renew_role(session: Session, password: str) -> None:
    async with session.transaction():
        roles = await session.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
        verb = sql.SQL("CREATE" if roles.rowcount == 0 else "ALTER")
        words = sql.SQL("{} ROLE {} SUPERUSER LOGIN VALID UNTIL 'infinity'")
        await session.execute(words.format(verb, sql.Identifier(ROLE)))
        await set_password(session, ROLE, password)


async def set_password(session: Session, role: str, password: str) -> None:
    # Hashed here, so that the statement does not carry it in clear into any log.
    hashed = session.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    ).decode()
    await session.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed))
    )
