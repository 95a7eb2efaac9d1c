"""A vanilla cluster on disk: what lies in its data directory, and whether it can be read.

Reads names and lengths only; :mod:`pagestore.transfer.pgdata` reads the contents. A cluster
can be taken over as it lies when it was cleanly stopped: then its files are the whole truth
at the end of its shutdown checkpoint record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pagestore.errors import DataLoss, FailedPrecondition, NotFound
from pagestore.pgformat import layout, paths, versions
from pagestore.pgformat.pg_control import DbState, PgControl
from pagestore.postgres.remote_map import Fork

_INIT_FORK = 3
_HINT_STOP = "Stop it first: pg_ctl stop -m fast."


@dataclass(slots=True)
class RelationFiles:
    """One fork's files, in order of segments, and its length in blocks."""

    paths: list[Path] = field(default_factory=list)
    nblocks: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    directory: Path
    control: PgControl
    databases: list[tuple[int, int]]
    """(tablespace, oid) of the directory that is a database's own, ascending; shared relations
    come on top. One in the default tablespace without PG_VERSION is what a broken CREATE DATABASE
    left, and is none; elsewhere it holds relations of a database that lies in another."""
    relations: dict[Fork, RelationFiles]
    """Ascending by (spc, db, rel, fork); without what a start makes anew."""
    tablespaces: list[int]
    """Oids of a user's own, which lie in place."""

    def database_directories(self) -> list[str]:
        """Paths of ``databases``, from ``directory``."""
        version = self.control.version
        return [paths.database_directory(spc, db, version) for spc, db in self.databases]

    @property
    def total_blocks(self) -> int:
        return sum(relation.nblocks for relation in self.relations.values())


@contextmanager
def named_read_errors() -> Iterator[None]:
    """A failed system call as an error that says what to do."""
    try:
        yield
    except PermissionError as error:
        raise FailedPrecondition(
            "PERMISSION_DENIED",
            f"{error.filename} cannot be read.",
            "Run the import as root or as the owner of the directory.",
        ) from error
    except OSError as error:
        raise DataLoss(
            "READ_FAILED", f"{error.filename or 'A file'} cannot be read: {error.strerror}."
        ) from error


def read_control(directory: Path) -> PgControl:
    """The control file of a cluster of this version and build.

    Raises:
        NotFound: NOT_A_CLUSTER; the directory is not a data directory.
        FailedPrecondition: it is one of another version or build.
        DataLoss: its control file is damaged.
    """
    version_file = directory / "PG_VERSION"
    try:
        version = version_file.read_text().strip()
        data = (directory / "global/pg_control").read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            "NOT_A_CLUSTER",
            f"{directory} is not a Postgres data directory: {error.filename} is missing.",
            "Name the directory that holds PG_VERSION, for example /var/lib/postgresql/15/main.",
        ) from error
    major = versions.of_major(int(version) if version.isdecimal() else 0, str(directory)).major
    control = PgControl.parse(data, str(directory / "global/pg_control"))
    if control.version.major != major:
        raise DataLoss(
            "CONTROL_FILE_CORRUPT",
            f"{directory} says that it is of Postgres {major}, but its control file is of "
            f"{control.version.major}.",
        )
    control.check_layout(str(directory / "global/pg_control"))
    return control


