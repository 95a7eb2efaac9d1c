"""A whole stopped cluster, as it streams in, into the root of a new timeline.

The stream (ImportTimeline in page.proto) begins with a header and ends with an end chunk;
between them relation lengths come before the pages of those relations, and pages ascend by
(relation, block) over the whole stream. All of it becomes images at one LSN, the end of the
shutdown checkpoint record. Metadata is small, arrives in any order and is kept until the end,
where it is sorted; pages are passed on in batches of a few MiB. Every relation must have
arrived whole: a cluster that lacks a block is refused here, not found out by a reader later.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Protocol

from pagestore import keyspace
from pagestore._native import Batch, crc32c
from pagestore.errors import InvalidInput
from pagestore.ids import TenantId, TimelineId
from pagestore.keyspace import PAGE_SIZE, Key, Kind, Slru, ValueKind
from pagestore.pg_control_values import pack_counters, pack_settings
from pagestore.v1 import page_pb2 as pb

BATCH_BYTES = 8 << 20
PAGES_PER_SEGMENT = 32
DATABASE_HAS_VERSION = 1
_ZEROS = bytes(PAGE_SIZE)
_SLRUS = frozenset(map(int, Slru))
_U32 = struct.Struct("<I")
_ORIGIN = struct.Struct("<H6xQ")
_OF_DATABASE = {"PG_VERSION": keyspace.database, "pg_filenode.map": keyspace.relmap}
"""Files of a database's own directory, by the keys that hold them."""


class RootImport(Protocol):
    """What is needed of the builder that Repository.create_root returns."""

    def put(self, batch: Batch) -> None: ...
    def commit(self) -> object: ...
    def abort(self) -> None: ...


OpenRoot = Callable[[TenantId, TimelineId, int, int], RootImport]
"""(tenant, timeline, lsn, prev_record_lsn) -> the builder."""


class Importer:
    """Takes chunks one by one; `finish` makes the timeline, `abort` leaves nothing."""

    def __init__(self, open_root: OpenRoot) -> None:
        self._open_root = open_root
        self._root: RootImport | None = None
        self._batch = Batch()
        self._lsn = 0
        self._metadata: dict[bytes, bytes] = {}
        self._slru_pages: dict[bytes, bytes] = {}
        self._lengths: dict[tuple[int, int, int, int], int] = {}
        self._last_page = b""
        self._pages = 0
        self._files = 0
        self._ended = False
        self.key: tuple[TenantId, TimelineId] | None = None

    def take(self, chunk: pb.ImportChunk) -> None:
        """
        Raises:
            InvalidInput: INVALID_IMPORT; the chunk breaks the stream's rules.
            AlreadyExists: the timeline id is taken.
        """
        kind = chunk.WhichOneof("chunk")
        if kind == "header":
            self._header(chunk.header)
            return
        if self._root is None:
            raise _invalid("The first chunk of an import is its header.")
        if self._ended:
            raise _invalid("Nothing may follow the end chunk.")
        if kind == "relations":
            self._relations(chunk.relations)
        elif kind == "pages":
            self._take_pages(chunk.pages)
        elif kind == "file":
            self._file(chunk.file)
        elif kind == "slru":
            self._slru(chunk.slru)
        elif kind == "end":
            self._end(chunk.end)
        else:
            raise _invalid("A chunk is empty.")

    def finish(self) -> None:
        """Makes the timeline durable and visible.

        Raises:
            InvalidInput: INCOMPLETE_IMPORT; no end chunk came.
        """
        if self._root is None or not self._ended:
            raise InvalidInput(
                "INCOMPLETE_IMPORT",
                "The import ended before its end chunk; nothing was kept.",
                "Send it again, whole.",
            )
        self._flush_pages()
        for values in (self._metadata, self._slru_pages):
            self._put_sorted(values)
        self._root.commit()
        self._root = None

    def abort(self) -> None:
        """Forgets all that came; harmless after `finish`."""
        if self._root is not None:
            self._root.abort()
            self._root = None

    def _header(self, header: pb.ImportHeader) -> None:
        if self._root is not None:
            raise _invalid("An import has one header.")
        if not header.lsn or header.checkpoint_lsn >= header.lsn:
            raise _invalid("The header's lsn must lie beyond its checkpoint_lsn.")
        self.key = TenantId(header.tenant_id), TimelineId(header.timeline_id)
        self._lsn = header.lsn
        self._metadata[keyspace.COUNTERS.pack()] = pack_counters(header.counters)
        self._metadata[keyspace.SETTINGS.pack()] = pack_settings(header.settings)
        self._root = self._open_root(*self.key, header.lsn, header.checkpoint_lsn)

    def _relations(self, message: pb.BackupRelations) -> None:
        for item in message.relations:
            rel = _rel(item.rel)
            if rel in self._lengths:
                raise _invalid(f"Relation {rel} was listed twice.")
            self._lengths[rel] = item.nblocks
            self._metadata[keyspace.rel_size(*rel).pack()] = _U32.pack(item.nblocks)

    def _take_pages(self, message: pb.BackupPages) -> None:
        rel = _rel(message.rel)
        length = self._lengths.get(rel)
        if length is None:
            raise _invalid(f"Pages of relation {rel} came before its length.")
        if len(message.blocks) != len(message.pages):
            raise _invalid(f"{len(message.blocks)} blocks came with {len(message.pages)} pages.")
        for block, page in zip(message.blocks, message.pages, strict=True):
            key = keyspace.rel_block(*rel, block).pack()
            if key <= self._last_page:
                raise _invalid(f"Block {block} of relation {rel} is out of order.")
            if block >= length:
                raise _invalid(f"Relation {rel} has {length} blocks, and block {block} came.")
            self._last_page = key
            self._put_page(key, page)
        self._pages += len(message.blocks)
        if self._batch.nbytes >= BATCH_BYTES:
            self._flush_pages()

    def _put_page(self, key: bytes, page: bytes) -> None:
        if page == _ZEROS:
            self._batch.put(key, self._lsn, ValueKind.ZERO, 0, b"")
        elif len(page) == PAGE_SIZE:
            self._batch.put(key, self._lsn, ValueKind.IMAGE, 0, page)
        else:
            raise _invalid(f"A page has {PAGE_SIZE} bytes, not {len(page)}.")

    def _file(self, file: pb.BackupFile) -> None:
        self._files += 1
        if file.path == "pg_logical/replorigin_checkpoint":
            self._metadata.update(_origins(file.data))
            return
        key = file_key(file.path)
        if key is None:
            return
        if key.kind == Kind.DATABASE:
            self._metadata[key.pack()] = _U32.pack(DATABASE_HAS_VERSION if key.db else 0)
        else:
            self._metadata[key.pack()] = file.data

    def _slru(self, segment: pb.ImportSlruSegment) -> None:
        pages, rest = divmod(len(segment.data), PAGE_SIZE)
        if int(segment.kind) not in _SLRUS or rest or pages > PAGES_PER_SEGMENT:
            raise _invalid(
                f"SLRU {segment.kind}, segment {segment.segment:X}, came with "
                f"{len(segment.data)} bytes."
            )
        key = keyspace.slru_size(segment.kind, segment.segment)
        self._metadata[key.pack()] = _U32.pack(pages)
        for i in range(pages):
            page = keyspace.slru_page(segment.kind, segment.segment * PAGES_PER_SEGMENT + i)
            self._slru_pages[page.pack()] = segment.data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]

    def _end(self, end: pb.BackupEnd) -> None:
        if end.relations != len(self._lengths) or end.files != self._files:
            raise _invalid(
                f"{len(self._lengths)} relations and {self._files} files came, and the end chunk "
                f"counts {end.relations} and {end.files}."
            )
        blocks = sum(self._lengths.values())
        if blocks != self._pages:
            raise _invalid(f"The relations have {blocks} blocks, and {self._pages} came.")
        self._ended = True

    def _flush_pages(self) -> None:
        assert self._root is not None
        if len(self._batch):
            self._root.put(self._batch)
            self._batch = Batch()

    def _put_sorted(self, values: dict[bytes, bytes]) -> None:
        for key in sorted(values):
            value = values[key]
            zero = key[0] == Kind.SLRU_PAGE and value == _ZEROS
            kind = ValueKind.ZERO if zero else ValueKind.IMAGE
            self._batch.put(key, self._lsn, kind, 0, b"" if zero else value)
            if self._batch.nbytes >= BATCH_BYTES:
                self._flush_pages()
        self._flush_pages()


