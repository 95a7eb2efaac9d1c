"""The empty cluster that every ``create`` of a tenant branches: one initdb a tenant, ever.

Its locale is C.UTF-8, its superuser ``postgres``, and it has one spare database, which a
create renames. An agent makes it and brings it to the page server; here it is given a log and
remembered.
"""

from __future__ import annotations

from pagestore.client.computes import ComputeClient
from pagestore.client.walservice import WalService
from pagestore.control.records import TemplateRecord
from pagestore.control.state import ControlState
from pagestore.control.timelines import Timelines, planned
from pagestore.ids import TenantId
from pagestore.v1 import compute_pb2 as pb


async def ensure_template(
    state: ControlState,
    timelines: Timelines,
    agent: ComputeClient,
    wal: WalService,
    tenant: TenantId,
) -> TemplateRecord:
    """The template, made now if there is none."""
    existing = state.view().template(tenant)
    if existing is not None:
        return existing
    async with timelines.making(planned(tenant, "")) as making:
        made = await agent.make_template(
            pb.MakeTemplateRequest(tenant_id=tenant.raw, timeline_id=making.timeline.raw)
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
            making.root(made.lsn, made.system_id).live(change)
            change.put_template(template, tenant)
    return template
