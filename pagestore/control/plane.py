"""The control plane: names, and what stands behind them.

Its verbs stand with their nouns: databases.py (create, branch, import, remove, wake, stop),
past.py (checkpoint, restore, undo) and own_settings.py (settings, password). Here they are put
together, and what an earlier process left is finished or cleaned up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pagestore import tasks
from pagestore.client.computes import ComputeClient
from pagestore.client.page import AsyncPageClient
from pagestore.client.walservice import WalService
from pagestore.control.app_roles import AppRoles
from pagestore.control.computes import Computes
from pagestore.control.databases import Databases
from pagestore.control.detaching import Detaching
from pagestore.control.expiry import remove_expired
from pagestore.control.history import History
from pagestore.control.logs import Logs
from pagestore.control.moments import Moments
from pagestore.control.operator_key import OperatorKey
from pagestore.control.own_settings import OwnSettings
from pagestore.control.past import Past
from pagestore.control.places import Places
from pagestore.control.records import RetentionRecord
from pagestore.control.retention import DEFAULT, Retention
from pagestore.control.roles import Roles
from pagestore.control.sessions import NoSessions, Sessions
from pagestore.control.settings_watch import note_settings
from pagestore.control.state import ControlState
from pagestore.control.template import Templates
from pagestore.control.tenants import Tenants
from pagestore.control.timelines import Timelines
from pagestore.control.turns import Turns
from pagestore.control.upgrade import Upgrades
from pagestore.ids import TenantId, TimelineId
from pagestore.postgres.majors import Installed


class ControlPlane:
    def __init__(
        self,
        state: ControlState,
        pages: AsyncPageClient,
        wal: WalService,
        computes: Computes,
        key: OperatorKey,
        tenants: Tenants,
        *,
        agent: ComputeClient | None = None,
        installed: Installed | None = None,
        sessions: Sessions | None = None,
        on_delete: Callable[[TimelineId], None] = lambda timeline: None,
        retention: RetentionRecord | None = None,
    ) -> None:
        self.state = state
        self.computes = computes
        self.logs = Logs(state, wal)
        computes.prepare = self.logs.make
        self.history = History(state, pages, self.logs)
        self._background: list[asyncio.Task[None]] = []
        self._turns = Turns()
        self._timelines = Timelines(state, pages, self.logs, self._turns, on_delete)
        self.tenants = tenants
        self.retention = Retention(state, pages, self._timelines, self._turns, retention or DEFAULT)
        self._templates = (
            Templates(state, self._timelines, agent, wal, installed)
            if agent is not None and installed is not None
            else None
        )
        sessions = sessions or NoSessions()
        self.databases = Databases(
            *(state, pages, wal, computes, key),
            *(self.history, self._timelines, tenants, self._turns, sessions),
            template=self._templates.of if self._templates is not None else None,
        )
        self.own_settings = OwnSettings(state, computes, key, self._turns, installed)
        roles = Roles(pages, self.logs, self.history)
        self._moments = Moments(computes, self.history, self._timelines)
        self.app_roles = AppRoles(state, computes, self._turns)
        self.places = Places(state, computes, self._moments, roles, self._turns)
        self.upgrades = (
            Upgrades(
                *(state, pages, wal, computes, self.history, self._timelines),
                *(self._turns, sessions, agent, installed),
            )
            if agent is not None and installed is not None
            else None
        )
        self.detaching = Detaching(state, pages, self._timelines, self._turns)
        self.past = Past(state, computes, self.history, self._timelines, self._turns, sessions)

    async def recover(self) -> None:
        """Finishes or cleans up what an earlier process left, and takes over what runs."""
        self._timelines.drop_unfinished()
        await self.computes.take_up(lambda: self.state.view().databases())
        self._background = [
            tasks.endless(note_settings(self.computes), "note settings"),
            tasks.endless(remove_expired(self.state, self.databases), "remove expired"),
            tasks.endless(self.retention.run(), "say what is kept"),
        ]
        self._timelines.collect_soon()

    async def make_template(self, tenant: TenantId) -> None:
        """What a tenant's databases begin as, of the newest Postgres.

        Raises:
            PagestoreError: POSTGRES_FAILED and others.
        """
        assert self._templates is not None, "somebody has to make a cluster"
        await self._templates.of(tenant, 0)

    async def collect(self) -> int:
        """Deletes timelines that nobody needs any more."""
        return await self._timelines.collect()

    async def close(self) -> None:
        """Lets verbs under way end, leaves computes running but for those in the past."""
        for task in self._background:
            task.cancel()
        await self._moments.close()
        await self._turns.close()
        await self.computes.close()
