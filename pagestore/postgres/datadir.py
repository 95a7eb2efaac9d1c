"""Lays a Postgres data directory from a base backup.

The few real files (control file, relation maps, transaction status) are written whole; every
relation file is made *sparse at its right length*, and blocks are written into it as they come.
A compute's directory makes no relation files at all: see :mod:`pagestore.compute.hydrating`.

Words: a *fork* is (spc, db, rel, fork number); a *hot page* is a block that travelled with
the base backup, because every start reads it.

What this is not: nothing here talks to a server, and nothing here is durable. What must be
durable is at the WAL service before the directory is used. A bulk user (export) that wants
durability syncs the directory itself.

Paths come from another process, and the server that will run here trusts its directory; so
only paths of the kinds that a base backup consists of are written.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.pgformat import layout, page, paths, relmap, slru
from pagestore.postgres.remote_map import RELATION, Fork, Table
from pagestore.v1 import page_pb2 as pb

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_MAX_BLOCKS = 0xFFFFFFFE
_BACKUP_PATH = re.compile(
    r"PG_VERSION"
    r"|base/[1-9][0-9]{0,9}/(PG_VERSION|pg_filenode\.map)"
    r"|global/pg_filenode\.map"
    r"|pg_tblspc/[1-9][0-9]{0,9}/PG_[0-9_]+/"
    r"|(pg_xact|pg_multixact/offsets|pg_multixact/members|pg_commit_ts)/[0-9A-F]{4,6}"
    r"|pg_twophase/[0-9A-F]{8}"
    r"|pg_logical/replorigin_checkpoint"
    r"|pg_stat/pgstat\.stat"
    r"|pg_replslot/[a-z0-9_]{1,63}/state"
    r"|pg_logical/snapshots/[0-9A-F]{1,8}-[0-9A-F]{1,8}\.snap"
    r"|pg_logical/mappings/map-[0-9a-f]{1,8}-[0-9a-f]{1,8}-[0-9A-F]{1,8}_[0-9A-F]{1,8}"
    r"-[0-9a-f]{1,8}-[0-9a-f]{1,8}"
)
_OF_DECODING = ("pg_replslot/", "pg_logical/snapshots/", "pg_logical/mappings/")
INIT_FORK = 3
_ZEROS = bytes(layout.PAGE_SIZE)


class Owner(NamedTuple):
    uid: int
    gid: int


class DataDirectory:
    """One directory while it is laid: `feed` it every chunk, then finish it file by file.

    Args:
        root: must not exist, or be empty.
        owner: who shall own every file; None leaves it to the caller's own ids.
    """

    def __init__(self, root: Path, owner: Owner | None = None) -> None:
        self.root = root
        self.owner = owner
        self.header: pb.BackupHeader | None = None
        self.complete = False
        self.lengths: dict[Fork, int] = {}
        self.has_tablespaces = False
        self.decoding_files: dict[str, bytes] = {}
        """Of replication slots, by path: set aside, since they are of no use without their WAL."""
        self._files = 0
        self._directories: dict[tuple[int, int], int] = {}
        self._make_directory("")
        if any(root.iterdir()):
            raise FailedPrecondition(
                "DIRECTORY_NOT_EMPTY", f"{root} is not empty.", "Name a directory that is."
            )
        for name in paths.DIRECTORIES:
            self._make_directory(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets the open directories; the files stay."""
        while self._directories:
            os.close(self._directories.popitem()[1])

    # The base backup's stream

    def feed(self, chunk: pb.BaseBackupChunk) -> None:
        """Lays what one chunk carries.

        Raises:
            DataLoss: MALFORMED_BACKUP; the chunk does not fit the stream's grammar.
        """
        kind = chunk.WhichOneof("chunk")
        if self.complete or (kind == "header") != (self.header is None):
            raise malformed(f"a chunk {kind!r} out of order")
        if kind == "header":
            self.header = chunk.header
        elif kind == "file":
            self._lay_backup_file(chunk.file)
        elif kind == "relations":
            self._take_relations(chunk.relations)
        elif kind == "pages":
            self.lay_pages(_fork(chunk.pages.rel), chunk.pages.blocks, chunk.pages.pages)
        elif kind == "end":
            self._check_end(chunk.end)
        else:
            raise malformed("a chunk of an unknown kind")

    @property
    def settings(self) -> pb.ControlSettings:
        assert self.header is not None
        return self.header.settings

    @property
    def counters(self) -> pb.ControlCounters:
        assert self.header is not None
        return self.header.counters

    @property
    def relation_count(self) -> int:
        """How many relation forks have come."""
        return len(self.lengths)

    def _check_end(self, end: pb.BackupEnd) -> None:
        if end.relations != self.relation_count or end.files != self._files:
            raise malformed(
                f"{self.relation_count} relations and {self._files} files came, "
                f"{end.relations} and {end.files} were sent"
            )
        self.complete = True

    def _lay_backup_file(self, file: pb.BackupFile) -> None:
        if _BACKUP_PATH.fullmatch(file.path) is None:
            raise malformed(f"the path {file.path[:100]!r}")
        self._files += 1
        if file.path.endswith("/"):
            self._make_directories(file.path.rstrip("/"))
            self.has_tablespaces = True
            return
        if file.path.startswith(_OF_DECODING):
            self.decoding_files[file.path] = file.data
            return
        if file.path.startswith("base/"):
            self.open_database(layout.DEFAULT_TABLESPACE, int(file.path.split("/")[1]))
        if file.path.endswith(relmap.FILE_NAME):
            relmap.parse(file.data, file.path)
        self.write(file.path, file.data)

    # Relations

    def _take_relations(self, message: pb.BackupRelations) -> None:
        if len(message.packed) % RELATION.itemsize:
            raise malformed("a list of relations of an odd length")
        rows = [
            (rel.spc_oid, rel.db_oid, rel.rel_number, rel.fork, item.nblocks)
            for item in message.relations
            for rel in (item.rel,)
        ]
        packed = np.frombuffer(message.packed, dtype=RELATION)
        table = np.concatenate([np.array(rows, dtype=RELATION), packed]) if rows else packed
        if np.any(table["fork"] > INIT_FORK) or np.any(table["nblocks"] > _MAX_BLOCKS):
            raise malformed("a relation fork of an impossible kind or length")
        self.lay_table(table)

    def lay_table(self, table: Table) -> None:
        """Makes the sparse files of a relation table."""
        for spc, db, rel, number, nblocks in table.tolist():
            fork = (spc, db, rel, number)
            if fork in self.lengths:
                raise malformed(f"relation fork {fork} twice")
            self.lengths[fork] = nblocks
            self.lay_sparse(fork, nblocks)

    def length(self, fork: Fork) -> int | None:
        """Blocks of a fork; None where the base backup did not name it."""
        return self.lengths.get(fork)

    def lay_sparse(self, fork: Fork, nblocks: int) -> None:
        """Makes the files of one fork."""
        directory = self.open_database(fork[0], fork[1])
        segment = 0
        while True:
            blocks = min(nblocks, layout.SEGMENT_BLOCKS)
            fd = self._create(paths.relation_file(fork[2], fork[3], segment), directory)
            try:
                if blocks:
                    os.ftruncate(fd, blocks * layout.PAGE_SIZE)
            finally:
                os.close(fd)
            nblocks -= blocks
            segment += 1
            if not nblocks:
                return

    def lay_pages(self, fork: Fork, blocks: Sequence[int], pages: Sequence[bytes]) -> None:
        """Takes blocks of a relation that is listed already; with checksums if the cluster
        has them."""
        self.check_pages(fork, blocks, pages)
        self.store_pages(fork, blocks, pages)

    def check_pages(self, fork: Fork, blocks: Sequence[int], pages: Sequence[bytes]) -> None:
        length = self.length(fork)
        if length is None or len(blocks) != len(pages):
            raise malformed(f"pages of the relation fork {fork}")
        if any(block >= length for block in blocks):
            raise malformed(f"a page beyond the end of the relation fork {fork}")
        if any(len(image) != layout.PAGE_SIZE for image in pages):
            raise malformed(f"a short page of the relation fork {fork}")

    def store_pages(self, fork: Fork, blocks: Sequence[int], pages: Sequence[bytes]) -> None:
        """Writes blocks into files that are there. Pages of zeros stay holes."""
        if self.settings.data_checksum_version:
            pages = page.with_checksums(pages, blocks)
        directory = self.open_database(fork[0], fork[1])
        segment, fd = -1, -1
        try:
            for block, image in zip(blocks, pages, strict=True):
                if block // layout.SEGMENT_BLOCKS != segment:
                    if fd >= 0:
                        os.close(fd)
                    segment = block // layout.SEGMENT_BLOCKS
                    name = paths.relation_file(fork[2], fork[3], segment)
                    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
                if image != _ZEROS:
                    os.pwrite(fd, image, block % layout.SEGMENT_BLOCKS * layout.PAGE_SIZE)
        finally:
            if fd >= 0:
                os.close(fd)

    def unlogged_forks(self) -> list[Fork]:
        """The init forks: each main fork that goes with one starts as its copy."""
        return sorted(fork for fork in self.lengths if fork[3] == INIT_FORK)

    def lay_unlogged(self, init_pages: Mapping[Fork, Sequence[bytes]]) -> None:
        """Lays each unlogged relation's main fork as a copy of its init fork, which is what
        Postgres itself does after a crash. `init_pages` holds every page of each init fork."""
        for fork in self.unlogged_forks():
            pages = init_pages.get(fork, ())
            if len(pages) != self.length(fork):
                raise malformed(f"the init fork {fork}, of which {len(pages)} pages came")
            main = (*fork[:3], 0)
            if self.length(main) is not None:
                raise malformed(f"the unlogged relation {main}, listed with its main fork")
            self.lay_unlogged_fork(fork, pages)
            self.lay_sparse(main, len(pages))
            self.store_pages(main, range(len(pages)), pages)

    def lay_unlogged_fork(self, fork: Fork, pages: Sequence[bytes]) -> None:
        """The init fork itself, which is listed."""
        self.store_pages(fork, range(len(pages)), pages)

    # The rest

    def lay_missing_slru_pages(self) -> None:
        """The pages that a start reads, where the history has not made them yet: zeros."""
        counters = self.counters
        next_items = {
            slru.XACT: counters.next_full_xid & 0xFFFFFFFF,
            slru.MULTIXACT_OFFSETS: counters.next_multi,
            slru.MULTIXACT_MEMBERS: counters.next_multi_offset,
        }
        for kind, item in next_items.items():
            path, offset = slru.page_position(kind, slru.page_of(kind, item))
            self._extend(path, offset + layout.PAGE_SIZE)

    def lay_decoding_file(self, path: str, content: bytes) -> None:
        """A file of a replication slot, and its directory."""
        self._make_directories(path.rpartition("/")[0])
        self.write(path, content)

    def write(self, path: str, data: bytes | str, mode: int = _FILE_MODE) -> None:
        """A whole file, at a path relative to the root. Whoever reads it meanwhile finds the
        old one or the new one: a server may be starting on the directory already."""
        temporary = self.root / f"{path}.new"
        fd = self._create(str(temporary), mode=mode, replace=True)
        with os.fdopen(fd, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        temporary.rename(self.root / path)

    def sync(self) -> None:
        """Makes everything laid so far durable."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync_file_system(fd)
        finally:
            os.close(fd)

    def write_at(self, path: str, offset: int, data: bytes, *, length: int) -> None:
        """Into a sparse file of `length` bytes, made when it is not there."""
        self._extend(path, length)
        fd = os.open(self.root / path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def _extend(self, path: str, length: int) -> None:
        target = self.root / path
        if not target.exists():
            os.close(self._create(str(target)))
        if target.stat().st_size < length:
            os.truncate(target, length)

    def _create(
        self,
        name: str,
        directory: int | None = None,
        *,
        mode: int = _FILE_MODE,
        replace: bool = False,
    ) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if replace else os.O_EXCL)
        fd = os.open(name, flags, mode, dir_fd=directory)
        if self.owner is not None:
            os.fchown(fd, *self.owner)
        return fd

    def _make_directory(self, name: str) -> None:
        path = self.root / name
        path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        path.chmod(_DIRECTORY_MODE)
        if self.owner is not None:
            os.chown(path, *self.owner)

    def _make_directories(self, name: str) -> None:
        """One below the root's own, with those above it."""
        parts = name.split("/")
        for depth in range(2, len(parts) + 1):
            self._make_directory("/".join(parts[:depth]))

    def open_database(self, spc: int, db: int) -> int:
        """The directory of a database in a tablespace, made if it is not there."""
        fd = self._directories.get((spc, db))
        if fd is None:
            name = paths.database_directory(spc, db)
            if spc != layout.GLOBAL_TABLESPACE:
                self._make_directories(name)
            fd = os.open(self.root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._directories[spc, db] = fd
        return fd


def _sync_file_system(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _fork(rel: pb.RelTag) -> Fork:
    return (rel.spc_oid, rel.db_oid, rel.rel_number, rel.fork)


def malformed(what: str) -> DataLoss:
    """MALFORMED_BACKUP."""
    return DataLoss("MALFORMED_BACKUP", f"The base backup has {what}.")
