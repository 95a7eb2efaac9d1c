"""Whether the page server has timelines that the control plane's state does not know.

A timeline stands in the state before any service hears of it, and until every service has
deleted it. So one that the page server has and the state does not know was made by a newer state
than this one: a copy of the whole folder of yesterday looks whole, and is found here. It is
refused, and nothing is deleted; told to go on with it, the control plane gives each such
timeline a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from pagestore.client.page import AsyncPageClient
from pagestore.control import credentials
from pagestore.control.operator_key import OperatorKey
from pagestore.control.records import (
    DatabaseRecord,
    EventRecord,
    TimelineRecord,
    TimelineState,
    UnmadeLog,
    Verb,
)
from pagestore.control.state import Change, ControlState, now_micros
from pagestore.errors import DataLoss
from pagestore.ids import TenantId, TimelineId, format_lsn
from pagestore.postgres.template import OWNER_ROLE
from pagestore.v1 import page_pb2 as pb

_log = structlog.get_logger(__name__)


async def take_census(state: ControlState, pages: AsyncPageClient, key: OperatorKey) -> None:
    """Once after each start, before anything is changed where that can be.

    Raises:
        DataLoss: CONTROL_STATE_OLDER.
        Unavailable: the page server does not answer.
    """
    # Whoever was known at either moment is known: verbs may be under way.
    before = state.view().timeline_ids()
    there = await pages.list_timelines(None)
    strangers = unknown(there, before | state.view().timeline_ids())
    if strangers and not state.accepted:
        raise _older(state, strangers)
    if strangers:
        adopt(state, strangers, key)
    if state.accepted:
        state.forget_acceptance()


def unknown(there: Iterable[pb.TimelineInfo], known: Iterable[TimelineId]) -> list[pb.TimelineInfo]:
    """Those of `there` that are not known, the oldest first."""
    raw = {timeline.raw for timeline in known}
    return sorted(
        (info for info in there if info.timeline_id not in raw),
        key=lambda info: (info.created_unix_micros, info.timeline_id),
    )


def adopt(state: ControlState, strangers: Sequence[pb.TimelineInfo], key: OperatorKey) -> None:
    """Gives each a name; in one transaction."""
    with state.change() as change:
        for info in strangers:
            record = _name(change, info, key)
            _log.warning(
                "a timeline that no record knew has a name now",
                timeline=str(record.timeline),
                name=record.name,
            )


def _name(change: Change, info: pb.TimelineInfo, key: OperatorKey) -> DatabaseRecord:
    tenant, timeline = TenantId(info.tenant_id), TimelineId(info.timeline_id)
    parent = TimelineId(info.parent_timeline_id) if info.parent_timeline_id else None
    known_parent = change.timeline(parent) if parent is not None else None
    made = TimelineRecord(
        timeline=timeline,
        tenant=tenant,
        state=TimelineState.LIVE,
        database=f"lost-{str(timeline)[:10]}",
        parent=parent,
        branch_lsn=info.branch_lsn,
        usable_lsn=info.branch_lsn,
        system_id=known_parent.system_id if known_parent else 0,
        created_micros=info.created_unix_micros,
        unmade_log=UnmadeLog(doubtful=True),
    )
    # Inside, a branch is what its parent was: the same roles, passwords and databases.
    owner = change.database(tenant, known_parent.database) if known_parent else None
    database = DatabaseRecord(
        tenant=tenant,
        name=made.database,
        timeline=timeline,
        branch_lsn=info.branch_lsn,
        created_micros=info.created_unix_micros,
        sealed_password=(
            owner.sealed_password if owner else key.seal(tenant, credentials.new_password())
        ),
        postgres_database=owner.postgres_database if owner else OWNER_ROLE,
    )
    found = EventRecord(
        verb=Verb.CREATE,
        timeline=timeline,
        lsn=info.branch_lsn,
        created_micros=now_micros(),
        detail="found at the page server, unknown to the control plane's state",
    )
    change.put_timeline(made)
    change.put_database(database)
    change.add_event(tenant, database.name, found)
    return database


def _older(state: ControlState, strangers: Sequence[pb.TimelineInfo]) -> DataLoss:
    shown = [
        f"{info.timeline_id.hex()} (up to {format_lsn(info.last_record_lsn)})"
        for info in strangers[-3:]
    ]
    more = ", ..." if len(strangers) > len(shown) else ""
    return DataLoss(
        "CONTROL_STATE_OLDER",
        f"The page server has {len(strangers)} timelines that the control plane's state in "
        f"{state.directory} does not know: {', '.join(shown)}{more}. It is an older copy, or the "
        "page server is another one's.",
        "Put the newest copy of the folder `control` back. To go on with this one, `pagestore "
        "lost --accept control`: each of these timelines becomes a database `lost-...`.",
    )