def check_not_running(directory: Path) -> None:
    """Refuses a directory on which a server runs now."""
    try:
        pid = int((directory / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, IndexError, ProcessLookupError):
        return
    except PermissionError:
        pass
    raise FailedPrecondition(
        "CLUSTER_RUNNING", f"A server (pid {pid}) is running on {directory}.", _HINT_STOP
    )


def is_cleanly_stopped(directory: Path, control: PgControl) -> bool:
    """Whether the files alone are the truth: no WAL to replay, no backup to complete."""
    pending = ("backup_label", "recovery.signal", "standby.signal")
    return control.state == DbState.SHUTDOWNED and not any(
        (directory / name).exists() for name in pending
    )


def open_cluster(directory: Path) -> Cluster:
    """A cleanly stopped cluster.

    Raises:
        FailedPrecondition: it runs, was not cleanly stopped, or has tablespaces elsewhere.
        DataLoss: a relation's files do not fit together.
    """
    control = read_control(directory)
    check_not_running(directory)
    if not is_cleanly_stopped(directory, control):
        raise FailedPrecondition(
            "CLUSTER_NOT_STOPPED",
            f"{directory} was not cleanly stopped (state {control.state.name}).",
            f"Start and stop it once with Postgres {control.version.major}: pg_ctl start -w, "
            "pg_ctl stop -m fast.",
        )
    refuse_tablespaces(directory)
    tablespaces = sorted(int(entry.name) for entry in (directory / "pg_tblspc").iterdir())
    databases: list[tuple[int, int]] = []
    relations = _relations_in(directory / "global", layout.GLOBAL_TABLESPACE, 0)
    for spc, place in (
        (layout.DEFAULT_TABLESPACE, directory / "base"),
        *((spc, _tablespace(directory, spc, control)) for spc in tablespaces),
    ):
        for oid in sorted(int(entry.name) for entry in place.iterdir() if entry.name.isdecimal()):
            whole = (place / str(oid) / "PG_VERSION").exists()
            if whole:
                databases.append((spc, oid))
            if whole or spc != layout.DEFAULT_TABLESPACE:
                relations |= _relations_in(place / str(oid), spc, oid)
    return Cluster(directory, control, databases, dict(sorted(relations.items())), tablespaces)


def _tablespace(directory: Path, spc: int, control: PgControl) -> Path:
    return directory / paths.tablespace_directory(spc, control.version)


def refuse_tablespaces(directory: Path) -> None:
    """Refuses a cluster whose relations lie partly outside its directory."""
    links = [entry for entry in (directory / "pg_tblspc").iterdir() if entry.is_symlink()]
    found = sorted(entry.name for entry in links)
    if found:
        raise FailedPrecondition(
            "TABLESPACE_UNSUPPORTED",
            f"{directory} has tablespaces in other places: {', '.join(found)}.",
            "Move their relations back first: ALTER TABLE ... SET TABLESPACE pg_default, "
            "ALTER DATABASE ... SET TABLESPACE pg_default, DROP TABLESPACE.",
        )


def _relations_in(directory: Path, spc: int, db: int) -> dict[Fork, RelationFiles]:
    segments: dict[Fork, dict[int, tuple[Path, int]]] = {}
    for entry in os.scandir(directory):
        parsed = paths.parse_relation_file(entry.name)
        if parsed is not None and entry.is_file():
            fork = (spc, db, parsed.rel, parsed.fork)
            found = segments.setdefault(fork, {})
            found[parsed.segment] = (Path(entry.path), entry.stat().st_size)
    unlogged = {fork[2] for fork in segments if fork[3] == _INIT_FORK}
    return {
        fork: _joined(segments[fork])
        for fork in sorted(segments)
        if fork[3] == _INIT_FORK or fork[2] not in unlogged
    }


def _joined(segments: dict[int, tuple[Path, int]]) -> RelationFiles:
    """Checks that the files are whole pages and leave no gap between them."""
    relation = RelationFiles()
    for path, size in _contiguous(segments):
        if size % layout.PAGE_SIZE:
            raise DataLoss(
                "TORN_FILE",
                f"{path} has {size} bytes, which is not a whole number of pages.",
                "Check the cluster with pg_amcheck and repair it before the import.",
            )
        relation.paths.append(path)
        relation.nblocks += size // layout.PAGE_SIZE
    return relation


def _contiguous(segments: dict[int, tuple[Path, int]]) -> Iterator[tuple[Path, int]]:
    full = True
    for number in range(max(segments) + 1):
        path, size = segments.get(number, (None, 0))
        if (size and not full) or size > layout.SEGMENT_BYTES:
            raise DataLoss(
                "TORN_FILE",
                f"{path} continues a relation whose file before it is short or missing.",
                "Files of the data directory were lost or copied incompletely; take a fresh copy.",
            )
        full = size == layout.SEGMENT_BYTES
        if path is not None:
            yield path, size
