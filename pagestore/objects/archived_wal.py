"""Committed WAL in the object store: which there is, and which of it counts.

::

    wal/<tenant>/<timeline>/<start LSN, 16 hex>-<end LSN, 16 hex>-<generation, 8 hex>
    wal/fences/<generation, 8 hex>

Each has the bytes of [start, end) of one timeline, as safekeepers served them: committed, so
two that overlap agree. But for one case: who recovers goes on from where the archived WAL ended,
and a page server that was replaced may go on archiving what its own safekeepers commit. So
recovering writes a *fence*: up to where, at that moment, the WAL of each timeline counts. What a
lower generation has behind it counts for nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import zstandard

from pagestore.ids import TenantId, TimelineId
from pagestore.objects import sealed
from pagestore.objects.store import ObjectStore

PREFIX = "wal/"
OBJECT_BYTES = 8 << 20
"""Of WAL in one object, about."""

Key = tuple[TenantId, TimelineId]

WAL_MAGIC, FENCE_MAGIC = b"PSWALOB\0", b"PSFENCE\0"
_FIELDS = struct.Struct("<16s16s16sQQQQ")  # store, tenant, timeline, start, end, term, system id
_END = struct.Struct("<16s16sQ")  # tenant, timeline, LSN
_ID = 16
_FENCES = f"{PREFIX}fences/"
_FORM = re.compile(
    r"fences/([0-9a-f]{8})"
    r"|([0-9a-f]{32})/([0-9a-f]{32})/([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{8})"
)
_LEVEL = 3
_GREATEST_BYTES = 1 << 30


class Range(NamedTuple):
    start: int
    end: int
    generation: int


class Archived(NamedTuple):
    """The WAL of [start, start + len(data)), and by whom it was written."""

    start: int
    data: bytes
    term: int
    system_id: int

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class ArchivedWal:
    """What there was when it was listed.

    Raises:
        DataLoss: OBJECT_CORRUPT. Unavailable: OBJECT_STORE_UNAVAILABLE.
    """

    def __init__(self, store: ObjectStore, store_id: bytes) -> None:
        self._store = store
        self._store_id = store_id
        self.ranges: dict[Key, list[Range]] = {}
        self._fences: list[tuple[int, dict[Key, int]]] = []
        for found, (fence, *names) in store.named(PREFIX, _FORM):
            if fence is not None:
                self._fences.append((int(fence, 16), self._fence(found.name)))
            else:
                key, range_ = _parsed(*names)
                self.ranges.setdefault(key, []).append(range_)

    def counted(self, key: Key, begin: int) -> Iterator[tuple[Range, int]]:
        """What leads on from `begin` without a gap, each with up to where it counts."""
        at = begin
        while True:
            found = max(
                (
                    (range_.generation, end, range_)
                    for range_ in self.ranges.get(key, ())
                    if range_.start <= at < (end := self._counts_to(key, range_))
                ),
                default=None,
            )
            if found is None:
                return
            _, at, range_ = found
            yield range_, at

    def end(self, key: Key, begin: int) -> int:
        """Up to where WAL leads on from `begin`."""
        return max((end for _, end in self.counted(key, begin)), default=begin)

    def resumes(self, key: Key, end: int) -> int:
        """Where WAL that counts goes on behind `end`, up to which it led without a gap; 0: nowhere.
        No page server leaves such a gap: an object was lost, or the journal's newest was."""
        starts = (
            range_.start
            for range_ in self.ranges.get(key, ())
            if end < range_.start < self._counts_to(key, range_)
        )
        return min(starts, default=0)

    def read(self, key: Key, begin: int) -> Iterator[Archived]:
        """What leads on from `begin`, in order, nothing twice."""
        at = begin
        for range_, end in self.counted(key, begin):
            archived = self._get(key, range_)
            data = archived.data[at - range_.start : end - range_.start]
            yield archived._replace(start=at, data=data)
            at = end

    def fence(self, generation: int, ends: Mapping[Key, int]) -> None:
        """From now on only WAL of `generation` and higher ones counts behind `ends`."""
        body = b"".join(
            _END.pack(tenant.raw, timeline.raw, end) for (tenant, timeline), end in ends.items()
        )
        packed = zstandard.ZstdCompressor().compress(self._store_id + body)
        self._store.create(f"{_FENCES}{generation:08x}", sealed.seal(FENCE_MAGIC, packed))

    def _counts_to(self, key: Key, range_: Range) -> int:
        fences = (
            ends.get(key, 0) for generation, ends in self._fences if range_.generation < generation
        )
        return min((range_.end, *fences))

    def _fence(self, name: str) -> dict[Key, int]:
        where = f"{name} in {self._store.url}"
        store_id, ends = look_at_fence(self._store.get(name), where)
        if store_id != self._store_id:
            raise sealed.corrupt(where, "it is of another store")
        return ends

    def _get(self, key: Key, range_: Range) -> Archived:
        name = object_name(key, range_)
        return decode(self._store.get(name), f"{name} in {self._store.url}", key, range_)


