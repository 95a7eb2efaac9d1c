"""The owner of a database inside it: his role, his password, and the inner database of his URL.

Each database has a password for the role ``postgres``. It lives in the cluster like any other, so
branches and restored states have it too; once it was reset, older states have another one, and
each start looks. The SQL here runs over the compute's Unix socket, which only our own user can
reach.
"""

from __future__ import annotations

from psycopg import sql

from pagestore.errors import FailedPrecondition
from pagestore.postgres.operator_session import Session, operator_session
from pagestore.postgres.owner_role import owner_fault
from pagestore.postgres.template import OWNER_ROLE, SPARE_DATABASE


async def make_ready(conninfo: str, password: str, database: str) -> None:
    """Gives the spare database its name and the role its password, in one transaction."""
    connecting = operator_session(conninfo, dbname="postgres")
    async with await connecting as session, session.transaction():
        await set_password(session, OWNER_ROLE, password)
        if database != SPARE_DATABASE:
            await session.execute(
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                    sql.Identifier(SPARE_DATABASE), sql.Identifier(database)
                )
            )


async def take_over(conninfo: str, password: str, database: str, *, strictly: bool) -> str:
    """Makes the role log in with this password.

    Args:
        strictly: there must be this inner database.

    Returns: the inner database, or, where there is none of that name, the largest one.

    Raises:
        FailedPrecondition: NO_SUCH_POSTGRES_DATABASE.
    """
    async with await operator_session(conninfo) as session:
        names = await databases(session)
        if strictly and database not in names:
            raise FailedPrecondition(
                "NO_SUCH_POSTGRES_DATABASE",
                f"The imported cluster has no database {database[:80]!r}.",
                f"It has: {', '.join(names)}.",
            )
        await _renew_role(session, password)
    return database if database in names or not names else names[0]


async def keep_password(conninfo: str, password: str) -> None:
    """After a move to an older state: the password is the database's, not the state's."""
    async with await operator_session(conninfo) as session:
        if await _role_fault(session, password):
            await _renew_role(session, password)


async def url_fault(session: Session, name: str, password: str, database: str) -> str:
    """Why the URL of the database `name` does not work; empty where it does."""
    if database not in await databases(session, templates=True):
        return (
            f"There is no database {database!r} in it that takes sessions (any more): it was"
            f" renamed or dropped. `pagestore password {name} --reset` mends the URL."
        )
    fault = await _role_fault(session, password)
    return fault and f"{fault} `pagestore password {name} --reset` mends that."


async def databases(session: Session, *, templates: bool = False) -> list[str]:
    """Those that take sessions; the one that an import chooses is the first."""
    cursor = await session.execute(
        "SELECT datname FROM pg_database WHERE datallowconn AND (NOT datistemplate OR %s)"
        " ORDER BY datname = 'postgres', pg_database_size(oid) DESC, datname",
        [templates],
    )
    return [str(row[0]) for row in await cursor.fetchall()]


async def _role_fault(session: Session, password: str) -> str:
    cursor = await session.execute(
        "SELECT rolcanlogin, coalesce(rolvaliduntil > now(), true), rolpassword"
        " FROM pg_authid WHERE rolname = %s",
        [OWNER_ROLE],
    )
    found = await cursor.fetchone()
    if found is None:
        return owner_fault(None, valid=False, verifier="", secret=password)
    can_login, valid, verifier = found
    return owner_fault(can_login, valid=valid, verifier=str(verifier or ""), secret=password)


async def _renew_role(session: Session, password: str) -> None:
    async with session.transaction():
        roles = await session.execute("SELECT FROM pg_roles WHERE rolname = %s", [OWNER_ROLE])
        verb = sql.SQL("CREATE" if roles.rowcount == 0 else "ALTER")
        words = sql.SQL("{} ROLE {} SUPERUSER LOGIN VALID UNTIL 'infinity'")
        await session.execute(words.format(verb, sql.Identifier(OWNER_ROLE)))
        await set_password(session, OWNER_ROLE, password)


async def set_password(session: Session, role: str, password: str) -> None:
    # Hashed here, so that the statement does not carry it in clear into any log.
    hashed = session.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    ).decode()
    await session.execute(
        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed))
    )
