"""Lays a Postgres data directory from a base backup.

The directory is a cache that can be thrown away: the few real files (control file, relation
maps, transaction status) are written whole, every relation file is made *sparse at its right
length*, and a remote map tells the shim which blocks are still on the page server
(POSTGRES.md §2). Blocks that came with the base backup are in place, and their bits clear.

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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pagestore.compute import remote_map
from pagestore.compute.remote_map import Fork
from pagestore.errors import DataLoss, FailedPrecondition
from pagestore.pgformat import layout, page, paths, relmap, slru
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
)
_INIT_FORK = 3
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
        self.local: dict[Fork, list[int]] = {}
        self.has_tablespaces = False
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
            raise _malformed(f"a chunk {kind!r} out of order")
        if kind == "header":
            self.header = chunk.header
        elif kind == "file":
            self._lay_backup_file(chunk.file)
        elif kind == "relations":
            self.lay_relations(
                (_fork(item.rel), item.nblocks) for item in chunk.relations.relations
            )
        elif kind == "pages":
            self.lay_pages(_fork(chunk.pages.rel), chunk.pages.blocks, chunk.pages.pages)
        elif kind == "end":
            self._check_end(chunk.end)
        else:
            raise _malformed("a chunk of an unknown kind")

    @property
    def settings(self) -> pb.ControlSettings:
        assert self.header is not None
        return self.header.settings

    @property
    def counters(self) -> pb.ControlCounters:
        assert self.header is not None
        return self.header.counters

    def _check_end(self, end: pb.BackupEnd) -> None:
        if end.relations != len(self.lengths) or end.files != self._files:
            raise _malformed(
                f"{len(self.lengths)} relations and {self._files} files came, "
                f"{end.relations} and {end.files} were sent"
            )
        self.complete = True

    def _lay_backup_file(self, file: pb.BackupFile) -> None:
        if _BACKUP_PATH.fullmatch(file.path) is None:
            raise _malformed(f"the path {file.path[:100]!r}")
        self._files += 1
        if file.path.endswith("/"):
            self._make_directories(file.path.rstrip("/"))
            self.has_tablespaces = True
            return
        if file.path.startswith("base/"):
            self._database_fd(layout.DEFAULT_TABLESPACE, int(file.path.split("/")[1]))
        if file.path.endswith(relmap.FILE_NAME):
            relmap.parse(file.data, file.path)
        self.write(file.path, file.data)

    # Relations

    def lay_relations(self, lengths: Iterable[tuple[Fork, int]]) -> None:
        """Makes sparse files of these lengths, in blocks."""
        for fork, nblocks in lengths:
            if fork in self.lengths:
                raise _malformed(f"relation fork {fork} twice")
            if nblocks > _MAX_BLOCKS or fork[3] > _INIT_FORK:
                raise _malformed(f"relation fork {fork} of {nblocks} blocks")
            self.lengths[fork] = nblocks
            self._lay_sparse(fork, nblocks)

    def _lay_sparse(self, fork: Fork, nblocks: int) -> None:
        directory = self._database_fd(fork[0], fork[1])
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
        """Writes blocks that the remote map shall not name; see :meth:`write_pages`."""
        self.write_pages(fork, blocks, pages)
        if blocks:
            self.local.setdefault(fork, []).extend(blocks)

    def write_pages(self, fork: Fork, blocks: Sequence[int], pages: Sequence[bytes]) -> None:
        """Writes blocks of a relation that is laid already; with checksums if the cluster
        has them. Pages of zeros stay holes."""
        length = self.lengths.get(fork)
        if length is None or len(blocks) != len(pages):
            raise _malformed(f"pages of the relation fork {fork}")
        if any(block >= length for block in blocks):
            raise _malformed(f"a page beyond the end of the relation fork {fork}")
        if any(len(image) != layout.PAGE_SIZE for image in pages):
            raise _malformed(f"a short page of the relation fork {fork}")
        if self.settings.data_checksum_version:
            pages = page.with_checksums(pages, blocks)
        directory = self._database_fd(fork[0], fork[1])
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
        return sorted(fork for fork in self.lengths if fork[3] == _INIT_FORK)

    def lay_unlogged(self, init_pages: Mapping[Fork, Sequence[bytes]]) -> None:
        """Lays each unlogged relation's main fork as a copy of its init fork, which is what
        Postgres itself does after a crash. `init_pages` holds every page of each init fork."""
        for fork in self.unlogged_forks():
            pages = init_pages.get(fork, ())
            if len(pages) != self.lengths[fork]:
                raise _malformed(f"the init fork {fork}, of which {len(pages)} pages came")
            blocks = range(len(pages))
            main = (*fork[:3], 0)
            if main in self.lengths:
                raise _malformed(f"the unlogged relation {main}, listed with its main fork")
            self.lay_relations([(main, len(pages))])
            self.lay_pages(main, blocks, pages)
            if fork not in self.local:
                self.lay_pages(fork, blocks, pages)

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

    def lay_remote_map(self) -> None:
        self.write(remote_map.FILE_NAME, remote_map.build(self.lengths, self.local))

    def write(self, path: str, data: bytes | str, mode: int = _FILE_MODE) -> None:
        """A whole file, at a path relative to the root."""
        fd = self._create(str(self.root / path), mode=mode, replace=True)
        with os.fdopen(fd, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)

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

    def _database_fd(self, spc: int, db: int) -> int:
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


def _malformed(what: str) -> DataLoss:
    return DataLoss("MALFORMED_BACKUP", f"The base backup has {what}.")
