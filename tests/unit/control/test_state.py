"""The control plane's state: transactions, scans, damage."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagestore.control import storage
from pagestore.control.records import (
    CheckpointRecord,
    DatabaseRecord,
    EventRecord,
    TimelineRecord,
    TimelineState,
    Verb,
)
from pagestore.control.state import ControlState
from pagestore.errors import DataLoss, FailedPrecondition, NotFound
from pagestore.ids import DEFAULT_TENANT, TenantId, TimelineId
from pagestore.lmdbfile.pages import Damaged

TENANT = DEFAULT_TENANT
T1 = TimelineId(b"1" * 16)
T2 = TimelineId(b"2" * 16)


def database(name: str, timeline: TimelineId = T1, tenant: TenantId = TENANT) -> DatabaseRecord:
    return DatabaseRecord(
        tenant=tenant,
        name=name,
        timeline=timeline,
        branch_lsn=100,
        created_micros=1,
        sealed_password="sealed",
        postgres_database=name,
    )


def timeline(ident: TimelineId, name: str, state: TimelineState) -> TimelineRecord:
    return TimelineRecord(
        timeline=ident,
        tenant=TENANT,
        state=state,
        database=name,
        parent=None,
        branch_lsn=100,
        created_micros=1,
    )


def test_records_of_old_are_read_without_what_is_no_more() -> None:
    """Where a database's compute listened and whether it should run; that it got another port."""
    said = database("app").model_dump_json().encode()
    assert b"port" not in said
    assert b"wanted" not in said.replace(b'"settings":{"wanted":{}', b"")
    old = said.replace(b'"name"', b'"port":10432,"wanted":false,"name"', 1)
    assert DatabaseRecord.decode(old, "here") == database("app")
    with pytest.raises(DataLoss, match="here"):
        DatabaseRecord.decode(said.replace(b'"name"', b'"ports":1,"name"', 1), "here")
    moved = event(Verb.CREATE, 1).model_dump_json().encode().replace(b'"create"', b'"port"')
    assert EventRecord.decode(moved, "there").verb is Verb.PORT


def event(verb: Verb, number: int) -> EventRecord:
    return EventRecord(verb=verb, timeline=T1, lsn=number, created_micros=number)


def break_midway(state: ControlState) -> None:
    with state.change() as change:
        change.put_database(database("app"))
        change.add_event(TENANT, "app", event(Verb.CREATE, 1))
        raise RuntimeError("midway")


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state:
        with pytest.raises(RuntimeError, match="midway"):
            break_midway(state)
        assert state.view().database(TENANT, "app") is None
        assert state.view().events(TENANT, "app") == []


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state, state.change() as change:
        change.put_database(database("app"))
        change.put_timeline(timeline(T1, "app", TimelineState.LIVE))
        change.put_kept_files(T1, {"a/b": b"statistics", "c": b""})
    with ControlState(tmp_path) as state:
        assert state.view().known_database(TENANT, "app") == database("app")
        assert state.view().known_timeline(T1).state is TimelineState.LIVE
        assert state.view().kept_files(T1) == {"a/b": b"statistics", "c": b""}


def test_a_file_is_kept_in_few_bytes_and_one_that_was_kept_as_it_was_is_read(
    tmp_path: Path,
) -> None:
    statistics = struct.pack("<I", 0x01A5BCB2) + bytes(50_000)
    with ControlState(tmp_path) as state:
        with state.change() as change:
            change.put_kept_files(T1, {"pg_stat/pgstat.stat": statistics})
            change._put("kept_files", T2.raw + b"pg_stat/pgstat.stat", statistics)
        assert state.view().kept_files(T1) == state.view().kept_files(T2)
        [(_, value)] = state.view()._scan("kept_files", T1.raw)
        assert len(value) < 1000


