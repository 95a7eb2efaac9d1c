"""Apps that share one database: a role each, which owns a schema of its own and sees no other's.

Nothing is kept here: roles are the cluster's own, branches and restored states have them, and their
passwords are told once and never known again. What is run is SQL, by the agent, in the inner
database that the URL names (agent/app_roles.py); the compute is woken for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pagestore.client.names import database_name, role_name
from pagestore.control import credentials
from pagestore.control.compute import AppRole, Compute
from pagestore.control.computes import Computes
from pagestore.control.records import DatabaseRecord
from pagestore.control.state import ControlState
from pagestore.control.turns import Turns
from pagestore.ids import TenantId


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
        async with self._running(tenant, database) as (record, compute):
            await compute.add_role(record, role, secret)
            return record, secret

    async def reset(self, tenant: TenantId, database: str, role: str) -> tuple[DatabaseRecord, str]:
        """Another password for a role that may log in afterwards.

        Raises:
            NotFound: ROLE_NOT_FOUND.
        """
        role, secret = role_name(role), credentials.new_password()
        async with self._running(tenant, database) as (record, compute):
            await compute.reset_role(record, role, secret)
            return record, secret

    async def listed(self, tenant: TenantId, database: str) -> list[AppRole]:
        async with self._running(tenant, database) as (record, compute):
            return await compute.roles(record)

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
        async with self._running(tenant, database) as (record, compute):
            return await compute.remove_role(record, role, with_data=with_data, if_exists=if_exists)

    @asynccontextmanager
    async def _running(
        self, tenant: TenantId, database: str
    ) -> AsyncIterator[tuple[DatabaseRecord, Compute]]:
        name = database_name(database)
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            yield record, await self._computes.start(record)
