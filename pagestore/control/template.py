"""The empty cluster that every ``create`` of a tenant branches: one a major.

Its locale is C.UTF-8, its superuser ``postgres``, and it has one spare database, which a
create renames. An agent makes it and brings it to the page server; here it is given a log and
remembered.
"""

from __future__ import annotations

import asyncio

from pagestore.client.computes import ComputeClient
from pagestore.client.walservice import WalService
from pagestore.control.records import TemplateRecord
from pagestore.control.state import ControlState
from pagestore.control.timelines import Timelines, planned
from pagestore.ids import TenantId
from pagestore.postgres.majors import Installed
from pagestore.v1 import compute_pb2 as pb


class Templates:
    """The templates, each made when it is first needed."""

    def __init__(
        self,
        state: ControlState,
        timelines: Timelines,
        agent: ComputeClient,
        wal: WalService,
        installed: Installed,
    ) -> None:
        self._state = state
        self._timelines = timelines
        self._agent, self._wal = agent, wal
        self._installed = installed
        self._making = asyncio.Lock()

    async def of(self, tenant: TenantId, major: int) -> TemplateRecord:
        """
        Args:
            major: 0 for the newest that is installed.

        Raises:
            FailedPrecondition: POSTGRES_MISSING, MODULES_MISSING; that major is not installed.
        """
        major = major or self._installed.newest()
        async with self._making:
            return await ensure_template(
                self._state, self._timelines, self._agent, self._wal, tenant, major
            )


async def ensure_template(
    state: ControlState,
    timelines: Timelines,
    agent: ComputeClient,
    wal: WalService,
    tenant: TenantId,
    major: int,
) -> TemplateRecord:
    """The template of that major, made now if there is none."""
    existing = state.view().template(tenant, major)
    if existing is not None:
        return existing
    async with timelines.making(planned(tenant, "")) as making:
        made = await agent.make_template(
            pb.MakeTemplateRequest(
                tenant_id=tenant.raw, timeline_id=making.timeline.raw, postgres_major=major
            )
        )
        await wal.create_timeline(
            tenant,
            making.timeline,
            made.lsn,
            prev_record_lsn=made.prev_record_lsn,
            system_id=made.system_id,
        )
        template = TemplateRecord(
            timeline=making.timeline, lsn=made.lsn, prev_record_lsn=made.prev_record_lsn
        )
        with state.change() as change:
            making.root(made.lsn, made.system_id, major).live(change)
            change.put_template(template, tenant, major)
    return template