def test_names_that_begin_alike_do_not_mix(tmp_path: Path) -> None:
    other = TenantId(b"o" * 16)
    with ControlState(tmp_path) as state:
        with state.change() as change:
            for number in range(300):
                change.add_event(TENANT, "app", event(Verb.CHECKPOINT, number))
            change.add_event(TENANT, "app2", event(Verb.CREATE, 7))
            change.add_event(other, "app", event(Verb.CREATE, 8))
            change.put_database(database("app", tenant=other))
        assert [e.lsn for e in state.view().events(TENANT, "app")] == list(range(300))
        assert [e.lsn for e in state.view().events(TENANT, "app2")] == [7]
        assert [e.lsn for e in state.view().events(other, "app")] == [8]
        assert state.view().databases(TENANT) == []
        assert len(state.view().databases()) == 1


def test_removing_a_database_drops_its_timelines_and_nothing_else(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state:
        with state.change() as change:
            change.put_database(database("app"))
            change.put_timeline(timeline(T1, "app", TimelineState.LIVE))
            change.put_timeline(timeline(T2, "app2", TimelineState.LIVE))
            change.add_event(TENANT, "app", event(Verb.CREATE, 1))
            change.put_checkpoint(
                TENANT, "app", CheckpointRecord(name="c", timeline=T1, lsn=5, created_micros=1)
            )
        with state.change() as change:
            assert change.remove_database(database("app")) == [T1]
        view = state.view()
        with pytest.raises(NotFound) as caught:
            view.known_database(TENANT, "app")
        assert caught.value.reason == "DATABASE_NOT_FOUND"
        assert view.checkpoints(TENANT, "app") == view.events(TENANT, "app") == []
        assert view.known_timeline(T1).state is TimelineState.DROPPED
        assert view.known_timeline(T2).state is TimelineState.LIVE


def test_indexes_follow_a_timeline_through_its_life(tmp_path: Path) -> None:
    child = timeline(T2, "app", TimelineState.PENDING).model_copy(update={"parent": T1})
    with ControlState(tmp_path) as state:
        with state.change() as change:
            change.put_timeline(timeline(T1, "app", TimelineState.LIVE))
            change.put_timeline(child)
        view = state.view()
        assert [record.timeline for record in view.unsettled()] == [T2]
        assert view.has_children(T1)
        assert not view.has_children(T2)
        assert [record.timeline for record in view.timelines_of(TENANT, "app")] == [T1, T2]
        with state.change() as change:
            change.set_timeline_state(T2, TimelineState.LIVE)
        assert view.unsettled() == []
        with state.change() as change:
            change.set_timeline_state(T2, TimelineState.DROPPED)
            change.forget_timeline(T2)
        assert view.unsettled() == []
        assert not view.has_children(T1)
        assert [record.timeline for record in view.timelines_of(TENANT, "app")] == [T1]


def test_one_directory_has_one_control_plane(tmp_path: Path) -> None:
    with ControlState(tmp_path), pytest.raises(FailedPrecondition) as caught:
        ControlState(tmp_path)
    assert caught.value.reason == "CONTROL_STATE_IN_USE"


@given(st.data())
def test_any_flipped_bit_of_a_value_is_noticed(data: st.DataObject) -> None:
    raw = bytearray(storage.seal(b"databases", b"app", database("app").encode()))
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    with pytest.raises(Damaged, match="app"):
        storage.unseal(b"databases", b"app", bytes(raw))


def test_a_value_under_anothers_key_is_noticed() -> None:
    raw = storage.seal(b"databases", b"app", database("app").encode())
    for table, key in ((b"databases", b"zoo"), (b"events", b"app")):
        with pytest.raises(Damaged):
            storage.unseal(table, key, raw)


@given(st.integers(0, 4))
def test_a_cut_value_is_noticed(length: int) -> None:
    raw = storage.seal(b"databases", b"app", database("app").encode())
    with pytest.raises(Damaged):
        storage.unseal(b"databases", b"app", raw[:length])


def test_no_generation_is_given_away_twice(tmp_path: Path) -> None:
    with ControlState(tmp_path) as state:
        with state.change() as change:
            assert change.take_generations(3, above=1) == 2
        with state.change() as change:
            assert change.take_generations(3, above=9) == 10
    with ControlState(tmp_path) as again, again.change() as change:
        assert change.take_generations(3, above=1) == 13
