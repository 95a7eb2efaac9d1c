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
only paths of the kinds that a base backup consists of are written. A server may be starting here
already, and the user that it runs as may be a stranger: nothing below the root is opened by its
path, see :mod:`pagestore.postgres.untrusted`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from pagestore import durable
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.pgformat import layout, page, paths, relmap, slru, versions
from pagestore.pgformat.versions import Version
from pagestore.postgres.remote_map import RELATION, Fork, Table
from pagestore.postgres.untrusted import open_regular, read_regular
from pagestore.v1 import page_pb2 as pb

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_MAX_BLOCKS = 0xFFFFFFFE
_LONGEST_READ = 1 << 20
_BACKUP_PATH = re.compile(
    r"PG_VERSION"
    r"|base/[1-9][0-9]{0,9}/(PG_VERSION|pg_filenode\.map)"
    r"|global/pg_filenode\.map"
    r"|pg_tblspc/[1-9][0-9]{0,9}/PG_[0-9_]+/([1-9][0-9]{0,9}/(PG_VERSION|pg_filenode\.map))?"
    r"|(pg_xact|pg_multixact/offsets|pg_multixact/members|pg_commit_ts)/[0-9A-F]{4,6}"
    r"|pg_twophase/([0-9A-F]{8}){1,2}"
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
        self._directories: dict[str, int] = {}
        try:
            self._make_empty_tree()
        except BaseException:
            self.close()
            raise

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

    @property
    def _root(self) -> int:
        return self._directories[""]

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
            for name in paths.own_directories(self.version):
                self._make_directory(name)
        elif kind == "file":
            self._write_backup_file(chunk.file)
        elif kind == "relations":
            self._take_relations(chunk.relations)
        elif kind == "pages":
            self.write_pages(_fork(chunk.pages.rel), chunk.pages.blocks, chunk.pages.pages)
        elif kind == "end":
            self._check_end(chunk.end)
        else:
            raise malformed("a chunk of an unknown kind")

    @property
    def settings(self) -> pb.ControlSettings:
        assert self.header is not None
        return self.header.settings

    @property
    def version(self) -> Version:
        """The major; before the header has come, what all share with the oldest."""
        return versions.of_catalog(self.header.settings.catalog_version if self.header else 0)

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

    def _write_backup_file(self, file: pb.BackupFile) -> None:
        if _BACKUP_PATH.fullmatch(file.path) is None:
            raise malformed(f"the path {file.path[:100]!r}")
        self._files += 1
        if file.path.endswith("/"):
            self._make_directory(file.path.rstrip("/"))
            self.has_tablespaces = True
            return
        if file.path.startswith(_OF_DECODING):
            self.decoding_files[file.path] = file.data
            return
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
        self.write_table(table)

    def write_table(self, table: Table) -> None:
        """Makes the sparse files of a relation table."""
        for spc, db, rel, number, nblocks in table.tolist():
            fork = (spc, db, rel, number)
            if fork in self.lengths:
                raise malformed(f"relation fork {fork} twice")
            self.lengths[fork] = nblocks
            self.create_sparse(fork, nblocks)

    def length(self, fork: Fork) -> int | None:
        """Blocks of a fork; None where the base backup did not name it."""
        return self.lengths.get(fork)

    def create_sparse(self, fork: Fork, nblocks: int) -> None:
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

    def write_pages(self, fork: Fork, blocks: Sequence[int], pages: Sequence[bytes]) -> None:
        """Takes blocks of a relation that is listed already; with checksums if the cluster
        has them."""
        self.check_pages(fork, blocks, pages)
        self.store_pages(fork, blocks, pages)

    def check_pages(self, fork: Fork, blocks: Sequence[int], pages: Sequence[bytes]) -> None:
        length = self.length(fork)
        if length is None or len(blocks) != len(pages):
            raise malformed(f"pages of the relation fork {fork}")
        if blocks and max(blocks) >= length:
            raise malformed(f"a page beyond the end of the relation fork {fork}")
        if not {*map(len, pages)} <= {layout.PAGE_SIZE}:
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
                    fd = open_regular(directory, name, os.O_WRONLY)
                if image != _ZEROS:
                    offset = block % layout.SEGMENT_BLOCKS * layout.PAGE_SIZE
                    durable.write_at(fd, image, offset)
        finally:
            if fd >= 0:
                os.close(fd)

    def unlogged_forks(self) -> list[Fork]:
        """The init forks: each main fork that goes with one starts as its copy."""
        return sorted(fork for fork in self.lengths if fork[3] == INIT_FORK)

    def write_unlogged(self, init_pages: Mapping[Fork, Sequence[bytes]]) -> None:
        """Lays each unlogged relation's main fork as a copy of its init fork, which is what
        Postgres itself does after a crash. `init_pages` holds every page of each init fork."""
        for fork in self.unlogged_forks():
            pages = init_pages.get(fork, ())
            if len(pages) != self.length(fork):
                raise malformed(f"the init fork {fork}, of which {len(pages)} pages came")
            main = (*fork[:3], 0)
            if self.length(main) is not None:
                raise malformed(f"the unlogged relation {main}, listed with its main fork")
            self.write_unlogged_fork(fork, pages)
            self.create_sparse(main, len(pages))
            self.store_pages(main, range(len(pages)), pages)

    def write_unlogged_fork(self, fork: Fork, pages: Sequence[bytes]) -> None:
        """The init fork itself, which is listed."""
        self.store_pages(fork, range(len(pages)), pages)

    # The rest

    def write_missing_slru_pages(self) -> None:
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

    def write_decoding_file(self, path: str, content: bytes) -> None:
        """A file of a replication slot, and its directory."""
        self.write(path, content)

    def write(self, path: str, data: bytes | str, mode: int = _FILE_MODE) -> None:
        """A whole file, at a path relative to the root. Whoever reads it meanwhile finds the
        old one or the new one: a server may be starting on the directory already."""
        directory, name = self._place(path)
        temporary = f"{name}.new"
        try:
            fd = self._create(temporary, directory, mode=mode)
        except FileExistsError:
            os.unlink(temporary, dir_fd=directory)
            fd = self._create(temporary, directory, mode=mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)

    def read(self, path: str) -> bytes | None:
        """A small file of it; None where there is none."""
        return read_regular(self._root, path, _LONGEST_READ)

    def replace_by_link(self, name: str, target: Path) -> None:
        """An empty directory of its own by a link to one elsewhere."""
        os.close(self._directories.pop(name))
        os.rmdir(name, dir_fd=self._root)
        os.symlink(target, name, dir_fd=self._root)

    def sync(self) -> None:
        """Makes everything laid so far durable."""
        _sync_file_system(self._root)

    def write_at(self, path: str, offset: int, data: bytes, *, length: int) -> None:
        """Into a sparse file of `length` bytes, made when it is not there."""
        fd = self._open_sparse(path, length)
        try:
            durable.write_at(fd, data, offset)
        finally:
            os.close(fd)

    def _extend(self, path: str, length: int) -> None:
        os.close(self._open_sparse(path, length))

    def _open_sparse(self, path: str, length: int) -> int:
        directory, name = self._place(path)
        try:
            fd = self._create(name, directory)
        except FileExistsError:
            fd = open_regular(directory, name, os.O_WRONLY)
        if os.fstat(fd).st_size < length:
            os.ftruncate(fd, length)
        return fd

    def _place(self, path: str) -> tuple[int, str]:
        """Where a path leads: a directory and a name in it."""
        parent, _, name = path.rpartition("/")
        return self._make_directory(parent), name

    def _create(self, name: str, directory: int, *, mode: int = _FILE_MODE) -> int:
        """A file that is not there yet."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, mode, dir_fd=directory)
        if self.owner is not None:
            os.fchown(fd, *self.owner)
        return fd

    def _make_empty_tree(self) -> None:
        self._make_root()
        if next(os.scandir(self._root), None) is not None:
            raise FailedPrecondition(
                "DIRECTORY_NOT_EMPTY", f"{self.root} is not empty.", "Name a directory that is."
            )
        for name in paths.DIRECTORIES:
            self._make_directory(name)

    def _make_root(self) -> None:
        self.root.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        self._directories[""] = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._take(self._root)

    def _make_directory(self, name: str) -> int:
        """One by its path from the root, with those above it; open until the end."""
        fd = self._directories.get(name)
        if fd is None:
            parent, last = self._place(name)
            with contextlib.suppress(FileExistsError):
                os.mkdir(last, _DIRECTORY_MODE, dir_fd=parent)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._directories[name] = fd = os.open(last, flags, dir_fd=parent)
            self._take(fd)
        return fd

    def _take(self, directory: int) -> None:
        os.fchmod(directory, _DIRECTORY_MODE)
        if self.owner is not None:
            os.fchown(directory, *self.owner)

    def open_database(self, spc: int, db: int) -> int:
        """The directory of a database in a tablespace, made if it is not there."""
        return self._make_directory(paths.database_directory(spc, db, self.version))


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
