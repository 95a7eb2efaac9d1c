"""The file of a replication slot."""

from __future__ import annotations

import dataclasses

import pytest

from pagestore.errors import DataLoss
from pagestore.pgformat.slot_state import SlotState, snapshot_path

WRITTEN_BY_POSTGRES = bytes.fromhex("a11c0501f62ca67902000000b8000000") + b"".join(
    (
        b"taken".ljust(64, b"\0"),
        bytes.fromhex("05000000 00000000 00000000 d4020000"),
        bytes.fromhex("381b510100000000 0000000000000000 701b510100000000 0000000000000000 00"),
        b"test_decoding".ljust(64, b"\0"),
        bytes(7),
    )
)


def test_what_postgres_wrote_is_read_and_written_the_same() -> None:
    state = SlotState.parse(WRITTEN_BY_POSTGRES, "here")
    assert (state.name, state.plugin, state.database) == ("taken", "test_decoding", 5)
    assert (state.catalog_xmin, state.restart_lsn, state.confirmed_flush) == (
        724,
        0x1511B38,
        0x1511B70,
    )
    assert state.is_logical
    assert not state.is_lost
    assert state.pack() == WRITTEN_BY_POSTGRES


def test_an_invalidated_slot_is_lost_and_remembers_where() -> None:
    lost = SlotState.parse(WRITTEN_BY_POSTGRES, "here").invalidated()
    assert lost.is_lost
    assert lost.invalidation == 0x1511B38
    assert SlotState.parse(lost.pack(), "here") == lost


@pytest.mark.parametrize("at", [0, 5, 9, 13, 40, 100, 199])
def test_a_flipped_byte_is_named(at: int) -> None:
    raw = bytearray(WRITTEN_BY_POSTGRES)
    raw[at] ^= 0x20
    with pytest.raises(DataLoss, match="here") as caught:
        SlotState.parse(bytes(raw), "here")
    assert caught.value.reason == "SLOT_CORRUPT"


def test_other_lengths_and_names_are_refused() -> None:
    for raw in (b"", WRITTEN_BY_POSTGRES[:-1], WRITTEN_BY_POSTGRES + b"\0"):
        with pytest.raises(DataLoss):
            SlotState.parse(raw, "here")
    state = SlotState.parse(WRITTEN_BY_POSTGRES, "here")
    for name in ("../etc", "Taken", ""):
        with pytest.raises(DataLoss):
            SlotState.parse(dataclasses.replace(state, name=name).pack(), "here")


def test_a_snapshot_is_named_as_postgres_names_it() -> None:
    assert snapshot_path(0x1_0151_1B38) == "pg_logical/snapshots/1-1511B38.snap"
