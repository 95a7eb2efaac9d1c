from __future__ import annotations

import struct

import pytest

from pagestore._native import crc32c
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.pgformat.pg_control import DbState, PgControl
from pagestore.v1 import page_pb2 as pb

COUNTERS = pb.ControlCounters(
    next_full_xid=(7 << 32) + 1024,
    next_oid=24576,
    next_multi=5,
    next_multi_offset=9,
    oldest_xid=716,
    oldest_xid_db=1,
    oldest_multi=1,
    oldest_multi_db=2,
    oldest_commit_ts_xid=3,
    newest_commit_ts_xid=4,
    full_page_writes=True,
)
SETTINGS = pb.ControlSettings(
    system_id=0x1122334455667788,
    wal_level=1,
    wal_log_hints=True,
    max_connections=100,
    max_worker_processes=8,
    max_wal_senders=10,
    max_prepared_xacts=64,
    max_locks_per_xact=65,
    track_commit_timestamp=True,
    data_checksum_version=1,
    catalog_version=202209061,
    mock_authentication_nonce=bytes(range(32)),
)


def made() -> PgControl:
    return PgControl.at_shutdown(COUNTERS, SETTINGS, checkpoint_lsn=0x3000028, time=1795406135)


# docs/formats/pg-control.md
OFFSETS = {
    0: ("<Q", 0x1122334455667788),
    8: ("<I", 1300),
    12: ("<I", 202209061),
    16: ("<I", 1),
    24: ("<q", 1795406135),
    32: ("<Q", 0x3000028),
    40: ("<Q", 0x3000028),
    48: ("<I", 1),
    52: ("<I", 1),
    56: ("<B", 1),
    64: ("<Q", (7 << 32) + 1024),
    72: ("<I", 24576),
    76: ("<I", 5),
    80: ("<I", 9),
    84: ("<I", 716),
    88: ("<I", 1),
    92: ("<I", 1),
    96: ("<I", 2),
    104: ("<q", 1795406135),
    112: ("<I", 3),
    116: ("<I", 4),
    120: ("<I", 0),
    128: ("<Q", 1000),
    172: ("<i", 1),
    176: ("<B", 1),
    180: ("<i", 100),
    196: ("<i", 65),
    200: ("<B", 1),
    204: ("<I", 8),
    208: ("<d", 1234567.0),
    216: ("<I", 8192),
    228: ("<I", 16 << 20),
    244: ("<I", 2048),
    248: ("<B", 1),
    252: ("<I", 1),
    256: ("32s", bytes(range(32))),
}


@pytest.mark.parametrize("offset", OFFSETS)
def test_offsets(offset: int) -> None:
    form, value = OFFSETS[offset]
    assert struct.unpack_from(form, made().pack(), offset)[0] == value


def test_the_file_ends_in_its_checksum_and_zeros() -> None:
    data = made().pack()
    assert len(data) == 8192
    assert struct.unpack_from("<I", data, 288)[0] == crc32c(data[:288])
    assert not any(data[292:])


def test_parse_is_the_inverse_of_pack() -> None:
    assert PgControl.parse(made().pack()) == made()
    assert made().state is DbState.SHUTDOWNED


@pytest.mark.parametrize("offset", [0, 16, 57, 171, 287, 288])
def test_a_flipped_bit_is_named(offset: int) -> None:
    data = bytearray(made().pack())
    data[offset] ^= 0x10
    with pytest.raises(DataLoss, match="checksum of somewhere/pg_control") as caught:
        PgControl.parse(bytes(data), "somewhere/pg_control")
    assert caught.value.reason == "CONTROL_FILE_CORRUPT"


def test_a_short_file_is_named() -> None:
    with pytest.raises(DataLoss, match="only 100 bytes"):
        PgControl.parse(made().pack()[:100])


def test_another_version_names_the_way_out() -> None:
    data = bytearray(made().pack())
    struct.pack_into("<I", data, 8, 1201)
    with pytest.raises(FailedPrecondition, match="format 1201") as caught:
        PgControl.parse(bytes(data))
    assert "pg_upgrade" in str(caught.value.hint)


def test_another_build_is_refused() -> None:
    data = bytearray(made().pack())
    struct.pack_into("<I", data, 216, 16384)
    struct.pack_into("<I", data, 288, crc32c(bytes(data[:288])))
    with pytest.raises(FailedPrecondition, match="block_size = 16384"):
        PgControl.parse(bytes(data)).check_layout()
