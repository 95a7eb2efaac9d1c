"""The values of CONTROL keys: what a control file says of a timeline at an LSN.

The packed layouts are ``ps_counters`` and ``ps_settings`` of native/core/value.h,
little-endian (docs/formats/keyspace.md); the messages are those of page.proto, field by
field in the same order.
"""

from __future__ import annotations

import struct

from pagestore.errors import DataLoss, InvalidInput
from pagestore.pgformat import versions
from pagestore.v1 import page_pb2 as pb

_COUNTERS = struct.Struct("<Q12Iq")
_SETTINGS = struct.Struct("<Q11I32sI")

_COUNTER_FIELDS = (
    "next_full_xid",
    "next_oid",
    "next_multi",
    "next_multi_offset",
    "oldest_xid",
    "oldest_xid_db",
    "oldest_multi",
    "oldest_multi_db",
    "oldest_commit_ts_xid",
    "newest_commit_ts_xid",
    "oldest_active_xid",
    "full_page_writes",
)
_SETTING_FIELDS = (
    "system_id",
    "wal_level",
    "wal_log_hints",
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_xacts",
    "max_locks_per_xact",
    "track_commit_timestamp",
    "data_checksum_version",
    "pg_control_version",
    "catalog_version",
)


def pack_counters(counters: pb.ControlCounters) -> bytes:
    """64 bytes."""
    values = [int(getattr(counters, name)) for name in _COUNTER_FIELDS]
    return _COUNTERS.pack(*values, 0, counters.checkpoint_time)


def unpack_counters(raw: bytes) -> pb.ControlCounters:
    """
    Raises:
        DataLoss: CONTROL_CORRUPT; `raw` has another length.
    """
    if len(raw) != _COUNTERS.size:
        raise DataLoss("CONTROL_CORRUPT", f"Counters have {len(raw)} bytes, not {_COUNTERS.size}.")
    *values, _, checkpoint_time = _COUNTERS.unpack(raw)
    fields = dict(zip(_COUNTER_FIELDS, values, strict=True))
    fields["full_page_writes"] = bool(fields["full_page_writes"])
    return pb.ControlCounters(**fields, checkpoint_time=checkpoint_time)


def pack_settings(settings: pb.ControlSettings) -> bytes:
    """88 bytes.

    Raises:
        InvalidInput: the nonce has not 32 bytes (none at all stands for zeros).
    """
    nonce = settings.mock_authentication_nonce or bytes(32)
    if len(nonce) != 32:
        raise InvalidInput("INVALID_IMPORT", f"A nonce has 32 bytes, not {len(nonce)}.")
    values = [int(getattr(settings, name)) for name in _SETTING_FIELDS]
    return _SETTINGS.pack(*values, nonce, 0)


def unpack_settings(raw: bytes) -> pb.ControlSettings:
    """
    Raises:
        DataLoss: CONTROL_CORRUPT; `raw` has another length.
    """
    if len(raw) != _SETTINGS.size:
        raise DataLoss("CONTROL_CORRUPT", f"Settings have {len(raw)} bytes, not {_SETTINGS.size}.")
    *values, nonce, _ = _SETTINGS.unpack(raw)
    fields = dict(zip(_SETTING_FIELDS, values, strict=True))
    for name in ("wal_log_hints", "track_commit_timestamp"):
        fields[name] = bool(fields[name])
    return pb.ControlSettings(**fields, mock_authentication_nonce=nonce)


def major_of(settings: bytes | None, where: str) -> int:
    """Of Postgres, as the value of SETTINGS says it; None for a timeline that has none.

    Args:
        where: of the error.

    Raises:
        FailedPrecondition: WRONG_POSTGRES_VERSION; one that this version does not know.
    """
    catalog_version = unpack_settings(settings).catalog_version if settings is not None else 0
    return versions.of_catalog(catalog_version, where).major
