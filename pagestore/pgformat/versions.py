"""What differs between major versions of Postgres, on disk and in WAL: a row a major.

All that shapes a data directory and is not here is the same in each, and stands in
:mod:`pagestore.pgformat.layout`. The counterparts are native/postgres/version.h for the modules
inside Postgres and native/core/wal/format.h for ingest; docs/postgres.md says how a major is added.

A cluster says which it is by the catalog version of its control file, which a timeline keeps among
its settings. (The control file's own version does not do: 15 and 16 share one.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pagestore.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class Version:
    """One major.

    Args:
        control_version: of ``pg_control``'s format.
        wal_magic: of each WAL page.
        relation_map_length: bytes of a pg_filenode.map.
        checkpoint_names_wal_level: in the record, where others have padding.
        control_names_char_signedness: behind the version of the data checksums.
        inplace_names_database: in a record of Heap/INPLACE, with what caches must forget.
        slot_version: of a replication slot's state file.
        two_phase_digits: of a state file's name; with 16 the epoch comes first.
        summaries: whether there is a directory pg_wal/summaries.
        checksums_by_default: whether initdb turns them on.
        scan_ahead_blocks: how far a backend's first scan of pg_attribute, which ends early, has
            read on by then: from 17 on scans read by streams.
        upgrade_keeps_statistics: whether pg_upgrade takes the planner's along.
        pinned_settings: what a compute's command line says besides: no summaries, which need WAL
            that a stateless directory lacks, and no end of slots that are idle.
        redo_settings: what a redo helper is told besides.
    """

    major: int
    catalog_version: int
    control_version: int
    wal_magic: int
    relation_map_length: int
    checkpoint_names_wal_level: bool
    control_names_char_signedness: bool
    inplace_names_database: bool
    slot_version: int
    two_phase_digits: int
    summaries: bool
    checksums_by_default: bool
    scan_ahead_blocks: int
    upgrade_keeps_statistics: bool
    pinned_settings: tuple[tuple[str, str], ...] = ()
    redo_settings: tuple[tuple[str, str], ...] = ()

    @property
    def version_file(self) -> bytes:
        """The content of every PG_VERSION."""
        return b"%d\n" % self.major

    @property
    def tablespace_name(self) -> str:
        """Of the directory, inside a tablespace, that is this major's."""
        return f"PG_{self.major}_{self.catalog_version}"

    def two_phase_file(self, xid: int, next_full_xid: int) -> str:
        """The name of a prepared transaction's state file, among whose cluster's transactions
        `next_full_xid` comes next."""
        if self.two_phase_digits == 8:
            return f"{xid:08X}"
        epoch = next_full_xid >> 32
        if xid > next_full_xid & 0xFFFFFFFF:
            epoch = max(0, epoch - 1)
        return f"{epoch:08X}{xid:08X}"


POSTGRES_15: Final = Version(
    major=15,
    catalog_version=202209061,
    control_version=1300,
    wal_magic=0xD110,
    relation_map_length=512,
    checkpoint_names_wal_level=False,
    control_names_char_signedness=False,
    inplace_names_database=False,
    slot_version=2,
    two_phase_digits=8,
    summaries=False,
    checksums_by_default=False,
    scan_ahead_blocks=0,
    upgrade_keeps_statistics=False,
)
POSTGRES_17: Final = Version(
    major=17,
    catalog_version=202406281,
    control_version=1700,
    wal_magic=0xD116,
    relation_map_length=524,
    checkpoint_names_wal_level=True,
    control_names_char_signedness=False,
    inplace_names_database=False,
    slot_version=5,
    two_phase_digits=16,
    summaries=True,
    checksums_by_default=False,
    scan_ahead_blocks=8,
    upgrade_keeps_statistics=False,
    pinned_settings=(("summarize_wal", "off"),),
)
POSTGRES_18: Final = Version(
    major=18,
    catalog_version=202506291,
    control_version=1800,
    wal_magic=0xD118,
    relation_map_length=524,
    checkpoint_names_wal_level=True,
    control_names_char_signedness=True,
    inplace_names_database=True,
    slot_version=5,
    two_phase_digits=16,
    summaries=True,
    checksums_by_default=True,
    scan_ahead_blocks=24,
    upgrade_keeps_statistics=True,
    pinned_settings=(("summarize_wal", "off"), ("idle_replication_slot_timeout", "0")),
    redo_settings=(
        ("io_method", "sync"),
        ("io_max_concurrency", "1"),
        ("autovacuum_worker_slots", "1"),
    ),
)

ALL: Final = (POSTGRES_15, POSTGRES_17, POSTGRES_18)
OLDEST: Final = POSTGRES_15
"""What a timeline is that does not say: before there was a second major, none did."""

_KNOWN = ", ".join(str(version.major) for version in ALL)


def of_major(major: int, where: str = "") -> Version:
    """
    Raises:
        FailedPrecondition: WRONG_POSTGRES_VERSION; pagestore does not know that major.
    """
    return _found(next((each for each in ALL if each.major == major), None), f"{major}", where)


def of_catalog(catalog_version: int, where: str = "") -> Version:
    """The major whose control files name that catalog version; 0 for the oldest.

    Raises:
        FailedPrecondition: WRONG_POSTGRES_VERSION.
    """
    if catalog_version == 0:
        return OLDEST
    found = next((each for each in ALL if each.catalog_version == catalog_version), None)
    return _found(found, f"with the catalog version {catalog_version}", where)


def _found(version: Version | None, which: str, where: str) -> Version:
    if version is not None:
        return version
    if not where:
        raise FailedPrecondition(
            "WRONG_POSTGRES_VERSION",
            f"Postgres {which} is none that pagestore knows: {_KNOWN}.",
            "`pagestore status` says which of them are installed.",
        )
    raise FailedPrecondition(
        "WRONG_POSTGRES_VERSION",
        f"{where} is of Postgres {which}. pagestore knows Postgres {_KNOWN}.",
        "Bring the cluster to one of these first: pg_upgrade, or pg_dumpall and psql.",
    )
