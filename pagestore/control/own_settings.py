"""The verbs on a database's own settings and its password, from outside.

What runs is asked and told by SQL, so that Postgres itself judges names and values; what is
stopped has them in its record alone, and Postgres judges at the next start (setting_aside.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pagestore.client.names import database_name
from pagestore.control import credentials
from pagestore.control.computes import Compute, Computes
from pagestore.control.keeping import put_settings
from pagestore.control.operator_key import OperatorKey
from pagestore.control.records import DatabaseRecord, EventRecord, UserSettings, Verb
from pagestore.control.setting_aside import changed
from pagestore.control.state import ControlState, now_micros
from pagestore.control.turns import Turns
from pagestore.errors import InvalidInput, Unavailable
from pagestore.ids import TenantId
from pagestore.postgres.operator_session import Session, operator_session
from pagestore.postgres.user_settings import check, is_list, listed

_AFTER_RESTART = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name"


@dataclass(frozen=True, slots=True)
class Shown:
    settings: UserSettings
    after_restart: tuple[str, ...] = ()
    """Names of settings that take effect only at the next start."""


@dataclass(frozen=True, slots=True)
class Entry:
    url_fault: str = ""
    """Why the database's URL does not work; empty where it does."""
    conninfo: str = ""
    """libpq keywords for a superuser, over the Unix socket of the compute's machine."""


class OwnSettings:
    """
    Args:
        libraries: where Postgres's libraries are.
    """

    def __init__(
        self,
        state: ControlState,
        computes: Computes,
        key: OperatorKey,
        turns: Turns,
        libraries: Path | None,
    ) -> None:
        self._state = state
        self._computes = computes
        self._key = key
        self._turns = turns
        self._libraries = libraries

    def checked(self, values: Mapping[str, str]) -> dict[str, str]:
        """Those that a user asks for, by their lower-case names.

        Raises:
            InvalidInput: SETTING_FIXED, INVALID_SETTING.
        """
        values = {item.lower(): value for item, value in values.items()}
        check(values, self._libraries)
        return values

    async def shown(self, tenant: TenantId, database: str) -> Shown:
        """What the user has set by now, by whatever way."""
        name = database_name(database)
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            compute = self._computes.running_compute((tenant, name))
            if compute is None:
                return Shown(record.settings)
            self._computes.note_settings((tenant, name))
            async with await _session(record, compute) as session:
                return await self._noted(tenant, name, session)

    async def change(
        self, tenant: TenantId, database: str, values: Mapping[str, str], reset: Iterable[str]
    ) -> Shown:
        """
        Raises:
            InvalidInput: SETTING_FIXED, INVALID_SETTING.
        """
        name = database_name(database)
        values = self.checked(values)
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            compute = self._computes.running_compute((tenant, name))
            if compute is None:
                return self._change_stopped(record, values, reset)
            async with await _session(record, compute) as session:
                await _alter_system(session, values, reset)
                self._computes.note_settings((tenant, name))
                return await self._noted(tenant, name, session)

    async def reset_password(self, tenant: TenantId, database: str) -> DatabaseRecord:
        """Another password, and a role that may log in with it. Needs the compute to run."""
        name = database_name(database)
        return await self._turns.to_its_end(self._reset_password(tenant, name))

    async def entry(self, record: DatabaseRecord) -> Entry:
        """How to get in. Empty for a compute that does not run: nobody knows."""
        compute = self._computes.running_compute((record.tenant, record.name))
        if compute is None:
            return Entry()
        try:
            async with await operator_session(compute.conninfo) as session:
                secret = credentials.password(self._key, record)
                fault = await credentials.url_fault(session, record, secret)
                names = await credentials.databases(session, templates=True)
        except psycopg.Error as error:
            return Entry(f"pagestore itself cannot log in: {str(error).strip()}", compute.conninfo)
        inner = record.postgres_database if record.postgres_database in names else names[0]
        return Entry(fault, make_conninfo(compute.conninfo, dbname=inner))

    def _change_stopped(
        self, record: DatabaseRecord, values: Mapping[str, str], reset: Iterable[str]
    ) -> Shown:
        gone = {item.lower() for item in reset}
        with self._state.change() as change:
            current = change.known_database(record.tenant, record.name)
            wanted = {**current.settings.wanted, **values}
            wanted = {item: value for item, value in wanted.items() if item not in gone}
            settings = changed(current.settings, wanted)
            if gone & settings.set_aside.keys():
                settings = settings.model_copy(update={"set_aside": {}, "complaint": ""})
            put_settings(change, current, settings)
        return Shown(settings)

    async def _noted(self, tenant: TenantId, name: str, session: Session) -> Shown:
        rows = await (await session.execute(_AFTER_RESTART)).fetchall()
        record = self._state.view().known_database(tenant, name)
        return Shown(record.settings, tuple(str(row[0]) for row in rows))

    async def _reset_password(self, tenant: TenantId, name: str) -> DatabaseRecord:
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            compute = await self._computes.start(record)
            secret = credentials.new_password()
            async with await _session(record, compute) as session:
                inner = await credentials.renew(session, record, secret)
            with self._state.change() as change:
                current = change.known_database(tenant, name)
                renewed = current.model_copy(
                    update={
                        "sealed_password": self._key.seal(tenant, secret),
                        "password_was_reset": True,
                        "postgres_database": inner,
                        "wanted": True,
                    }
                )
                change.put_database(renewed)
                event = EventRecord(
                    verb=Verb.PASSWORD,
                    timeline=record.timeline,
                    lsn=record.branch_lsn,
                    created_micros=now_micros(),
                    detail="reset",
                )
                change.add_event(tenant, name, event)
            return renewed


async def _session(record: DatabaseRecord, compute: Compute) -> Session:
    try:
        return await operator_session(compute.conninfo)
    except psycopg.Error as error:
        raise Unavailable(
            "COMPUTE_UNREACHABLE",
            f"pagestore cannot log in to the Postgres of {record.name!r}: {str(error).strip()}",
            f"A new start looks for a superuser anew: pagestore stop {record.name} && "
            f"pagestore start {record.name}",
        ) from error


async def _alter_system(session: Session, values: Mapping[str, str], reset: Iterable[str]) -> None:
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


def _dotted(name: str) -> sql.Composable:
    return sql.SQL(".").join(map(sql.Identifier, name.split(".")))
