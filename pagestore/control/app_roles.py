"""Apps that share one database: a role each, which owns a schema of its own and sees no other's.

The role and its schema have one name, so that Postgres's own search path finds the schema first.
Nothing is kept here: roles are the cluster's own, branches and restored states have them, and their
passwords are told once and never known again. What is run is SQL, as the operator, in the inner
database that the URL names; the compute is woken for it.

A role sees what PUBLIC sees of a database: names of things in the catalogs, the schema `public`,
other inner databases that let everybody in. It sees no row and no definition of another role's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pagestore.client.names import database_name, role_name
from pagestore.control import credentials
from pagestore.control.computes import Computes
from pagestore.control.records import DatabaseRecord
from pagestore.control.state import ControlState
from pagestore.control.turns import Turns
from pagestore.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound, Unavailable
from pagestore.ids import TenantId
from pagestore.postgres.operator_session import Session, operator_session

_LIMITS = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_LISTED = (
    "SELECT rolname, nspname IS NOT NULL, rolcanlogin,"
    " (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relkind = ANY ('{r,p,m,f}'))"
    " FROM pg_roles AS r LEFT JOIN pg_namespace AS n ON nspname = rolname AND nspowner = r.oid"
    " WHERE rolname !~ '^(pg_|pagestore_)' AND NOT rolsuper ORDER BY rolname"
)


@dataclass(frozen=True, slots=True)
class AppRole:
    name: str
    owns_schema: bool
    """One of its own name."""
    may_log_in: bool
    tables: int
    """In that schema."""


class AppRoles:
    def __init__(self, state: ControlState, computes: Computes, turns: Turns) -> None:
        self._state = state
        self._computes = computes
        self._turns = turns

    async def add(self, tenant: TenantId, database: str, role: str) -> tuple[DatabaseRecord, str]:
        """A role with a schema of its own; the database's record, and the role's password.

        Raises:
            AlreadyExists: ROLE_EXISTS, SCHEMA_EXISTS.
            InvalidInput: INVALID_NAME; ROLE_REFUSED, by Postgres.
        """
        role, secret = role_name(role), credentials.new_password()
        async with self._session(tenant, database) as (record, session):
            if await _has(session, "pg_roles", "rolname", role):
                raise AlreadyExists(
                    "ROLE_EXISTS",
                    f"{record.name!r} has a role {role!r} already.",
                    f"pagestore role password {record.name} {role}",
                )
            if await _has(session, "pg_namespace", "nspname", role):
                raise AlreadyExists(
                    "SCHEMA_EXISTS", f"{record.name!r} has a schema {role!r} of somebody else's."
                )
            named = sql.Identifier(role)
            async with session.transaction():
                await session.execute(sql.SQL(f"CREATE ROLE {{}} {_LIMITS}").format(named))
                await credentials.set_password(session, role, secret)
                await session.execute(sql.SQL("CREATE SCHEMA {0} AUTHORIZATION {0}").format(named))
            return record, secret

    async def reset(self, tenant: TenantId, database: str, role: str) -> tuple[DatabaseRecord, str]:
        """Another password for a role that may log in afterwards.

        Raises:
            NotFound: ROLE_NOT_FOUND.
        """
        role, secret = role_name(role), credentials.new_password()
        async with self._session(tenant, database) as (record, session):
            await _known(session, record, role)
            async with session.transaction():
                words = sql.SQL("ALTER ROLE {} LOGIN VALID UNTIL 'infinity'")
                await session.execute(words.format(sql.Identifier(role)))
                await credentials.set_password(session, role, secret)
            return record, secret

    async def listed(self, tenant: TenantId, database: str) -> list[AppRole]:
        async with self._session(tenant, database) as (_, session):
            rows = await (await session.execute(_LISTED)).fetchall()
            return [AppRole(*row) for row in rows]

    async def remove(
        self, tenant: TenantId, database: str, role: str, *, with_data: bool, if_exists: bool
    ) -> bool:
        """The role, its sessions and its schema; whether there was one.

        Args:
            with_data: also what is in the schema.

        Raises:
            NotFound: ROLE_NOT_FOUND.
            FailedPrecondition: ROLE_NOT_EMPTY.
        """
        role = role_name(role)
        async with self._session(tenant, database) as (record, session):
            if if_exists and not await _has(session, "pg_roles", "rolname", role):
                return False
            await _known(session, record, role)
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
                    f"The role {role!r} of {record.name!r} owns something still: "
                    f"{error.diag.message_detail or error.diag.message_primary}",
                    f"pagestore role rm {record.name} {role} --with-data; what is in other inner "
                    "databases goes by SQL: DROP OWNED BY.",
                ) from error
            await session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role]
            )
            return True

    @asynccontextmanager
    async def _session(
        self, tenant: TenantId, database: str
    ) -> AsyncIterator[tuple[DatabaseRecord, Session]]:
        """In the inner database that the URL names; what Postgres refuses is told as it says."""
        name = database_name(database)
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            compute = await self._computes.start(record)
            inner = record.postgres_database
            try:
                async with await operator_session(compute.conninfo, dbname=inner) as session:
                    yield record, session
            except psycopg.OperationalError as error:
                raise Unavailable(
                    "COMPUTE_UNREACHABLE",
                    f"pagestore cannot log in to the Postgres of {name!r}: {str(error).strip()}",
                ) from error
            except psycopg.Error as error:
                said = error.diag.message_primary or str(error).strip()
                raise InvalidInput("ROLE_REFUSED", f"Postgres says: {said}.") from error


async def _has(session: Session, table: str, column: str, name: str) -> bool:
    words = sql.SQL("SELECT FROM {} WHERE {} = %s")
    found = await session.execute(
        words.format(sql.Identifier("pg_catalog", table), sql.Identifier(column)), [name]
    )
    return found.rowcount > 0


async def _known(session: Session, record: DatabaseRecord, role: str) -> None:
    """One that is the operator's own, or a superuser, is nobody's app.

    Raises:
        NotFound: ROLE_NOT_FOUND.
    """
    rows = await (await session.execute(_LISTED)).fetchall()
    if role not in [row[0] for row in rows]:
        raise NotFound(
            "ROLE_NOT_FOUND",
            f"{record.name!r} has no role {role!r} of an app.",
            f"`pagestore role ls {record.name}` lists them.",
        )