def file_key(path: str) -> Key | None:
    """The key that holds a data directory's file; None for one that no compute needs.

    Raises:
        InvalidInput: INVALID_IMPORT; a file that the store cannot hold.
    """
    match path.split("/"):
        case ["PG_VERSION"] | ["global", "PG_VERSION"]:
            return None
        case ["global", "pg_filenode.map"]:
            return keyspace.relmap(1664, 0)
        case ["base", db, name] if _is_oid(db) and name in _OF_DATABASE:
            return _OF_DATABASE[name](1663, int(db))
        case ["pg_tblspc", spc, _, ""] if _is_oid(spc):
            return keyspace.database(int(spc), 0)
        case ["pg_tblspc", spc, _, db, name] if (
            _is_oid(spc) and _is_oid(db) and name in _OF_DATABASE
        ):
            return _OF_DATABASE[name](int(spc), int(db))
        case ["pg_twophase", xid] if re.fullmatch("([0-9A-F]{8}){1,2}", xid):
            return keyspace.two_phase(int(xid[-8:], 16))
        case ["pg_stat", "pgstat.stat"]:
            return Key(Kind.FILE, block=keyspace.FILE_PGSTAT)
    raise _invalid(f"The file {path[:200]!r} has no place in the store.")


def _origins(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """ORIGIN keys and values of a file that reader/basebackup.py describes."""
    body = data[:-4]
    if len(body) % _ORIGIN.size != 4 or _U32.pack(crc32c(body)) != data[-4:]:
        raise _invalid("pg_logical/replorigin_checkpoint is damaged.")
    for origin, remote_lsn in _ORIGIN.iter_unpack(body[4:]):
        yield Key(Kind.ORIGIN, block=origin).pack(), struct.pack("<QQ", remote_lsn, 0)


def _is_oid(text: str) -> bool:
    return re.fullmatch("[1-9][0-9]{0,9}", text) is not None and int(text) < 1 << 32


def _rel(tag: pb.RelTag) -> tuple[int, int, int, int]:
    if tag.fork > 3 or not tag.spc_oid or not tag.rel_number:
        raise _invalid(f"There is no relation {tag.spc_oid}/{tag.db_oid}/{tag.rel_number}.")
    return tag.spc_oid, tag.db_oid, tag.rel_number, tag.fork


def _invalid(message: str) -> InvalidInput:
    return InvalidInput("INVALID_IMPORT", message)