def put(store: ObjectStore, store_id: bytes, key: Key, generation: int, wal: Archived) -> Range:
    """
    Raises:
        Unavailable: OBJECT_STORE_UNAVAILABLE
    """
    range_ = Range(wal.start, wal.end, generation)
    fields = (key[0].raw, key[1].raw, wal.start, wal.end, wal.term, wal.system_id)
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(wal.data)
    body = _FIELDS.pack(store_id, *fields) + packed
    store.create(object_name(key, range_), sealed.seal(WAL_MAGIC, body))
    return range_


def decode(raw: bytes, where: str, key: Key, range_: Range) -> Archived:
    """
    Raises:
        DataLoss: OBJECT_CORRUPT. FailedPrecondition: OBJECT_VERSION.
    """
    found, wal = look(raw, where)
    if (found, wal.start, wal.end) != (key, range_.start, range_.end):
        raise sealed.corrupt(where, "it is another object than its name says")
    return wal


def look(raw: bytes, where: str) -> tuple[Key, Archived]:
    """The same, of whatever name."""
    body = sealed.unseal(WAL_MAGIC, raw, where)
    if len(body) < _FIELDS.size:
        raise sealed.corrupt(where, "it ends early")
    _, tenant, timeline, start, end, term, system_id = _FIELDS.unpack_from(body)
    data = _unpacked(body[_FIELDS.size :], where)
    if len(data) != end - start:
        raise sealed.corrupt(where, "it has another length")
    return (TenantId(tenant), TimelineId(timeline)), Archived(start, data, term, system_id)


def look_at_fence(raw: bytes, where: str) -> tuple[bytes, dict[Key, int]]:
    """The store's id, and up to where the WAL of each timeline counts."""
    body = _unpacked(sealed.unseal(FENCE_MAGIC, raw, where), where)
    if len(body) < _ID or (len(body) - _ID) % _END.size:
        raise sealed.corrupt(where, "it ends early")
    return body[:_ID], {
        (TenantId(tenant), TimelineId(timeline)): end
        for tenant, timeline, end in _END.iter_unpack(body[_ID:])
    }


def object_name(key: Key, range_: Range) -> str:
    tenant, timeline = key
    start, end, generation = range_
    return f"{PREFIX}{tenant}/{timeline}/{start:016x}-{end:016x}-{generation:08x}"


def _unpacked(packed: memoryview, where: str) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=_GREATEST_BYTES)
    except zstandard.ZstdError as error:
        raise sealed.corrupt(where, str(error)) from error


def _parsed(tenant: str, timeline: str, *numbers: str) -> tuple[Key, Range]:
    start, end, generation = (int(number, 16) for number in numbers)
    return (TenantId.parse(tenant), TimelineId.parse(timeline)), Range(start, end, generation)
