"""``global/pg_control``: parse it, and make one from nothing.

The file is 8192 bytes: ``struct ControlFileData`` (292 bytes with its CRC-32C, 296 in Postgres 18;
padding as the x86-64 ABI lays it), then zeros. Offsets and meanings stand in
docs/formats/pg-control.md. Source: ``catalog/pg_control.h``.

A stateless start needs a control file that says "cleanly shut down, and the shutdown
checkpoint is the record at X"; :meth:`PgControl.at_shutdown` makes it from what the page
server knows of the timeline at X.
"""

from __future__ import annotations

import enum
import functools
import struct
from dataclasses import dataclass, fields
from typing import Protocol, Self

from pagestore._native import crc32c
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.pgformat import checkpoint_record, layout, versions
from pagestore.pgformat.checkpoint_record import CheckPoint, Counters
from pagestore.pgformat.versions import Version

FILE_SIZE = 8192
_HEAD = struct.Struct("<QII")
_CRC = struct.Struct("<I")


@functools.cache
def _body(version: Version) -> struct.Struct:
    checkpoint = checkpoint_record.format_of(version)
    signedness, behind = ("?", "3x") if version.control_names_char_signedness else ("", "")
    return struct.Struct(
        f"<QIIi4xqQ{checkpoint}QQI4xQQ?3xi?3xiiiii?3xId8I?3xI{signedness}32s{behind}"
    )


class DbState(enum.IntEnum):
    STARTUP = 0
    SHUTDOWNED = 1
    SHUTDOWNED_IN_RECOVERY = 2
    SHUTDOWNING = 3
    IN_CRASH_RECOVERY = 4
    IN_ARCHIVE_RECOVERY = 5
    IN_PRODUCTION = 6


