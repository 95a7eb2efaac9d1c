"""Apps that share one database, inside it: a role each, and a schema that it owns.

The role and its schema have one name, so that Postgres's own search path finds the schema first. A
role sees what PUBLIC sees of a database: names of things in the catalogs, the schema `public`,
other inner databases that let everybody in. It sees no row and no definition of another role's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pagestore.agent.owner import set_password
from pagestore.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound, Unavailable
from pagestore.postgres.operator_session import Session, operator_session

_LIMITS = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_LISTED = (
    "SELECT rolname, nspname IS NOT NULL, rolcanlogin,"
    " (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relkind = ANY ('{r,p,m,f}'))"
    " FROM pg_roles AS r LEFT JOIN pg_namespace AS n ON nspname = rolname AND nspowner = r.oid"
    " WHERE rolname !~ '^(pg_|pagestore_)' AND NOT rolsuper ORDER BY rolname"
)


@dataclass(frozen=True, slots=True)
class Apps:
    """The apps of a database.

    Args:
        name: the database's, for words.
        inner: the database inside Postgres that its URL names.
    """

    conninfo: str
    name: str
    inner: str

    async def add(self, role: str, secret: str) -> None:
        """
        Raises:
            AlreadyExists: ROLE_EXISTS, SCHEMA_EXISTS.
            InvalidInput: ROLE_REFUSED, by Postgres.
        """
        async with self._session() as session:
            if await _has(session, "pg_roles", "rolname", role):
                raise AlreadyExists(
                    "ROLE_EXISTS",
                    f"{self.name!r} has a role {role!r} already.",
                    f"pagestore role password {self.name} {role}",
                )
            if await _has(session, "pg_namespace", "nspname", role):
                raise AlreadyExists(
                    "SCHEMA_EXISTS", f"{self.name!r} has a schema {role!r} of somebody else's."
                )
            named = sql.Identifier(role)
            async with session.transaction():
                await session.execute(sql.SQL(f"CREATE ROLE {{}} {_LIMITS}").format(named))
                await set_password(session, role, secret)
                await session.execute(sql.SQL("CREATE SCHEMA {0} AUTHORIZATION {0}").format(named))

    async def reset(self, role: str, secret: str) -> None:
        """
        Raises:
            NotFound: ROLE_NOT_FOUND.
        """
        async with self._session() as session:
            await self._known(session, role)
            async with session.transaction():
                words = sql.SQL("ALTER ROLE {} LOGIN VALID UNTIL 'infinity'")
                await session.execute(words.format(sql.Identifier(role)))
                await set_password(session, role, secret)

    async def listed(self) -> list[tuple[str, bool, bool, int]]:
        """Name, whether it owns a schema of that name, whether it may log in, its tables there."""
        async with self._session() as session:
            return [
                (str(row[0]), bool(row[1]), bool(row[2]), int(row[3]))
                for row in await (await session.execute(_LISTED)).fetchall()
            ]

    async def remove(self, role: str, *, with_data: bool, if_exists: bool) -> bool:
        """The role, its sessions and its schema; whether there was one.

        Raises:
            NotFound: ROLE_NOT_FOUND.
            FailedPrecondition: ROLE_NOT_EMPTY.
        """
        async with self._session() as session:
            if if_exists and not await _has(session, "pg_roles", "rolname", role):
                return False
            await self._known(session, role)
            named = sql.Identifier(role)
            try:
                async with session.transaction():
                    await session.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(named))
                    if with_data:
                        await session.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(named))
                    else:
                        await session.execute(sql.SQL("DROP SCHEMA IF EXISTS {}").format(named))
                    await session.execute(sql.SQL("DROP ROLE {}").format(named))
            except psycopg.errors.DependentObjectsStillExist as error:
                raise FailedPrecondition(
                    "ROLE_NOT_EMPTY",
                    f"The role {role!r} of {self.name!r} owns something still: "
                    f"{error.diag.message_detail or error.diag.message_primary}",
                    f"pagestore role rm {self.name} {role} --with-data; what is in other inner "
                    "databases goes by SQL: DROP OWNED BY.",
                ) from error
            await session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role]
            )
            return True

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        """In the inner database; what Postgres refuses is told as it says."""
        try:
            async with await operator_session(self.conninfo, dbname=self.inner) as session:
                yield session
        except psycopg.OperationalError as error:
            raise Unavailable(
                "COMPUTE_UNREACHABLE",
                f"pagestore cannot log in to the Postgres of {self.name!r}: {str(error).strip()}",
            ) from error
        except psycopg.Error as error:
            said = error.diag.message_primary or str(error).strip()
            raise InvalidInput("ROLE_REFUSED", f"Postgres says: {said}.") from error

    async def _known(self, session: Session, role: str) -> None:
        """One that is the operator's own, or a superuser, is nobody's app.

        Raises:
            NotFound: ROLE_NOT_FOUND.
        """
        rows = await (await session.execute(_LISTED)).fetchall()
        if role not in [row[0] for row in rows]:
            raise NotFound(
                "ROLE_NOT_FOUND",
                f"{self.name!r} has no role {role!r} of an app.",
                f"`pagestore role ls {self.name}` lists them.",
            )


async def _has(session: Session, table: str, column: str, name: str) -> bool:
    words = sql.SQL("SELECT FROM {} WHERE {} = %s")
    found = await session.execute(
        words.format(sql.Identifier("pg_catalog", table), sql.Identifier(column)), [name]
    )
    return found.rowcount > 0
