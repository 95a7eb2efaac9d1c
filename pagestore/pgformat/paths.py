"""Names inside a data directory: which file holds which block, and back.

``base/<db>/<rel>[_fsm|_vm|_init][.<segment>]`` in the default tablespace,
``global/<rel>...`` for shared relations,
``pg_tblspc/<spc>/PG_<major>_<catalog version>/<db>/<rel>...`` in a tablespace that lies in place.
Others are outside the data directory and have no path here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pagestore.errors import InvalidInput
from pagestore.pgformat.layout import DEFAULT_TABLESPACE, GLOBAL_TABLESPACE
from pagestore.pgformat.versions import OLDEST, Version

DIRECTORIES = (
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
)
"""The directories that every server expects, parents first; base/<db> come on top."""

_FORK_SUFFIX = ("", "_fsm", "_vm", "_init")
_FORK_OF = {"": 0, "fsm": 1, "vm": 2, "init": 3}
_RELATION_FILE = re.compile(r"([1-9][0-9]{0,9})(?:_(fsm|vm|init))?(?:\.([1-9][0-9]{0,4}))?")


def own_directories(version: Version) -> tuple[str, ...]:
    """Those that this major expects besides."""
    return ("pg_wal/summaries",) if version.summaries else ()


class RelationFile(NamedTuple):
    """One file of a relation's fork: ``segment`` counts files of 1 GiB."""

    rel: int
    fork: int
    segment: int


def database_directory(spc: int, db: int, version: Version = OLDEST) -> str:
    """``base/5``, ``global``, or one in a tablespace of a user's own.

    Raises:
        InvalidInput: INVALID_DATABASE; there is no such directory.
    """
    if spc == GLOBAL_TABLESPACE and db == 0:
        return "global"
    if spc == DEFAULT_TABLESPACE and db != 0:
        return f"base/{db}"
    if spc != GLOBAL_TABLESPACE and db != 0:
        return f"{tablespace_directory(spc, version)}/{db}"
    raise InvalidInput(
        "INVALID_DATABASE", f"There can be no directory of database {db} in tablespace {spc}."
    )


def tablespace_directory(spc: int, version: Version) -> str:
    """Of a tablespace that lies in place: the directory of its databases' directories."""
    return f"pg_tblspc/{spc}/{version.tablespace_name}"


def relation_file(rel: int, fork: int, segment: int = 0) -> str:
    """The file's name inside its database directory."""
    name = f"{rel}{_FORK_SUFFIX[fork]}"
    return f"{name}.{segment}" if segment else name


def relation_path(
    spc: int, db: int, rel: int, fork: int, segment: int = 0, version: Version = OLDEST
) -> str:
    return f"{database_directory(spc, db, version)}/{relation_file(rel, fork, segment)}"


def parse_relation_file(name: str) -> RelationFile | None:
    """The inverse of :func:`relation_file`; None for anything else, temporary files too."""
    match = _RELATION_FILE.fullmatch(name)
    if match is None or int(match[1]) > 0xFFFFFFFF:
        return None
    return RelationFile(int(match[1]), _FORK_OF[match[2] or ""], int(match[3] or 0))