class Settings(Protocol):
    """Control-file facts outside a checkpoint; ``pagestore.v1`` ControlSettings fits."""

    @property
    def system_id(self) -> int: ...
    @property
    def wal_level(self) -> int: ...
    @property
    def wal_log_hints(self) -> bool: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def max_worker_processes(self) -> int: ...
    @property
    def max_wal_senders(self) -> int: ...
    @property
    def max_prepared_xacts(self) -> int: ...
    @property
    def max_locks_per_xact(self) -> int: ...
    @property
    def track_commit_timestamp(self) -> bool: ...
    @property
    def data_checksum_version(self) -> int: ...
    @property
    def pg_control_version(self) -> int: ...
    @property
    def catalog_version(self) -> int: ...
    @property
    def mock_authentication_nonce(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PgControl:
    """``struct ControlFileData``, in its order, without the CRC."""

    system_id: int
    pg_control_version: int
    catalog_version: int
    state: DbState
    time: int
    checkpoint_lsn: int
    checkpoint: CheckPoint
    unlogged_lsn: int
    min_recovery_point: int
    min_recovery_point_timeline: int
    backup_start_point: int
    backup_end_point: int
    backup_end_required: bool
    wal_level: int
    wal_log_hints: bool
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_xacts: int
    max_locks_per_xact: int
    track_commit_timestamp: bool
    max_align: int
    float_format: float
    block_size: int
    segment_blocks: int
    wal_page_size: int
    wal_segment_size: int
    name_length: int
    index_max_keys: int
    toast_max_chunk: int
    large_object_block: int
    float8_by_value: bool
    data_checksum_version: int
    default_char_signedness: bool | None
    """None in a major that does not name it."""
    mock_authentication_nonce: bytes

    @property
    def version(self) -> Version:
        """The major whose control file it is."""
        return versions.of_catalog(self.catalog_version, "The control file")

    @classmethod
    def parse(cls, data: bytes, where: str = "pg_control") -> Self:
        """From the file's bytes.

        Raises:
            FailedPrecondition: another version of Postgres wrote it.
            DataLoss: it is short, or its checksum does not hold.
        """
        if len(data) < _HEAD.size:
            raise DataLoss("CONTROL_FILE_CORRUPT", f"{where} has only {len(data)} bytes.")
        _, control_version, catalog_version = _HEAD.unpack_from(data)
        version = versions.of_catalog(catalog_version, where)
        if control_version != version.control_version:
            raise FailedPrecondition(
                "WRONG_POSTGRES_VERSION",
                f"{where} has format {control_version}; Postgres {version.major} writes "
                f"{version.control_version}.",
                "Bring the cluster to a Postgres that pagestore knows first: pg_upgrade, or "
                "pg_dumpall and psql.",
            )
        body = _body(version)
        if len(data) < body.size + _CRC.size:
            raise DataLoss("CONTROL_FILE_CORRUPT", f"{where} has only {len(data)} bytes.")
        stored = _CRC.unpack_from(data, body.size)[0]
        if stored != crc32c(data[: body.size]):
            raise DataLoss("CONTROL_FILE_CORRUPT", f"The checksum of {where} does not hold.")
        values = list(body.unpack_from(data))
        state = values[3]
        if state not in DbState.__members__.values():
            raise DataLoss("CONTROL_FILE_CORRUPT", f"{where} has the unknown state {state}.")
        values[3] = DbState(state)
        checkpoint, rest = CheckPoint.of_values(values[6:], version)
        if not version.control_names_char_signedness:
            rest.insert(-1, None)
        ordered = [*values[:6], checkpoint, *rest]
        return cls(**dict(zip((field.name for field in fields(cls)), ordered, strict=True)))

    def pack(self) -> bytes:
        """The file's 8192 bytes."""
        values: list[object] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, CheckPoint):
                values += value.values()
            elif value is not None:
                values.append(value)
        body = _body(self.version).pack(*values)
        return (body + _CRC.pack(crc32c(body))).ljust(FILE_SIZE, b"\0")

    @classmethod
    def at_shutdown(
        cls, counters: Counters, settings: Settings, *, checkpoint_lsn: int, time: int
    ) -> PgControl:
        """The control file of a cluster cleanly stopped with the shutdown checkpoint record
        at ``checkpoint_lsn`` (the record's start, past any page header). ``time``: Unix
        seconds of that checkpoint."""
        version = versions.of_catalog(settings.catalog_version)
        return cls(
            system_id=settings.system_id,
            pg_control_version=version.control_version,
            catalog_version=version.catalog_version,
            state=DbState.SHUTDOWNED,
            time=time,
            checkpoint_lsn=checkpoint_lsn,
            checkpoint=CheckPoint.at_shutdown(
                counters,
                redo=checkpoint_lsn,
                time=time,
                version=version,
                wal_level=settings.wal_level,
            ),
            unlogged_lsn=layout.FIRST_UNLOGGED_LSN,
            min_recovery_point=0,
            min_recovery_point_timeline=0,
            backup_start_point=0,
            backup_end_point=0,
            backup_end_required=False,
            wal_level=settings.wal_level,
            wal_log_hints=settings.wal_log_hints,
            max_connections=settings.max_connections,
            max_worker_processes=settings.max_worker_processes,
            max_wal_senders=settings.max_wal_senders,
            max_prepared_xacts=settings.max_prepared_xacts,
            max_locks_per_xact=settings.max_locks_per_xact,
            track_commit_timestamp=settings.track_commit_timestamp,
            max_align=layout.MAX_ALIGN,
            float_format=layout.FLOAT_FORMAT,
            block_size=layout.PAGE_SIZE,
            segment_blocks=layout.SEGMENT_BLOCKS,
            wal_page_size=layout.WAL_PAGE_SIZE,
            wal_segment_size=layout.WAL_SEGMENT_SIZE,
            name_length=layout.NAME_LENGTH,
            index_max_keys=layout.INDEX_MAX_KEYS,
            toast_max_chunk=layout.TOAST_MAX_CHUNK,
            large_object_block=layout.LARGE_OBJECT_BLOCK,
            float8_by_value=True,
            data_checksum_version=settings.data_checksum_version,
            # Of x86-64, and nothing else is known here.
            default_char_signedness=True if version.control_names_char_signedness else None,
            mock_authentication_nonce=settings.mock_authentication_nonce.ljust(32, b"\0"),
        )

    def check_layout(self, where: str = "pg_control") -> None:
        """Refuses a cluster whose build differs in anything that shapes its files."""
        expected = {
            "max_align": layout.MAX_ALIGN,
            "float_format": layout.FLOAT_FORMAT,
            "block_size": layout.PAGE_SIZE,
            "segment_blocks": layout.SEGMENT_BLOCKS,
            "wal_page_size": layout.WAL_PAGE_SIZE,
            "wal_segment_size": layout.WAL_SEGMENT_SIZE,
            "name_length": layout.NAME_LENGTH,
            "index_max_keys": layout.INDEX_MAX_KEYS,
            "toast_max_chunk": layout.TOAST_MAX_CHUNK,
            "large_object_block": layout.LARGE_OBJECT_BLOCK,
            "float8_by_value": True,
        }
        for name, value in expected.items():
            found = getattr(self, name)
            if found != value:
                raise FailedPrecondition(
                    "INCOMPATIBLE_CLUSTER",
                    f"{where} says {name} = {found}; pagestore needs {value}.",
                    "Load the data into a cluster of the distribution's defaults first: "
                    "pg_dumpall and psql.",
                )
