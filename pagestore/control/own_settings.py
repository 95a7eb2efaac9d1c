"""The verbs on a database's own settings and its password, from outside.

What runs is told by SQL, by its agent, so that Postgres itself judges names and values; what is
stopped has them in its record alone, and Postgres judges at the next start (setting_aside.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pagestore.client.names import database_name
from pagestore.control import credentials
from pagestore.control.compute import Compute, Entry, Owner
from pagestore.control.computes import Computes
from pagestore.control.keeping import put_settings
from pagestore.control.operator_key import OperatorKey
from pagestore.control.records import DatabaseRecord, EventRecord, UserSettings, Verb
from pagestore.control.setting_aside import changed
from pagestore.control.state import ControlState, now_micros
from pagestore.control.turns import Turns
from pagestore.errors import InvalidInput
from pagestore.ids import TenantId
from pagestore.postgres.majors import Installed
from pagestore.postgres.user_settings import check


@dataclass(frozen=True, slots=True)
class Shown:
    settings: UserSettings
    after_restart: tuple[str, ...] = ()
    """Names of settings that take effect only at the next start."""


class OwnSettings:
    """
    Args:
        installed: where a major's libraries are, which settings may name.
    """

    def __init__(
        self,
        state: ControlState,
        computes: Computes,
        key: OperatorKey,
        turns: Turns,
        installed: Installed | None,
    ) -> None:
        self._state = state
        self._computes = computes
        self._key = key
        self._turns = turns
        self._installed = installed

    def checked(self, values: Mapping[str, str], major: int = 0) -> dict[str, str]:
        """Those that a user asks for, by their lower-case names, of a server of that major.

        Raises:
            InvalidInput: SETTING_FIXED, INVALID_SETTING.
        """
        values = {item.lower(): value for item, value in values.items()}
        libraries = self._installed.libraries(major) if values and self._installed else None
        check(values, libraries)
        return values

    async def shown(self, tenant: TenantId, database: str) -> Shown:
        """What the user has set by now, by whatever way."""
        name = database_name(database)
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            compute = self._computes.running_compute((tenant, name))
            if compute is None:
                return Shown(record.settings)
            return await self._told(tenant, name, compute, {}, ())

    async def change(
        self, tenant: TenantId, database: str, values: Mapping[str, str], reset: Iterable[str]
    ) -> Shown:
        """
        Raises:
            InvalidInput: SETTING_FIXED, INVALID_SETTING.
        """
        name = database_name(database)
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            major = self._state.view().known_timeline(record.timeline).major
            values = self.checked(values, major)
            compute = self._computes.running_compute((tenant, name))
            if compute is None:
                return self._change_stopped(record, values, reset)
            return await self._told(tenant, name, compute, values, reset)

    async def change_idle(
        self, tenant: TenantId, database: str, seconds: float | None
    ) -> DatabaseRecord:
        """How long it may do nothing until it is put to sleep.

        Args:
            seconds: infinity for never; None for as long as the proxy lets any.

        Raises:
            InvalidInput: INVALID_SETTING.
        """
        name = database_name(database)
        if seconds is not None and not seconds > 0:
            raise InvalidInput("INVALID_SETTING", f"{seconds} is no number of seconds above zero.")
        async with self._turns.on(tenant, name):
            with self._state.change() as change:
                record = change.known_database(tenant, name)
                idle = 0.0 if seconds == math.inf else seconds
                record = record.model_copy(update={"idle": idle})
                change.put_database(record)
            return record

    async def reset_password(self, tenant: TenantId, database: str) -> DatabaseRecord:
        """Another password, and a role that may log in with it. Needs the compute to run."""
        name = database_name(database)
        return await self._turns.to_its_end(self._reset_password(tenant, name))

    async def entry(self, record: DatabaseRecord) -> Entry:
        """How to get in. Empty for a compute that does not run: nobody knows."""
        compute = self._computes.running_compute((record.tenant, record.name))
        if compute is None:
            return Entry()
        return await compute.entry(record, credentials.password(self._key, record))

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

    async def _told(
        self,
        tenant: TenantId,
        name: str,
        compute: Compute,
        values: Mapping[str, str],
        reset: Iterable[str],
    ) -> Shown:
        later = await self._computes.tell((tenant, name), compute, values, reset)
        return Shown(self._state.view().known_database(tenant, name).settings, later)

    async def _reset_password(self, tenant: TenantId, name: str) -> DatabaseRecord:
        async with self._turns.on(tenant, name):
            record = self._state.view().known_database(tenant, name)
            compute = await self._computes.start(record)
            secret = credentials.new_password()
            inner = await compute.set_owner(record, secret, Owner.RENEWED)
            with self._state.change() as change:
                current = change.known_database(tenant, name)
                renewed = current.model_copy(
                    update={
                        "sealed_password": self._key.seal(tenant, secret),
                        "password_was_reset": True,
                        "postgres_database": inner,
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
