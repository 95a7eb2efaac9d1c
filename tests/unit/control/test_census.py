"""Timelines that the page server has and the state does not know: an older state, never deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from pagestore.client.page import AsyncPageClient
from pagestore.control.census import take_census, unknown
from pagestore.control.records import TimelineState
from pagestore.control.state import ControlState
from pagestore.control.storage import FILE
from pagestore.errors import DataLoss
from pagestore.ids import TimelineId
from pagestore.lmdbfile import witness
from pagestore.v1 import page_pb2 as pb

from .fakes import KEY
from .test_state import T1, T2, TENANT, database, timeline

T3 = TimelineId(b"3" * 16)


def info(ident: TimelineId, parent: TimelineId | None = None, created: int = 0) -> pb.TimelineInfo:
    return pb.TimelineInfo(
        tenant_id=TENANT.raw,
        timeline_id=ident.raw,
        parent_timeline_id=parent.raw if parent else b"",
        branch_lsn=100,
        last_record_lsn=200,
        created_unix_micros=created,
    )


class Pages:
    """A page server that has these timelines; and something happens while it answers."""

    def __init__(self, *infos: pb.TimelineInfo, meanwhile: Any = lambda: None) -> None:
        self.infos = list(infos)
        self.meanwhile = meanwhile

    async def list_timelines(self, tenant: object) -> list[pb.TimelineInfo]:
        assert tenant is None, "an empty state knows no tenants"
        self.meanwhile()
        return self.infos


def census(state: ControlState, pages: Pages) -> None:
    asyncio.run(take_census(state, cast(AsyncPageClient, pages), KEY))


def known(directory: Path) -> ControlState:
    state = ControlState(directory)
    with state.change() as change:
        change.put_database(database("app"))
        change.put_timeline(timeline(T1, "app", TimelineState.LIVE))
    return state


def test_who_is_known_is_no_stranger() -> None:
    assert unknown([info(T1), info(T2)], {T1, T2}) == []
    assert unknown([info(T3, created=2), info(T1), info(T2, created=1)], {T1}) == [
        info(T2, created=1),
        info(T3, created=2),
    ]


def test_an_older_state_is_refused_by_name(tmp_path: Path) -> None:
    with known(tmp_path) as state:
        census(state, Pages(info(T1)))
        with pytest.raises(DataLoss, match="32323232") as caught:
            census(state, Pages(info(T1), info(T2, T1)))
        assert caught.value.reason == "CONTROL_STATE_OLDER"
        assert [record.name for record in state.view().databases()] == ["app"]


def test_an_empty_state_is_refused_where_there_are_timelines(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state, pytest.raises(DataLoss):
        census(state, Pages(info(T1)))


def test_verbs_under_way_are_not_taken_for_strangers(tmp_path: Path) -> None:
    with known(tmp_path) as state:

        def deleted_meanwhile() -> None:
            with state.change() as change:
                change.forget_timeline(T1)

        census(state, Pages(info(T1), meanwhile=deleted_meanwhile))

        def made_meanwhile() -> None:
            with state.change() as change:
                change.put_timeline(timeline(T2, "new", TimelineState.PENDING))

        census(state, Pages(info(T2), meanwhile=made_meanwhile))


def test_when_told_to_go_on_each_gets_a_name_and_nothing_is_dropped(tmp_path: Path) -> None:
    known(tmp_path).close()
    witness.acceptance_file(tmp_path / FILE).touch()
    pages = Pages(info(T1), info(T2, T1, created=1), info(T3, created=2))
    with ControlState(tmp_path) as state:
        census(state, pages)
        view = state.view()
        names = {record.timeline: record for record in view.databases()}
        assert names[T2].name == "lost-3232323232"
        assert names[T3].name == "lost-3333333333"
        inherited = names[T2].sealed_password
        assert inherited == names[T1].sealed_password != ""  # it is a branch of that
        assert names[T3].sealed_password not in ("", inherited)
        assert view.unsettled() == []
        assert view.has_children(T1)
        assert not state.accepted
        census(state, pages)
    with ControlState(tmp_path) as state, pytest.raises(DataLoss):
        census(state, Pages(*pages.infos, info(TimelineId(b"4" * 16))))
