"""CONTROL values hold every field of their messages, at the core's offsets."""

from __future__ import annotations

import struct

import pytest

from pagestore.errors import DataLoss, InvalidInput
from pagestore.pg_control_values import (
    pack_counters,
    pack_settings,
    unpack_counters,
    unpack_settings,
)
from pagestore.v1 import page_pb2 as pb


def filled(message: object) -> dict[str, object]:
    """A distinct value for every field of a message type."""
    values: dict[str, object] = {}
    for number, field in enumerate(message.DESCRIPTOR.fields, 1):  # type: ignore[attr-defined]
        if field.type == field.TYPE_BYTES:
            values[field.name] = bytes(range(32))
        elif field.type == field.TYPE_BOOL:
            values[field.name] = True
        else:
            values[field.name] = 1000 + number
    return values


def test_round_trip() -> None:
    counters = pb.ControlCounters(**filled(pb.ControlCounters))  # type: ignore[arg-type]
    assert unpack_counters(pack_counters(counters)) == counters
    settings = pb.ControlSettings(**filled(pb.ControlSettings))  # type: ignore[arg-type]
    assert unpack_settings(pack_settings(settings)) == settings


def test_offsets_are_the_cores() -> None:
    raw = pack_counters(
        pb.ControlCounters(next_full_xid=1 << 40, next_oid=2, full_page_writes=True)
    )
    assert len(raw) == 64
    assert struct.unpack_from("<QI", raw) == (1 << 40, 2)
    assert struct.unpack_from("<I", raw, 48) == (1,)
    raw = pack_settings(pb.ControlSettings(system_id=1 << 63, catalog_version=202209061))
    assert len(raw) == 88
    assert struct.unpack_from("<Q", raw) == (1 << 63,)
    assert struct.unpack_from("<I", raw, 48) == (202209061,)


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(DataLoss):
        unpack_counters(bytes(63))
    with pytest.raises(DataLoss):
        unpack_settings(bytes(89))
    with pytest.raises(InvalidInput):
        pack_settings(pb.ControlSettings(mock_authentication_nonce=b"short"))
